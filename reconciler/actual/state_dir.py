"""The state directory: its place, the check that its disk is local, and the lease to write to it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from reconciler.errors import RefusedError, WorldError

_NETWORK_FILE_SYSTEMS = frozenset(
    ["nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "fuse.sshfs", "panfs"]
)


def default_state_dir(project: str) -> Path:
    """Return ``$RECONCILER_STATE_DIR``, otherwise ``$XDG_STATE_HOME/reconciler/<project>``."""
    override = os.environ.get("RECONCILER_STATE_DIR")
    if override:
        return Path(override).expanduser()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "reconciler" / project


def lmdb_dir(state_dir: Path) -> Path:
    """Return the directory of the LMDB environment; first completes a restore that was interrupted."""
    current, restored = state_dir / "lmdb", restored_dir(state_dir)
    if not current.exists():
        with suppress(OSError):  # nothing was restored, or another process was faster
            restored.rename(current)
    return current


def restored_dir(state_dir: Path) -> Path:
    """Return the directory of a restored environment that is complete and replaces the present one."""
    return state_dir / "lmdb.restored"


def time_stamp(now: float) -> str:
    """Return a time as part of a file name: ``20260131-174501``."""
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(now))


def sync_directory(path: Path) -> None:
    """Sync the entries of a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_local(path: Path) -> None:
    """Refuse a network file system: LMDB's locks and memory map do not work there.

    Raises
    ------
    RefusedError
        ``path`` is on NFS, Lustre or another network file system.
    """
    found = _file_system(path)
    if found in _NETWORK_FILE_SYSTEMS:
        raise RefusedError(
            f"the state directory {path} is on a network file system ({found}), where LMDB loses data",
            hint="choose a local disk with --state-dir or RECONCILER_STATE_DIR",
        )


def require_private(path: Path) -> None:
    """Refuse a state directory in which others could put or replace files.

    Raises
    ------
    RefusedError
        It belongs to another user, is behind a link of another user, or others may write to it.
    """
    for facts in (_facts(path, follow=False), _facts(path, follow=True)):
        if facts is not None and facts.st_uid != os.geteuid():
            raise RefusedError(
                f"the state directory {path} belongs to another user (uid {facts.st_uid})",
                hint="choose a directory of your own with --state-dir or RECONCILER_STATE_DIR",
            )
    if facts is not None and facts.st_mode & 0o022:
        raise RefusedError(
            f"others can write to the state directory {path} (mode {facts.st_mode & 0o777:o})",
            hint=f"check its files, then run `chmod 700 {shlex.quote(str(path))}`",
        )
    for file in (path / "lmdb" / "data.mdb", path / "lmdb" / "lock.mdb", path / "lease"):
        if file.is_symlink():
            raise RefusedError(
                f"{file} is a symbolic link", hint="replace it by the file, or restore a backup"
            )


def _facts(path: Path, *, follow: bool) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=follow)
    except (OSError, ValueError):  # it does not exist, or cannot be used: others report that
        return None


def is_on_network(path: Path) -> bool:
    """Return whether a path is on a network file system."""
    return _file_system(path) in _NETWORK_FILE_SYSTEMS


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds ``path``, by the longest mount point; '' if unknown."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    target = str(path.expanduser().absolute())
    best, kind = "", ""
    for line in mounts.read_text(errors="replace").splitlines():
        _, mount_point, file_system = line.split(" ")[:3]
        inside = target == mount_point or target.startswith(mount_point.rstrip("/") + "/")
        if inside and len(mount_point) >= len(best):
            best, kind = mount_point, file_system
    return kind


_AT_WORK = "wait until it has ended; readers like `reconcile get jobs` work meanwhile"
_WATCHED = "it is a daemon, and applies commits by itself: `reconcile now --wait`; or end it first"


class Lease:
    """The right to write: an flock on a file in the state directory. A dead holder loses it automatically."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "lease"
        self._descriptor: int | None = None

    def acquire(self, started: float, role: str = "") -> None:
        """Take the lease and record its holder; ``role`` is ``watch`` for a daemon.

        Raises
        ------
        RefusedError
            Another process holds it; the message names host, pid and since when.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_private(self._path.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise WorldError(f"cannot open {self._path}: {error.strerror}") from error
        if not _locked(descriptor):
            left = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise RefusedError(
                f"another reconcile is at work on this state: {_said(left)}",
                hint=_WATCHED if _note_of(left).get("role") == "watch" else _AT_WORK,
            )
        note = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": started,
            "command": sys.argv[:1],
            "role": role,
        }
        self._descriptor = descriptor
        with suppress(OSError):  # only the lock matters; on a full disk there is no record
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(note).encode(), 0)

    def release(self) -> None:
        """Release the lease."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> str | None:
        """Return the holder of the lease, without touching the lock; None if it is free or unknown."""
        locks = Path("/proc/locks")
        try:
            facts = self._path.stat()
            lines = [line.split() for line in locks.read_text().splitlines()]
            note = self._path.read_bytes()
        except OSError:
            return None
        device = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
        # Layered file systems show other device numbers there; then the recorded pid has to suffice.
        return next((_said(note) for line in lines if _is_lock(line, device, note)), None)

    def is_watched(self) -> bool:
        """Return whether a daemon holds the lease, by trying to share the lock for a moment."""
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _note_of(os.pread(descriptor, 4096, 0)).get("role") == "watch"
        finally:
            os.close(descriptor)
        return False

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _locked(descriptor: int) -> bool:
    """Take the lock, in a few tries: a process that checks for a daemon holds it for a moment."""
    for pause in (0.01, 0.02, 0.04, None):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if pause is None:
                break
            time.sleep(pause)
        else:
            return True
    return False


def _is_lock(line: Sequence[str], device: str, note: bytes) -> bool:
    """Return whether a line of /proc/locks is an flock on the file ``device`` (major:minor:inode)."""
    if len(line) < 6 or line[1] != "FLOCK":
        return False
    same_inode = line[5].rpartition(":")[2] == device.rpartition(":")[2]
    return line[5] == device or (same_inode and f'"pid": {line[4]},'.encode() in note)


def _note_of(raw: bytes) -> dict[str, Any]:
    try:
        note = json.loads(raw)
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _said(raw: bytes) -> str:
    note = _note_of(raw)
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(note["started"]))
        return f"pid {note['pid']} on {note['host']}, since {since}"
    except (KeyError, TypeError):
        return "its holder has left no note"
