"""Names for jobs that are born at run time."""

from __future__ import annotations

from reconciler.actual.view import View


class FreeKeys:
    """Keys that no job with a place in a flow has.

    The work does not depend on how many jobs the flow has: one look for each key, and a few more for the
    first of each name.
    """

    def __init__(self, view: View, flow: str) -> None:
        self._view = view
        self._flow = flow
        self._given: set[str] = set()
        self._last: dict[str, int] = {}

    def free(self, name: str) -> str:
        """Return a key for a name, and take it: the name itself, or with ``#2``, ``#3`` and so on."""
        number = self._last[name] + 1 if name in self._last else self._first_free(name)
        while self._is_taken(name, number):
            number += 1
        self._last[name] = number
        key = _numbered(name, number)
        self._given.add(key)
        return key

    def _first_free(self, name: str) -> int:
        """Return a number that is free and follows one that is taken: the first, unless jobs have left."""
        taken, free = 0, 1
        while self._is_taken(name, free):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if self._is_taken(name, middle) else (taken, middle)
        return free

    def _is_taken(self, name: str, number: int) -> bool:
        key = _numbered(name, number)
        return key in self._given or self._view.has_path(f"{self._flow}/{key}")


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}#{number}"
