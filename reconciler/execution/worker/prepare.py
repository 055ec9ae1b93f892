"""The first command on a worker: its directory is there, and what of ours lies in it already."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.run_files import CODE, LAUNCHERS, OUTBOX, WorkerPaths, shell_path

STAGING = ".staging"
_GONE = 9
_NEIGHBOUR = "neighbour "


class Inventory(msgspec.Struct, frozen=True):
    """The names of the launchers and code trees that lie on a worker, and of its neighbours, by number."""

    own: set[str]
    of_neighbours: dict[int, set[str]]


def script(place: WorkerPaths, neighbours: Sequence[str] = (), *, may_create: bool) -> str:
    """Return a script that makes the directories unless jobs of ours should be there, and lists trees.

    ``neighbours`` are other directories of this kind, which need not be there.
    """
    make = f"mkdir -p -- {OUTBOX} {LAUNCHERS} {CODE} {STAGING}"
    work = shell_path(place.work_dir)
    begin = f"mkdir -p -- {work} && cd -- {work} && {make}" if may_create else f"cd -- {work}/{OUTBOX}/.."
    return (
        f"{{ {begin}; }} || exit {_GONE}\n"
        # What an interrupted upload has left a day ago; not of one that may be going on.
        f"find {STAGING} -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf -- {{}} + 2>/dev/null\n"
        f"ls -1A -- {LAUNCHERS} {CODE} || exit {_GONE}\n"
        + "".join(
            f"echo {_NEIGHBOUR}{number}; ls -1A -- {shell_path(other)}/{CODE} 2>/dev/null || :\n"
            for number, other in enumerate(neighbours)
        )
    )


def present(result: CommandResult, place: WorkerPaths, name: str, *, may_create: bool) -> Inventory:
    """Return what lies there.

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
    own, *others = result.stdout.split(f"\n{_NEIGHBOUR}")
    lists = (other.partition("\n") for other in others)
    return Inventory(_names(own), {int(number): _names(text) for number, _, text in lists})


def _names(text: str) -> set[str]:
    return {line for line in text.splitlines() if line and not line.endswith(":")}
