"""What lies on a host that many jobs share: launchers and code trees, sent there once.

Safe to use from several threads: the workers of a host may have one each.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable

from reconciler.execution.hosts.base import Host


class RemoteCache:
    """The launchers and code trees that lie on one host, by the work_dir below which they do."""

    def __init__(self) -> None:
        self._own: dict[str, set[str]] = {}
        self._found: dict[str, str] = {}
        self._lock = threading.Lock()

    def at(self, work_dir: str) -> set[str] | None:
        """Return what lies below the work_dir of a worker that was looked at; None before."""
        with self._lock:
            own = self._own.get(work_dir)
            return set(own) if own is not None else None

    def put(self, work_dir: str, names: Iterable[str]) -> None:
        """Note what a worker has, after a look or an upload."""
        with self._lock:
            self._own.setdefault(work_dir, set()).update(names)
            self._notice(work_dir, self._own[work_dir])

    def notice(self, work_dir: str, names: Iterable[str]) -> None:
        """Note what lies below another work_dir, of a worker that may not have been looked at itself."""
        with self._lock:
            self._notice(work_dir, names)

    def _notice(self, work_dir: str, names: Iterable[str]) -> None:
        for name in names:
            self._found.setdefault(name, work_dir)

    def elsewhere(self, work_dir: str, names: Iterable[str]) -> dict[str, str]:
        """Return those of the names that only other workers have, and below which work_dir."""
        with self._lock:
            own = self._own.get(work_dir, set())
            return {name: self._found[name] for name in names if name not in own and name in self._found}

    def clear(self) -> None:
        """Forget all: something was removed behind our back, so every worker is looked at again."""
        with self._lock:
            self._own.clear()
            self._found.clear()


class RemoteCaches:
    """The shelf of each host; outlives the revisions that name the workers there."""

    def __init__(self) -> None:
        self._of: dict[Host, RemoteCache] = defaultdict(RemoteCache)
        self._lock = threading.Lock()

    def of(self, host: Host) -> RemoteCache:
        """Return the shelf of a host."""
        with self._lock:
            return self._of[host]
