"""Notices of file changes: a call when something in a directory changes. The only module that uses watchdog.

Notices are a convenience without guarantee: network file systems give none, and the number of watched
directories is limited. So their users also check on their own, less often.
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
"""Opening and reading a file does not count: our own checks would wake us endlessly."""


class FileNotices:
    """Watches local directories. Its calls come from a thread of its own and must be quick.

    Subdirectories are not watched: watchdog 7.1 loses its only reading thread, and with it all notices, when
    one of several nested directories is renamed at the wrong moment.
    """

    def __init__(self) -> None:
        # Without a handler, Python prints the warnings of watchdog on stderr.
        logging.getLogger("watchdog").addHandler(logging.NullHandler())
        self._observer: BaseObserver = Observer()
        self._watches: dict[str, _Watched] = {}
        self._started = False
        self._given_up = False
        self._lock = threading.Lock()

    def watch(self, directory: Path, call: Callable[[], None]) -> bool:
        """Call when something in a directory changes; return whether there will be notices.

        You can repeat the call to find out whether notices still come; a replaced directory is watched anew.
        Several calls can watch one directory.
        """
        with self._lock:
            try:
                return not self._given_up and self._is_watched(directory, call)
            except (OSError, RuntimeError):  # not there, or the limit of watches is reached
                return False

    def forget(self, call: Callable[[], None]) -> None:
        """Stop calling ``call``."""
        with self._lock:
            for key, watched in list(self._watches.items()):
                watched.handler.calls.pop(call, None)
                if not watched.handler.calls:
                    self._drop(key)

    def give_up(self) -> None:
        """Report from now on that there are no notices: the thread that reads them may have died."""
        self._given_up = True

    def close(self) -> None:
        """Stop watching."""
        with self._lock:
            self._given_up = True
            if self._started:
                self._observer.stop()
                self._observer.join(2)

    def _is_watched(self, directory: Path, call: Callable[[], None]) -> bool:
        # Stop watching removed directories: a new one may have the same name and even the same inode.
        for gone in [key for key, watched in self._watches.items() if watched.handler.is_gone]:
            self._drop(gone)
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

    def _drop(self, key: str) -> None:
        with contextlib.suppress(OSError, KeyError):
            self._observer.unschedule(self._watches.pop(key).watch)


class _Handler(FileSystemEventHandler):
    """Calls at every change in a directory; ``is_gone`` when the directory itself was removed.

    ``calls`` is a dict because it keeps the order and may change while another thread lists it.
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


_KINDS = ("", "refs", "refs/tags", "refs/heads", "refs/remotes")
"""Where git looks up a name, see gitrevisions(7)."""


def branch_directories(source: Source) -> Iterator[Path]:
    """Yield the directories of a local repository whose changes can mean a new revision of its branch.

    A linked work tree has a ``HEAD`` of its own and shares branches and packed branches with the main one.
    The branch ``topic/new`` can be a file in a directory that exists only as long as the branch.
    """
    common = source.common_dir()
    yield common  # HEAD, packed-refs
    if source.git_dir != common:
        yield source.git_dir
    above = PurePosixPath(source.branch_name()).parents
    for place in (Path("reftable"), *(Path(kind, parent) for kind in _KINDS for parent in above)):
        if (common / place).is_dir():
            yield common / place
