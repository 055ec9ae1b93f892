"""The LMDB environment of a state directory. The only module that imports ``lmdb``.

LMDB allows one environment per process and path, so it is shared and counted. A read-only environment never
takes the lock of the writer; others take it for a moment when they are opened, because py-lmdb needs it to
find the named tables.

The memory map grows automatically, usually before a write begins and little of the map is free. A write that
fills the map is aborted, the map is doubled, and the write is run again. A write is therefore a function of
its transaction and must have no other effect.

A resize moves the memory that open transactions of this process use. It waits until none is open, and keeps
new ones from starting until it is done.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from reconciler.actual.state_dir import sync_directory
from reconciler.actual.transaction import Gate, Transaction
from reconciler.errors import TransientError, WorldError

__all__ = ["TABLES", "Database", "Transaction", "close_database", "open_database"]

T = TypeVar("T")

TABLES = (
    "meta",  # schema version, lineage, counters, last outcome
    "parsed",  # blob id -> ParsedFile
    "good",  # kind/name -> last good manifest
    "flows",  # flow name -> FlowRecord
    "summaries",  # flow name -> FlowSummary
    "jobs",  # job id -> JobRecord (small, hot)
    "payloads",  # job id -> the jobflow Job as JSON (big, cold)
    "by_flow",  # flow name, job id -> nothing
    "by_state",  # state, worker, priority, age, job id -> nothing
    "by_path",  # flow/job of a current job, job id -> nothing
    "children",  # parent uuid, job id -> nothing
    "builds",  # build key -> BuiltFlow
    "cleanups",  # worker, when due, job id and attempt -> run directory to remove
    "retries",  # when due, job id -> nothing
    "left",  # worker, id of a job that has left an attempt there -> nothing
    "outputs",  # collection, document key -> document
    "events",  # sequence number -> Event
    "events_about",  # what it is about, sequence number -> nothing
    "revisions",  # sequence number -> AppliedRevision
    "desired",  # flow name -> FlowEntry, of the flows that the last applied revision wants
    "named_files",  # file that a flow names, flow name -> nothing
    "referrers",  # flow name, name of a flow that refers to it -> nothing
    "unsettled",  # flow name -> change that made another plan for it necessary
    "unused",  # table, key of something that can be recreated -> since when nothing refers to it
)
"""Every table of the environment. A table whose key ends in "-> nothing" is an index."""

_FIRST_MAP_SIZE = 256 * 2**20  # address space, not disk space: the file is only as large as its content
_MAX_READERS = 512  # open reads, of all processes together
_SMALLEST_FILE = 2 * 4096  # bytes: the two pages that every environment begins with
_FULL_DISK = 2**20  # bytes
_LOCK_FILE = 2**17  # bytes; ample
_PATIENCE = 60.0  # seconds that a write waits for open transactions if it cannot continue without more room
_COURTESY = 0.5  # seconds that a write waits for them if the room may suffice


class _IncompleteError(Exception):
    """The environment is not readable: it does not exist yet, lacks a table, or was cut off."""


class Database:
    """An open environment. Readers never block the writer; there is one writer at a time, in any process."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._process = os.getpid()
        self._writer = threading.Lock()  # a writer that waits inside LMDB could keep an abort from ending
        self._writing: int | None = None  # the thread that holds the write lock
        self._gate = Gate()
        try:
            self._env = _open_to_read(path) if read_only else _open_environment(path)
        except (lmdb.Error, OSError) as error:
            raise _failure("open", path, error) from error
        try:
            self._env.reader_check()
            self._tables = self._known_tables() if read_only else self._open_tables()
        except (lmdb.Error, OSError) as error:
            self._env.close()
            raise _failure("open", path, error) from error
        except _IncompleteError:
            self._env.close()
            raise

    def _known_tables(self) -> dict[str, Any]:
        if _length(self._env) > (self.path / "data.mdb").stat().st_size:
            raise _IncompleteError
        try:
            return {name: self._env.open_db(name.encode(), create=False) for name in TABLES}
        except lmdb.NotFoundError as error:
            raise _IncompleteError from error

    def _open_tables(self) -> dict[str, Any]:
        with self._env.begin(write=True) as raw:
            _lengthen(self.path / "data.mdb", self._env)
            return {name: self._env.open_db(name.encode(), txn=raw) for name in TABLES}

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Yield a snapshot of the whole store. Reads can be nested, and can contain a write.

        Raises
        ------
        WorldError
            The store cannot be read: it is damaged, too many reads are open, or it was opened before a fork.
        """
        try:
            token, raw = self._begin(write=False)
            try:
                with raw:
                    yield Transaction(raw, self._tables)
            finally:
                self._gate.leave(token)
        except lmdb.Error as error:
            raise _failure("read", self.path, error) from error

    def write(self, change: Callable[[Transaction], T]) -> T:
        """Run ``change`` in one durable transaction and return what it returns.

        ``change`` may be run twice, so it must have no other effect. It can read in a second transaction, but
        not write. The store must not be read-only.

        Raises
        ------
        WorldError
            The disk is full or not writable, or the store is damaged. Nothing of ``change`` is kept.
        TransientError
            The store must grow, but a read of this thread, or a long one of another thread, prevents it.
        """
        if self.read_only:
            raise RuntimeError("this store was opened only to read")
        if self._writing == threading.get_ident():
            raise RuntimeError("a write inside a write would wait for itself")
        while True:
            try:
                size = self._make_room()
                return self._write_once(change)
            except lmdb.MapFullError:
                self._resize(size, _PATIENCE, needed=True)
            except lmdb.BadValsizeError as error:  # the value is at fault, not the store
                raise ValueError("a name is too long for the store") from error
            except lmdb.Error as error:
                raise _failure("write to", self.path, error) from error

    def _write_once(self, change: Callable[[Transaction], T]) -> T:
        token, raw = self._begin(write=True)
        self._writing = threading.get_ident()
        try:
            try:
                result = change(Transaction(raw, self._tables))
            except BaseException:
                with self._gate.held_off():  # an abort waits until no other thread reads
                    raw.abort()
                raise
            raw.commit()
            return result
        finally:
            self._writing = None
            self._writer.release()
            self._gate.leave(token)

    def _begin(self, *, write: bool) -> tuple[object, Any]:
        """Enter the gate and begin a transaction, with the map size that other processes have set."""
        self._require_own()
        while True:
            token = self._gate.enter()
            try:
                return token, self._begin_raw(write)
            except lmdb.MapResizedError:
                self._gate.leave(token)
                self._resize(None, _PATIENCE, needed=True)
            except BaseException:
                self._gate.leave(token)
                raise

    def _begin_raw(self, write: bool) -> Any:
        """Begin a transaction; a write takes the lock of the writer after it has entered the gate."""
        if not write:
            return self._begin_read()
        self._writer.acquire()
        try:
            return self._env.begin(write=True)
        except BaseException:
            self._writer.release()
            raise

    def _begin_read(self) -> Any:
        try:
            return self._env.begin()
        except lmdb.ReadersFullError:
            self._env.reader_check()  # killed processes do not release their slots
            return self._env.begin()

    def copy_to(self, descriptor: int) -> None:
        """Write a snapshot of the whole store, without its free pages, to an open file.

        Other transactions can read and write meanwhile. The caller syncs the file to disk.

        Raises
        ------
        WorldError
            The file cannot be written, or the store cannot be read.
        """
        try:
            while not self._copied(descriptor):
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
        except (lmdb.Error, OSError) as error:
            raise _failure("copy", self.path, error) from error

    def _copied(self, descriptor: int) -> bool:
        """Copy once; return False if another process resized the map at that moment."""
        token, raw = self._begin(write=False)  # prevents resizes, and adopts those of other processes
        try:
            with raw:
                self._env.copyfd(descriptor, compact=True)
        except lmdb.MapResizedError:
            return False
        finally:
            self._gate.leave(token)
        return True

    def _make_room(self) -> int:
        """Double the map if less than a quarter is free and no transaction is open; return the old size."""
        self._require_own()
        token = self._gate.enter()
        try:
            info = self._env.info()
            used = info["last_pgno"] * self._env.stat()["psize"]
        finally:
            self._gate.leave(token)
        size = int(info["map_size"])
        free = size - used
        if free < size // 4:
            self._resize(size, _COURTESY if free < size // 16 else 0.0, needed=False)
        return size

    def _resize(self, seen: int | None, patience: float, *, needed: bool) -> None:
        """Double the map unless its size is no longer ``seen``; None: adopt the size that others have set."""
        with self._gate.alone(patience) as alone:
            if alone and (seen is None or self._env.info()["map_size"] == seen):
                self._env.set_mapsize(0 if seen is None else 2 * seen)
        if needed and not alone:
            whose = "this thread" if self._gate.held_here() else "another thread"
            raise TransientError(
                f"the store in {self.path} must grow, but {whose} still reads from it",
                hint="end the read, or consume it, before you write; then try again",
            )

    def _require_own(self) -> None:
        if self._process != os.getpid():
            raise _forked(self.path)

    def close(self) -> None:
        """Close the environment; use :func:`close_database` to release a shared one."""
        if self._process == os.getpid():  # in a forked child this would take locks from the parent
            self._env.close()


def _open_environment(path: Path) -> Any:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    is_new = not (path / "data.mdb").exists()
    env = _environment(path, readonly=False)
    if is_new:  # LMDB syncs the content of the file, but not its directory entry
        sync_directory(path)
        sync_directory(path.parent)
    return env


def _open_to_read(path: Path) -> Any:
    if not (path / "data.mdb").exists():
        raise _IncompleteError
    return _environment(path, readonly=True)


def _environment(path: Path, *, readonly: bool) -> Any:
    file = path / "data.mdb"
    if file.exists() and 0 < file.stat().st_size < _SMALLEST_FILE:
        raise lmdb.CorruptedError("data.mdb is cut off")
    _require_room_for_lock(path)
    tables, size = len(TABLES) + 8, _FIRST_MAP_SIZE
    return lmdb.open(
        str(path), max_dbs=tables, map_size=size, mode=0o600, max_readers=_MAX_READERS, readonly=readonly
    )


def _require_room_for_lock(path: Path) -> None:
    """Refuse a full disk: the process is killed if the mapped pages of the lock file have no room."""
    lock = path / "lock.mdb"
    begun = lock.exists() and lock.stat().st_blocks > 0  # the rest is only for the 60th reader and later ones
    if not begun and shutil.disk_usage(path).free < _LOCK_FILE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lengthen(file: Path, env: Any) -> None:
    """Restore the length of a file that was cut off, within a write; reading past its end kills a process.

    The added pages are empty, so LMDB detects the damage. An intact file can be shorter than its pages too,
    because free pages at the end were never written; for such a file this changes nothing.
    """
    if file.stat().st_size < _length(env):
        os.truncate(file, _length(env))


def _length(env: Any) -> int:
    """Return the bytes up to the end of the last page."""
    return int((env.info()["last_pgno"] + 1) * env.stat()["psize"])


_NO_RIGHT = ("permission denied", "check who owns the directory and its files, and their permissions")
_A_FILE = ("a file is where a directory should be", "choose another --state-dir")
_DAMAGED = (
    "its file data.mdb is damaged, or is not a store",
    "restore a backup, or move the file away and start again",
)
_CAUSES: dict[type[Exception], tuple[str, str]] = {
    PermissionError: _NO_RIGHT,
    lmdb.ReadonlyError: _NO_RIGHT,
    FileExistsError: _A_FILE,
    NotADirectoryError: _A_FILE,
    lmdb.CorruptedError: _DAMAGED,
    lmdb.PageNotFoundError: _DAMAGED,
    lmdb.InvalidError: _DAMAGED,
    lmdb.VersionMismatchError: _DAMAGED,
    lmdb.DiskError: ("no space is left on the disk", "free some space there, then try again"),
    lmdb.ReadersFullError: ("too many reads are open", "close notebooks and other programs that use it"),
    lmdb.PanicError: ("an earlier write failed midway", "end all programs that use it, then try again"),
    lmdb.MemoryError: ("there is not enough address space", "raise the limit `ulimit -v`"),
}


_LIMITED = "its file may not grow any more", "raise the limit: `ulimit -f`"
_QUOTA = "your disk quota is used up", "free some space there, or choose another --state-dir"
_CUT_SHORT = (
    "the disk did not take all that was written: it is full, a quota or limit is reached, or it is broken",
    "see `df`, `quota` and `ulimit -f`; free some space there, then try again",
)
_BY_NUMBER = {errno.EFBIG: _LIMITED, errno.EDQUOT: _QUOTA, errno.EIO: _CUT_SHORT}
"""Errors without an exception of their own in LMDB, recognized by the message of the operating system."""


def _failure(doing: str, path: Path, error: Exception) -> WorldError:
    """Return an error that explains the problem to the user."""
    plain = (isinstance(error, OSError) and error.strerror) or str(error)
    cut_short = type(error) is lmdb.Error and _is_full(path)
    full = cut_short or (isinstance(error, OSError) and error.errno == errno.ENOSPC)
    kind = lmdb.DiskError if full else type(error)
    by_number = (cause for number, cause in _BY_NUMBER.items() if os.strerror(number) in plain)
    cause, hint = _CAUSES.get(kind) or next(by_number, (plain, None))
    return WorldError(f"cannot {doing} the store in {path}: {cause}", hint=hint)


def _is_full(path: Path) -> bool:
    """Return whether the disk is almost full: LMDB reports a page that was cut short as an I/O error."""
    try:
        return shutil.disk_usage(path).free < _FULL_DISK
    except OSError:
        return False


def _forked(path: Path) -> WorldError:
    return WorldError(
        f"the store in {path} was open when this process was forked; it cannot be used here",
        hint="close the store before the fork, or start the process with the method 'spawn'",
    )


_open: dict[Path, tuple[Database, int]] = {}
_open_lock = threading.Lock()
_inherited: dict[
    Path, Database
] = {}  # those of the parent: closing or collecting one here could harm the parent


def open_database(path: Path, *, read_only: bool = False) -> Database:
    """Return the environment at ``path``, opened once per process. Release it with :func:`close_database`.

    ``read_only`` is for a process that does not write: it gets an environment that is already open, or one
    that is readable. If the process opens the path again later, it still cannot write.

    Raises
    ------
    WorldError
        It cannot be opened, or the parent of this process had it open when it forked.
    """
    path = path.expanduser().resolve()
    with _open_lock:
        if path in _inherited:
            raise _forked(path)
        database, users = _open.get(path) or (_opened(path, read_only), 0)
        _open[path] = (database, users + 1)
        return database


def _opened(path: Path, read_only: bool) -> Database:
    if read_only:
        with contextlib.suppress(_IncompleteError):
            return Database(path, read_only=True)
    return Database(path)


def close_database(database: Database) -> None:
    """Release what :func:`open_database` returned; the last release closes the environment."""
    with _open_lock:
        known, users = _open.get(database.path, (database, 0))
        if known is database and users > 1:
            _open[database.path] = (database, users - 1)
            return
        if known is database:
            _open.pop(database.path, None)
        database.close()


def _forget_parent() -> None:
    """Forget the environments of the parent in a forked child, which must neither use nor close them."""
    global _open_lock
    _open_lock = threading.Lock()  # another thread of the parent may have held it
    _inherited.update((path, database) for path, (database, _) in _open.items())
    _open.clear()


os.register_at_fork(after_in_child=_forget_parent)
