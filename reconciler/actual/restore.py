"""Replacing the present state with a backup.

The backup is copied next to the state, migrated to the schema of this program and checked. Only then it
replaces the state, with two renames. If the process dies between them, the next one that opens the state
completes the restore.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from reconciler.actual.backup import Contents, contents_of
from reconciler.actual.db import Transaction, close_database, open_database
from reconciler.actual.fsck.examine import examine
from reconciler.actual.fsck.snapshot import Report
from reconciler.actual.migrations import upgrade
from reconciler.actual.state_dir import lmdb_dir, require_local, restored_dir, sync_directory, time_stamp
from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.errors import InputError, WorldError
from reconciler.model.applied import AppliedConfig


class Staged(msgspec.Struct, frozen=True):
    """A copy of a backup that is ready to replace the state, with its content and its problems."""

    place: Path
    contents: Contents
    report: Report


def present_contents(state_dir: Path) -> Contents | None:
    """Return the content of the present state; None if it does not exist or is damaged.

    Raises
    ------
    InputError
        It has another schema.
    """
    if not Store.exists(state_dir):
        return None
    try:
        store = Store(state_dir)
    except WorldError:
        return None
    try:
        with store.read() as view:
            return contents_of(view)
    except WorldError:
        return None
    finally:
        store.close()


def stage(file: Path, state_dir: Path, now: float) -> Staged:
    """Copy a backup next to the present state, and check it. The caller holds the lease.

    Raises
    ------
    InputError
        The file is not a backup, or its version cannot be read.
    WorldError
        It cannot be read or copied.
    """
    require_local(state_dir)
    place = state_dir / "lmdb.restoring"
    target = place / "data.mdb"

    def prepared() -> Staged:
        drop(place)
        place.mkdir(mode=0o700)
        with file.open("rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        target.chmod(0o600)
        return _prepared(file, place, now)

    try:
        if not _survives(prepared):
            raise InputError(f"{file} is not a backup, or it is damaged", hint="use another backup")
        return prepared()
    except OSError as error:
        drop(place)
        raise WorldError(f"cannot copy {file} to {place}: {error.strerror}") from error
    except BaseException:
        drop(place)
        raise


def _survives(check: Callable[[], object]) -> bool:
    """Return whether a check ends without a signal, tried in a child process.

    LMDB maps its file into memory: a damaged one can lead outside of it, which ends the process. What the
    check raises does not count here; it is raised again when the check is made.
    """
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            check()
        os._exit(0)
    return not os.WIFSIGNALED(os.waitpid(child, 0)[1])


def drop(place: Path) -> None:
    """Remove a staged copy."""
    shutil.rmtree(place, ignore_errors=True)


def _prepared(file: Path, place: Path, now: float) -> Staged:
    """Migrate a copied backup, check it, and mark it as restored.

    Its configuration is left out: workers, commands and job store come from git again.
    """

    def adapt(txn: Transaction) -> None:
        writer = Writer(txn)
        writer.put_restored(now)
        config = writer.config()
        if config is not None:  # whoever made the file must not choose commands, hosts and places
            kept = {name: getattr(config, name) for name in ("revision", "commit", "project_name")}
            writer.put_config(AppliedConfig(**kept, unconfirmed=True))
        for table in ("parsed", "good"):
            for key in list(txn.keys(table)):
                txn.delete(table, key)
        txn.delete("meta", b"outcome")
        writer.forget_baseline()
        writer.finish()

    try:
        database = open_database(place)
    except WorldError as error:
        raise InputError(f"{file} is not a backup, or it is damaged", hint="use another backup") from error
    try:
        with database.read() as txn:
            if not txn.count("meta"):
                raise InputError(
                    f"{file} does not contain a state", hint="use a file that `reconcile backup` wrote"
                )
        database.write(lambda txn: upgrade(txn, file))
        with database.read() as txn:
            contents, report = contents_of(View(txn)), examine(View(txn))
        database.write(adapt)
    finally:
        close_database(database)
    (place / "lock.mdb").unlink(missing_ok=True)
    return Staged(place, contents, report)


def swap(staged: Staged, state_dir: Path, now: float) -> Path | None:
    """Replace the present state with a staged backup; return where the old state is kept, if any.

    Raises
    ------
    WorldError
        A rename fails; the state is as it was.
    """
    current, waiting = lmdb_dir(state_dir), restored_dir(state_dir)
    kept = None
    if current.exists():
        name = f"lmdb.before-restore-{time_stamp(now)}"
        names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
        kept = next(state_dir / one for one in names if not (state_dir / one).exists())
    try:
        with (staged.place / "data.mdb").open("rb") as file:
            os.fsync(file.fileno())
        sync_directory(staged.place)
        drop(waiting)
        staged.place.rename(waiting)  # from here on the restore is completed even after a crash
        if kept is not None:
            current.rename(kept)
        waiting.rename(current)
        sync_directory(state_dir)
    except OSError as error:
        raise WorldError(f"cannot restore to {current}: {error.strerror}") from error
    return kept
