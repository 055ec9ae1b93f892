"""FileNotices of the file system: a call when something in a directory changes. The only door to watchdog.

They are a convenience, never a promise: network file systems give none, and the number of watched branch_directories is
limited. So whoever asks for notices looks by itself as well, less often.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import msgspec
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from reconciler.desired.source.git import Source

_CHANGES = frozenset(["created", "modified", "moved", "deleted", "closed"])
"""That a file was opened or read is no change; our own looks would call us for ever."""


class FileNotices:
    """Watches directories of this machine. Its calls come from a thread of its own, and must be quick.

    Directories below a watched one are not watched: watchdog 7.1 loses its only reading thread, and with it
    all notices, when one of several nested directories is renamed at the wrong moment.
    """

    def __init__(self) -> None:
        # Without a handler of their own, Python prints its complaints on stderr.
        logging.getLogger("watchdog").addHandler(logging.NullHandler())
        self._observer: BaseObserver = Observer()
        self._watches: dict[str, _Watched] = {}
        self._started = False
        self._given_up = False
        self._lock = threading.Lock()

    def watch(self, directory: Path, call: Callable[[], None]) -> bool:
        """Call when something in a directory changes; return whether there will be notices.

        May be repeated, to find out: a directory that was replaced meanwhile is watched anew. Several may
        watch one directory.
        """
        with self._lock:
            try:
                return not self._given_up and self._is_watched(directory, call)
            except (OSError, RuntimeError):  # not there, or the limit of watches is reached
                return False

    def forget(self, call: Callable[[], None]) -> None:
        """Call somebody no more."""
        with self._lock:
            for key, watched in list(self._watches.items()):
                watched.handler.calls.pop(call, None)
                if not watched.handler.calls:
                    self._drop(key)

    def give_up(self) -> None:
        """Promise nothing any more: a thread has died, perhaps the one that reads the notices."""
        self._given_up = True

    def close(self) -> None:
        """Watch nothing any more."""
        with self._lock:
            self._given_up = True
            if self._started:
                self._observer.stop()
                self._observer.join(2)

    def _is_watched(self, directory: Path, call: Callable[[], None]) -> bool:
        self._drop_those_gone()
        key, inode = str(directory), directory.stat().st_ino
        calls = {call: None}
        if key in self._watches:
            known = self._watches[key]
            known.handler.calls |= calls
            if known.inode == inode:
                return True
            calls = known.handler.calls
            self._drop(key)
        if not self._started:
            self._observer.start()
            self._started = True
        handler = _Handler(key, calls)
        watch = self._observer.schedule(handler, key)
        self._watches[key] = _Watched(inode, watch, handler)
        return True

    def _drop_those_gone(self) -> None:
        """Let go of directories that were removed: a new one may have the same name and even inode."""
        for key in [key for key, watched in self._watches.items() if watched.handler.is_gone]:
            self._drop(key)

    def _drop(self, key: str) -> None:
        with contextlib.suppress(OSError, KeyError):
            self._observer.unschedule(self._watches.pop(key).watch)


class _Handler(FileSystemEventHandler):
    """Calls at every change in a directory; ``is_gone``: it was removed itself.

    ``calls`` is a dict for its order, and since it may change while another thread makes a list of it.
    """

    def __init__(self, directory: str, calls: dict[Callable[[], None], None]) -> None:
        self._directory = directory
        self.calls = calls
        self.is_gone = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type == "deleted" and event.src_path == self._directory:
            self.is_gone = True
        if event.event_type in _CHANGES:
            for call in list(self.calls):
                call()


class _Watched(msgspec.Struct, frozen=True):
    inode: int
    watch: ObservedWatch
    handler: _Handler


# Where a commit shows in a local repository: the directories whose changes may mean a new revision.


_KINDS = ("", "refs", "refs/tags", "refs/heads", "refs/remotes")
"""Where git looks for a name, see gitrevisions(7)."""


def branch_directories(source: Source) -> Iterator[Path]:
    """Yield the directories of a repository in which its branch can change.

    A linked work tree has its own ``HEAD``, and shares branches and packed branches with the main one. The
    branch ``topic/new`` may be a file in a directory of its own, which comes and goes with it.
    """
    common = source.common_dir()
    yield common  # HEAD, packed-refs
    if source.git_dir != common:
        yield source.git_dir
    above = PurePosixPath(source.branch_name()).parents
    for place in (Path("reftable"), *(Path(kind, parent) for kind in _KINDS for parent in above)):
        if (common / place).is_dir():
            yield common / place
