"""The first command on a worker: its directory is there, and what of ours lies in it already."""

from __future__ import annotations

from reconciler.errors import TransientError
from reconciler.execution.hosts.command import CommandResult
from reconciler.execution.launch import CODE, LAUNCHERS, OUTBOX, Place, shell_path

STAGING = ".staging"
_GONE = 9


def script(place: Place, *, may_create: bool) -> str:
    """Return a script that makes the directories unless jobs of ours should be there, and lists trees."""
    make = f"mkdir -p -- {OUTBOX} {LAUNCHERS} {CODE} {STAGING}"
    work = shell_path(place.work_dir)
    begin = f"mkdir -p -- {work} && cd -- {work} && {make}" if may_create else f"cd -- {work}/{OUTBOX}/.."
    return (
        f"{{ {begin}; }} || exit {_GONE}\n"
        # What an interrupted upload has left a day ago; not of one that may be going on.
        f"find {STAGING} -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf -- {{}} + 2>/dev/null\n"
        f"ls -1A -- {LAUNCHERS} {CODE}\n"
    )


def present(result: CommandResult, place: Place, name: str, *, may_create: bool) -> set[str]:
    """Return the names of the launchers and code trees that lie there.

    Raises
    ------
    TransientError
        The directory is not there or cannot be made.
    """
    if result.exit_code != 0:
        said = result.stderr.strip() or f"exit code {result.exit_code}"
        gone = f"mount it, or, if it was removed on purpose, say so by `mkdir -p {place.outbox}`"
        raise TransientError(
            f"cannot use {place.work_dir} on {name}: {said}",
            hint=None if may_create else gone,  # jobs of ours should be there: so it is not simply made
        )
    return {line for line in result.stdout.splitlines() if line and not line.endswith(":")}
