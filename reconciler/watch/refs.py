"""Where a commit shows in a local repository: the directories whose changes may mean a new revision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from reconciler.desired.git import Source

_KINDS = ("", "refs", "refs/tags", "refs/heads", "refs/remotes")
"""Where git looks for a name, see gitrevisions(7)."""


def places(source: Source) -> Iterator[Path]:
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
