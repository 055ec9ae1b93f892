"""The store: typed records on the tables of the LMDB environment.

Reads take a snapshot; a write is one function run in one durable transaction (see
:meth:`Store.write`). Every write that changes a flow or a job increases the change counter, which
tells a later reconcile whether anything has changed.
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

    def check_lineage(self, project: str, root_commit: str) -> None:
        """Refuse to use this state for another project or repository.

        Raises
        ------
        RefusedError
            The state belongs to another project.
        ForeignStateError
            The state belongs to another repository.
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
