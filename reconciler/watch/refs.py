"""Where a commit shows in a local repository: the directories whose changes may mean a new revision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reconciler.desired.git import Source


def places(source: Source) -> Iterator[tuple[Path, bool]]:
    """Yield (directory, whether all below it counts) of a repository.

    A linked work tree has its own ``HEAD``, and shares branches and packed branches with the main one.
    """
    common = source.common_dir()
    yield common, False  # HEAD, packed-refs
    if source.git_dir != common:
        yield source.git_dir, False
    for name in ("refs", "reftable"):
        if (common / name).is_dir():
            yield common / name, True
