"""Names that users type and read: keys of jobs, and the globs that select them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def job_id(uuid: str, index: int) -> str:
    """Return the identity of one job record: ``<uuid>_<index>``."""
    return f"{uuid}_{index}"


def run_dir(work_dir: str, uuid: str, index: int, attempt: int) -> str:
    """Return the directory of an attempt: ``work_dir/aa/bb/cc/<uuid>_<index>``, later ones with ``.<n>``."""
    bare = uuid.replace("-", "")
    suffix = "" if attempt <= 1 else f".{attempt}"
    return f"{work_dir}/{bare[0:2]}/{bare[2:4]}/{bare[4:6]}/{job_id(uuid, index)}{suffix}"


def unique_keys(names: Iterable[str]) -> list[str]:
    """Return one key a name, in order: a name that repeats gets ``#2``, ``#3`` ... from its second use on."""
    keys = Keys()
    return [keys.free(name) for name in names]


class Keys:
    """The keys that are taken in one flow. Handing out a free one costs the same however many there are."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._used: Counter[str] = Counter()

    def free(self, name: str) -> str:
        """Return a key for a name that no other job of the flow has, and take it."""
        key = name
        while key in self._taken:
            self._used[name] += 1
            key = f"{name}#{self._used[name] + 1}"
        self._taken.add(key)
        return key
