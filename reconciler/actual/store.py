"""The store: typed records on the tables of the LMDB environment.

Reads take a snapshot; a write is one function run in one durable transaction (see
:meth:`Store.write`). Every write that changes a flow or a job increases the change counter, which
tells a later reconcile whether anything has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from reconciler import __version__
from reconciler.actual.db import Database, Transaction, close_database, open_database
from reconciler.actual.migrations import check_version
from reconciler.actual.state_dir import lmdb_dir, require_local
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.model.applied import Outcome
from reconciler.model.desired import Revision
from reconciler.model.lineage import lineage_for
from reconciler.model.states import BROKEN

T = TypeVar("T")


class Store:
    """An open state directory."""

    def __init__(self, state_dir: Path, *, read_only: bool = False) -> None:
        """Open the store, or create an empty one. A read-only store never waits for a writer.

        Raises
        ------
        OutdatedError
            The store must be migrated first.
        InputError
            A newer version wrote the store.
        RefusedError, WorldError
            The directory is on a network file system, or cannot be opened.
        """
        require_local(state_dir)
        self.path = state_dir
        self._database: Database = open_database(lmdb_dir(state_dir), read_only=read_only)
        try:
            check_version(self._database, state_dir)
        except BaseException:
            close_database(self._database)
            raise

    @property
    def read_only(self) -> bool:
        """Whether the store is read-only."""
        return self._database.read_only

    @staticmethod
    def exists(state_dir: Path) -> bool:
        """Return whether a state directory has a store."""
        return (lmdb_dir(state_dir) / "data.mdb").exists()

    @contextmanager
    def read(self) -> Iterator[View]:
        """Yield a consistent view of the store."""
        with self._database.read() as txn:
            yield View(txn)

    def write(self, change: Callable[[Writer], T]) -> T:
        """Run ``change`` in one durable transaction; it can be run twice, so it must have no other effect."""

        def run(txn: Transaction) -> T:
            writer = Writer(txn)
            result = change(writer)
            writer.finish()
            return result

        return self._database.write(run)

    def copy_to(self, descriptor: int) -> None:
        """Write a snapshot of the whole store to an open file; see :meth:`Database.copy_to`."""
        self._database.copy_to(descriptor)

    def close(self) -> None:
        """Release the environment."""
        close_database(self._database)

    def check_lineage(
        self, project: str, roots: Collection[str], path: str, *, adopt: bool = False, record: bool = True
    ) -> str:
        """Require that this state belongs to a project; ``roots`` are the root commits of its repository.

        A new state is bound to the project. ``path`` is the folder of the project in the repository. With
        ``adopt`` a state of another project or repository is bound to this one. Returns a note for the user
        if the project or the repository has changed, else an empty text. With ``record`` False nothing is
        written.

        Raises
        ------
        RefusedError
            The state belongs to another project; both are named.
        ForeignStateError
            The state belongs to another repository; both are named.
        """
        with self.read() as view:
            known, last = view.lineage(), view.last_revision()
        same_path = last is None or last.path == path
        lineage = lineage_for(known, project, roots, same_path=same_path, adopt=adopt)
        if record and lineage != known:
            self.write(lambda writer: writer.put_lineage(lineage))
        if known is None or (known.project == project and not known.is_foreign(roots)):
            return ""
        if known.is_foreign(roots):
            return f"the state of {known.shown()} is adopted by this repository"
        return f"project '{known.project}' is now named '{project}'; its state is kept"


def reconcile_key(revision: Revision) -> str:
    """Return a key for everything besides the store that a reconcile depends on.

    That is the version of the program, the policy, the folder and the tree.
    """
    policy = f"+{revision.policy}" if revision.policy else ""
    return f"{__version__}{policy}:{revision.path}:{revision.tree}"


def content_of(outcome: Outcome) -> tuple[str, str]:
    """Return the folder and tree id of an outcome."""
    _, _, path_and_tree = outcome.key.partition(":")
    path, _, tree = path_and_tree.rpartition(":")
    return path, tree


def unchanged_outcome(store: Store, revision: Revision, now: float) -> Outcome | None:
    """Return the last outcome if a plan would be empty: same tree, same tool, same store.

    The outcome is not idle if jobs are active, if retries or removals of run directories are due, or if jobs
    have left attempts, whose results may come late.
    """
    with store.read() as view:
        outcome = view.outcome()
        counter = view.change_counter()
        owed = any(
            job.current and (job.state not in BROKEN or job.may_deliver(now)) for job in view.left_on()
        )
    if outcome is None or not outcome.clean:
        return None
    same = (outcome.key, outcome.change_counter) == (reconcile_key(revision), counter)
    if not same:
        return None
    return not_idle_if_due(msgspec.structs.replace(outcome, idle=False) if owed else outcome, now)


def not_idle_if_due(outcome: Outcome, now: float) -> Outcome:
    """Return an outcome that is not idle if retries or removals of run directories are due by now."""
    due = any(time is not None and time <= now for time in (outcome.cleanup_at, outcome.retry_at))
    return msgspec.structs.replace(outcome, idle=False) if due else outcome


def is_settled(outcome: Outcome, *, wait: bool) -> bool:
    """Whether nothing is to be done: now, or with ``wait`` also later, for jobs that wait for a retry."""
    return outcome.idle and not (wait and outcome.retry_at is not None)
