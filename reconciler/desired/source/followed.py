"""The branch that a state follows, and whether the source may be applied to that state.

The first revision that is applied decides which branch a state follows. From then on a change of the checkout
(``git switch``, a detached HEAD) cannot send other commits to the workers by accident: another branch is
refused until the user moves the state with ``--follow``.
"""

from __future__ import annotations

import shlex

import msgspec

from reconciler.desired.source.command import printable
from reconciler.desired.source.git import Source
from reconciler.errors import InputError, RefusedError


class Followed(msgspec.Struct, frozen=True):
    """The branch that a state follows after a revision was applied; None if it follows none.

    A state follows no branch as long as only commits and tags were applied. ``note`` tells the user that the
    branch has changed.
    """

    branch: str | None
    note: str = ""


def branch_to_follow(source: Source, followed: str | None, applied: str, *, follow: bool) -> Followed:
    """Return the branch that a state follows once the revision of ``source`` is applied.

    ``followed`` is the branch that it follows now, ``applied`` the last applied commit, if any.
    With ``follow`` the state moves to the branch of ``source``.

    Raises
    ------
    RefusedError
        The state follows another branch.
    InputError
        ``follow`` is set, but the source reads a commit or a tag.
    """
    branch = source.followable()
    if follow and branch is None:
        raise InputError(
            f"--follow requires a branch, and {_what_is_read(source)}",
            hint="create a branch there and name it: git branch NAME COMMIT, then --branch NAME --follow",
        )
    if followed is None or branch == followed:
        return Followed(branch or followed)
    if follow:
        return Followed(
            branch, f"this state now follows {printable(branch or '')}, no longer {printable(followed)}"
        )
    tip = source.tip(followed)
    if tip is None and branch is not None and applied and source.contains(branch, applied):
        return Followed(
            branch, f"{printable(followed)} was renamed: this state now follows {printable(branch)}"
        )
    if tip is not None and source.branch is not None and branch is None and source.revision().commit == tip:
        return Followed(followed)  # --branch names the commit that is the tip of the followed branch
    raise RefusedError(
        f"refused: this state follows {printable(followed)}{'' if tip else ', which no longer exists'}; "
        f"{_what_is_read(source)}",
        hint=_remedy(source, followed, branch, exists=tip is not None),
    )


def _what_is_read(source: Source) -> str:
    """Return ``HEAD is now experiment``, ``HEAD is detached at 1a2b3c4`` or ``--branch is v1.0``."""
    if source.branch is not None:
        return f"--branch is {printable(source.branch)}"
    head = source.head()
    if not head.branch:
        return f"HEAD is detached at {source.revision().commit[:7]}"
    return f"HEAD is now {printable(head.branch)}" + (
        f" ({head.operation} in progress)" if head.operation else ""
    )


def _remedy(source: Source, followed: str, branch: str | None, *, exists: bool) -> str:
    """Return how to stay on the followed branch, and how to move to another one."""
    ways = []
    followed, branch = printable(followed), printable(branch) if branch is not None else None
    if exists:
        switch = (
            f"git switch {shlex.quote(followed)}, or " if source.branch is None and source.work_tree else ""
        )
        ways.append(f"to stay on {followed}: {switch}--branch {shlex.quote(followed)}")
    if branch is not None:
        ways.append(f"to move: reconcile --once --branch {shlex.quote(branch)} --follow")
    else:
        ways.append("to move, create a branch there: git branch NAME COMMIT, then --branch NAME --follow")
    return "; ".join(ways)
