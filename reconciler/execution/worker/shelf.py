"""What the workers of one host share: who has which code tree, so that each is sent to the host once."""

from __future__ import annotations

from collections.abc import Iterable


class Shelf:
    """The launchers and code trees that lie on one host, by the work_dir below which they do."""

    def __init__(self) -> None:
        self._own: dict[str, set[str]] = {}
        self._found: dict[str, str] = {}

    def at(self, work_dir: str) -> set[str] | None:
        """Return what lies below the work_dir of a worker that was looked at; None before."""
        return self._own.get(work_dir)

    def put(self, work_dir: str, names: Iterable[str]) -> None:
        """Note what a worker has, after a look or an upload."""
        self._own.setdefault(work_dir, set()).update(names)
        self.notice(work_dir, self._own[work_dir])

    def notice(self, work_dir: str, names: Iterable[str]) -> None:
        """Note what lies below another work_dir, of a worker that may not have been looked at itself."""
        for name in names:
            self._found.setdefault(name, work_dir)

    def elsewhere(self, work_dir: str, names: Iterable[str]) -> dict[str, str]:
        """Return those of the names that only other workers have, and below which work_dir."""
        own = self._own.get(work_dir, set())
        return {name: self._found[name] for name in names if name not in own and name in self._found}

    def clear(self) -> None:
        """Forget all: something was removed behind our back, so every worker is looked at again."""
        self._own.clear()
        self._found.clear()
