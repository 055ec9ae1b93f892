"""Notices of the file system: a call when something in a directory changes. The only door to watchdog.

They are a convenience, never a promise: network file systems give none, and the number of watched places is
limited. So whoever asks for notices looks by itself as well, less often.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

_CHANGES = frozenset(["created", "modified", "moved", "deleted", "closed"])
"""That a file was opened or read is no change; our own looks would call us for ever."""


class Notices:
    """Watches directories of this machine. Its calls come from a thread of its own, and must be quick."""

    def __init__(self) -> None:
        self._observer: BaseObserver = Observer()
        self._watches: dict[str, tuple[int, ObservedWatch]] = {}
        self._started = False

    def watch(self, directory: Path, call: Callable[[], None], *, recursive: bool = False) -> bool:
        """Call when something in a directory changes; return whether there will be notices.

        May be repeated, to find out: a directory that was replaced meanwhile is watched anew.
        """
        key = str(directory)
        try:
            inode = directory.stat().st_ino
            if key in self._watches:
                if self._watches[key][0] == inode:
                    return True
                self._drop(key)
            if not self._started:
                self._observer.start()
                self._started = True
            watch = self._observer.schedule(_Handler(call), key, recursive=recursive)
        except (OSError, RuntimeError):  # not there, or the limit of watches is reached
            return False
        self._watches[key] = (inode, watch)
        return True

    def _drop(self, key: str) -> None:
        _, watch = self._watches.pop(key)
        with contextlib.suppress(OSError, KeyError):
            self._observer.unschedule(watch)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._started:
            self._observer.stop()
            self._observer.join(2)


class _Handler(FileSystemEventHandler):
    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _CHANGES:
            self._call()
