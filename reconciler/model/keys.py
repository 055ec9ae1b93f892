"""Names that users type and read: keys of jobs, and the globs that select them."""

from __future__ import annotations

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
    taken: set[str] = set()
    keys = []
    for name in names:
        key, count = name, 1
        while key in taken:
            count += 1
            key = f"{name}#{count}"
        taken.add(key)
        keys.append(key)
    return keys
