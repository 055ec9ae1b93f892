"""Letting the daemon that works on a state do what was asked of this process, and showing what it did."""

from __future__ import annotations

import math
import time

import click

from reconciler.actual.requests import Answer, Requests
from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from reconciler.cli.context import Context
from reconciler.cli.meant import require_meant
from reconciler.cli.who import who
from reconciler.errors import ExitCode, WorldError
from reconciler.model.desired import Revision
from reconciler.model.records import Outcome
from reconciler.model.states import ACTIVE, JobState

_GLANCE = 0.02
"""Seconds between two looks for the answer."""


def hand_over(context: Context, store: Store, lease: Lease, meant: Revision, *, allow_prune: bool) -> int:
    """Let the daemon make the pass over what was meant, and show what came of it; return the exit code.

    ``allow_prune`` is said only after a guard has refused: not before it is known what the daemon reads.

    Raises
    ------
    WorldError
        The daemon ended before it answered.
    RefusedError
        The daemon reads another revision.
    """
    context.say(f"a daemon works on this state ({lease.holder() or 'it says no more'}): it makes the pass")
    answer = _asked(context, store, lease, allow_prune=False)
    require_meant(context, store, meant, answer)
    if allow_prune and answer.code == ExitCode.REFUSED:
        answer = _asked(context, store, lease, allow_prune=True)
        require_meant(context, store, meant, answer)
    return show_answer(context, answer)


def _asked(context: Context, store: Store, lease: Lease, *, allow_prune: bool) -> Answer:
    requests = Requests(store.path)
    token = requests.ask(who(context), time.time(), allow_prune=allow_prune)
    answer = wait_for_answer(requests, token, lease, None)
    assert answer is not None
    return answer


def wait_for_answer(requests: Requests, token: str, lease: Lease, timeout: float | None) -> Answer | None:
    """Return the daemon's answer to a request; None if it was too slow: then the request is taken back.

    Raises
    ------
    WorldError
        The daemon ended before it answered.
    """
    deadline = time.monotonic() + timeout if timeout is not None else math.inf
    try:
        while True:
            alive = lease.is_watched()  # asked before, since the last deed of a daemon may be the answer
            answer = requests.take_answer(token)
            if answer is not None or time.monotonic() > deadline:
                return answer
            if not alive:
                raise WorldError(
                    "the daemon ended before it answered", hint="start it again, or use `reconcile --once`"
                )
            time.sleep(_GLANCE)
    finally:
        requests.take_back(token)


def show_answer(context: Context, answer: Answer) -> int:
    """Show what a pass of the daemon did; return its exit code."""
    for line in answer.lines:
        click.echo(line)
    if answer.error:
        click.echo(f"error: {answer.error}", err=True)
    if answer.hint:
        click.echo(f"  help: {answer.hint}", err=True)
    if answer.code == ExitCode.USAGE and not answer.error:
        context.say("a part of the revision is invalid: `reconcile validate` says what")
    return answer.code


def wait_until_idle(store: Store, lease: Lease, limit: float) -> bool:
    """Wait while the daemon lets jobs run; return False if that took longer than ``limit`` seconds.

    Raises
    ------
    WorldError
        The daemon has ended.
    """
    deadline = time.monotonic() + limit
    while not _is_idle(store):
        if time.monotonic() > deadline:
            return False
        if not lease.is_watched():
            raise WorldError("the daemon has ended", hint="start it again, or use `reconcile --once --wait`")
        time.sleep(0.1)
    return True


def _is_idle(store: Store) -> bool:
    with store.read() as view:
        return not view.any_in_state((*ACTIVE, JobState.READY)) and view.next_retry() is None


def standing(store: Store) -> Outcome:
    """Return how things stand, as the daemon has left them."""
    from reconciler.execution.aftermath import summarise

    with store.read() as view:
        config = view.config()
        return summarise(view, "", config.revision if config is not None else "", (), clean=False)
