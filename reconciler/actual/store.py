"""The store: typed records on the tables of the LMDB environment.

Reads take a snapshot; a write is one function run in one durable transaction (see
:meth:`Store.write`). Every write that touches a flow or a job raises the change counter, by which a
reconcile with nothing to do is recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from reconciler.actual.db import Database, Transaction, close_database, open_database
from reconciler.actual.migrations import check_version
from reconciler.actual.state_dir import lmdb_dir, require_local
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.errors import ForeignStateError, RefusedError

T = TypeVar("T")


class Store:
    """An open state directory."""

    def __init__(self, state_dir: Path, *, read_only: bool = False) -> None:
        """Open it, or make an empty one. With ``read_only`` it never waits for a writer, and cannot write.

        Raises
        ------
        OutdatedError
            It must be migrated first.
        InputError
            It was written by a newer version.
        RefusedError, WorldError
            It lies on a network file system, or cannot be opened.
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
        """Whether it was opened only to read."""
        return self._database.read_only

    @staticmethod
    def exists(state_dir: Path) -> bool:
        """Whether something was ever stored there."""
        return (lmdb_dir(state_dir) / "data.mdb").exists()

    @contextmanager
    def read(self) -> Iterator[View]:
        """Give a consistent look at the store."""
        with self._database.read() as txn:
            yield View(txn)

    def write(self, change: Callable[[Writer], T]) -> T:
        """Run ``change`` in one durable transaction; it may be run again, so it must have no other effect."""

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
        """Give the environment back."""
        close_database(self._database)

    def check_lineage(self, project: str, root_commit: str) -> None:
        """Refuse to use this state for another project or repository.

        Raises
        ------
        RefusedError
            The state belongs to another project; both are named.
        ForeignStateError
            The same, of another repository.
        """
        with self.read() as view:
            known = view.lineage()
        if known is None:
            self.write(lambda writer: writer.put_lineage({"project": project, "root": root_commit}))
        elif (known["project"], known["root"]) != (project, root_commit):
            kind = RefusedError if known["root"] == root_commit else ForeignStateError
            raise kind(
                f"the state in {self.path} belongs to project '{known['project']}' (repository with root "
                f"{known['root'][:7]}), not to '{project}' (root {root_commit[:7]})",
                hint="choose another --state-dir for this repository",
            )
