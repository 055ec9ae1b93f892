"""Recognising a reconcile with nothing to do, at the cost of one look at the store.

Apart from the loop, so that the command line can ask before it imports what does the work.
"""

from __future__ import annotations

import msgspec

from reconciler import __version__
from reconciler.actual.store import Store
from reconciler.model.desired import Revision
from reconciler.model.records import Outcome


def reconcile_key(revision: Revision) -> str:
    """Return what the result of a reconcile depends on beside the store: the tool and the tree."""
    return f"{__version__}:{revision.path}:{revision.tree}"


def content_of(outcome: Outcome) -> tuple[str, str]:
    """Return folder and tree id of what was reconciled."""
    _, _, path_and_tree = outcome.key.partition(":")
    path, _, tree = path_and_tree.rpartition(":")
    return path, tree


def unchanged_outcome(store: Store, revision: Revision, now: float) -> Outcome | None:
    """Return the last outcome if a plan would be empty: same tree, same tool, same store.

    It is not idle if jobs have to be looked after, or if by now failed ones have to be tried again or run
    directories have to be removed.
    """
    with store.read() as view:
        outcome = view.outcome()
        counter = view.change_counter()
    if outcome is None or not outcome.clean:
        return None
    same = (outcome.key, outcome.change_counter) == (reconcile_key(revision), counter)
    if not same:
        return None
    due = any(time is not None and time <= now for time in (outcome.cleanup_at, outcome.retry_at))
    return msgspec.structs.replace(outcome, idle=False) if due else outcome


def is_settled(outcome: Outcome, *, wait: bool) -> bool:
    """Whether nothing is to be done: now, or with ``wait`` also later, for jobs that wait for a retry."""
    return outcome.idle and not (wait and outcome.retry_at is not None)
