"""The launchers, code trees and documents on a host: many jobs share them, so they are sent there once.

Safe to use from several threads, since each worker of a host can have a thread.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable

from reconciler.execution.hosts.base import Host


class RemoteCache:
    """The launchers, code trees and documents on one host, by the work_dir that has them."""

    def __init__(self) -> None:
        self._own: dict[str, set[str]] = {}
        self._found: dict[str, str] = {}
        self._lock = threading.Lock()

    def at(self, work_dir: str) -> set[str] | None:
        """Return the names below the work_dir of a worker, or None before its first inventory."""
        with self._lock:
            own = self._own.get(work_dir)
            return set(own) if own is not None else None

    def put(self, work_dir: str, names: Iterable[str]) -> None:
        """Add the names that an inventory or an upload has shown below the work_dir of a worker."""
        with self._lock:
            own = self._own.setdefault(work_dir, set())
            own.update(names)
            self._add(work_dir, own)

    def put_neighbour(self, work_dir: str, names: Iterable[str]) -> None:
        """Add names below a work_dir of which no complete inventory is known."""
        with self._lock:
            self._add(work_dir, names)

    def _add(self, work_dir: str, names: Iterable[str]) -> None:
        for name in names:
            self._found.setdefault(name, work_dir)

    def drop(self, work_dir: str, names: Iterable[str]) -> None:
        """Forget names that are no longer below the work_dir of a worker."""
        with self._lock:
            self._own.get(work_dir, set()).difference_update(names)

    def elsewhere(self, work_dir: str, names: Iterable[str]) -> dict[str, str]:
        """Return the names that only other workers have, each with a work_dir that has it."""
        with self._lock:
            own = self._own.get(work_dir, set())
            return {name: self._found[name] for name in names if name not in own and name in self._found}

    def clear(self) -> None:
        """Forget everything, so that all workers are inventoried again: something was removed there."""
        with self._lock:
            self._own.clear()
            self._found.clear()


class RemoteCaches:
    """The cache of each host; it outlives the revisions that name the workers on the host."""

    def __init__(self) -> None:
        self._of: dict[Host, RemoteCache] = defaultdict(RemoteCache)
        self._lock = threading.Lock()

    def of(self, host: Host) -> RemoteCache:
        """Return the cache of a host."""
        with self._lock:
            return self._of[host]
