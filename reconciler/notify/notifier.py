"""One round of all notify rules. The caller holds the lease, so each message is sent by one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from reconciler.actual.store import Store
from reconciler.errors import ReconcilerError
from reconciler.model.notifications import Message, NotifyRule, NotifyState, cut, message_of
from reconciler.model.retries import back_off
from reconciler.notify.notices import new_notices
from reconciler.notify.targets import deliver

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 30.0, 3600.0


class Failure(msgspec.Struct, frozen=True):
    """A rule whose message could not be delivered. It is tried again; nothing is lost."""

    rule: str
    problem: str
    hint: str


def send_due(
    store: Store, now: float, *, flush: bool = False, send: Callable[[NotifyRule, Message], None] = deliver
) -> list[Failure]:
    """Send the messages that are due; return the rules that failed now.

    A message is recorded after it was delivered, so a process that dies in between sends it again. With
    ``flush`` the interval between two messages does not matter, because the process is about to end.
    """
    with store.read() as view:
        config = view.config()
        rules = config.notify if config is not None else []
        states = {rule.name: view.notify_state(rule.name) for rule in rules}
    return [
        failure
        for rule in rules
        if (state := states[rule.name]) is not None and (flush or now >= next_try(rule, state))
        for failure in _send(store, rule, state, now, send)
    ]


def next_try(rule: NotifyRule, state: NotifyState) -> float:
    """Return when a rule may send its next message."""
    if state.failures:
        return state.tried + back_off(state.failures, _FIRST_BACK_OFF, _LONGEST_BACK_OFF)
    return state.sent + rule.interval


def _send(
    store: Store,
    rule: NotifyRule,
    state: NotifyState,
    now: float,
    send: Callable[[NotifyRule, Message], None],
) -> Iterator[Failure]:
    problem = hint = ""
    try:
        with store.read() as view:
            config = view.config()
            notices, after = new_notices(view, rule, state)
        after = msgspec.structs.replace(after, failures=0, error="")
        if notices:
            send(rule, message_of(config.project_name if config is not None else "", rule.name, notices))
            after = msgspec.structs.replace(after, sent=now)
    except ReconcilerError as error:
        problem, hint = error.message, error.hint or ""
    except Exception as error:  # an odd record, or whatever the library of a target raises
        problem = f"unexpected {type(error).__name__}: {error}"
    if problem:
        failures = state.failures + 1
        after = msgspec.structs.replace(state, tried=now, failures=failures, error=cut(problem))
        yield Failure(rule.name, problem, hint)
    if after != state:
        store.write(lambda writer: writer.put_notify_state(rule.name, after))
