"""Recognizes a reconcile with nothing to do, with a single read of the store.

Separate from the loop, so that the command line can check before it imports the rest of the program.
"""

from __future__ import annotations

import msgspec

from reconciler import __version__
from reconciler.actual.store import Store
from reconciler.model.desired import Revision
from reconciler.model.records import Outcome


def reconcile_key(revision: Revision) -> str:
    """Return a key for everything besides the store that a reconcile depends on: version, folder, tree."""
    return f"{__version__}:{revision.path}:{revision.tree}"


def content_of(outcome: Outcome) -> tuple[str, str]:
    """Return the folder and tree id of an outcome."""
    _, _, path_and_tree = outcome.key.partition(":")
    path, _, tree = path_and_tree.rpartition(":")
    return path, tree


def unchanged_outcome(store: Store, revision: Revision, now: float) -> Outcome | None:
    """Return the last outcome if a plan would be empty: same tree, same tool, same store.

    The outcome is not idle if jobs are active, or if retries or removals of run directories are due.
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
