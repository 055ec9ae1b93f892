"""The first command on a worker: check or create its directory, and list the shared files in it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.run_files import CODE, LAUNCHERS, OUTBOX, WorkerPaths, shell_path

STAGING = ".staging"
_UNUSABLE = 9
_NEIGHBOUR = "neighbour "


class Inventory(msgspec.Struct, frozen=True):
    """The names of the launchers and code trees of a worker, and of its neighbours by their number."""

    own: set[str]
    of_neighbours: dict[int, set[str]]


def script(paths: WorkerPaths, neighbours: Sequence[str] = (), *, may_create: bool) -> str:
    """Return a script that lists launchers and code trees, and with ``may_create`` makes the directories.

    ``neighbours`` are the directories of other workers on the host; they need not exist.
    """
    make = f"mkdir -p -- {OUTBOX} {LAUNCHERS} {CODE} {STAGING}"
    work = shell_path(paths.work_dir)
    begin = f"mkdir -p -- {work} && cd -- {work} && {make}" if may_create else f"cd -- {work}/{OUTBOX}/.."
    return (
        f"{{ {begin}; }} || exit {_UNUSABLE}\n"
        # Remainders of interrupted uploads; one of the last day can be in progress.
        f"find {STAGING} -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf -- {{}} + 2>/dev/null\n"
        f"ls -1A -- {LAUNCHERS} {CODE} || exit {_UNUSABLE}\n"
        + "".join(
            f"echo {_NEIGHBOUR}{number}; ls -1A -- {shell_path(other)}/{CODE} 2>/dev/null || :\n"
            for number, other in enumerate(neighbours)
        )
    )


def read_inventory(result: CommandResult, paths: WorkerPaths, host: str, *, may_create: bool) -> Inventory:
    """Return the inventory that the script printed.

    Raises
    ------
    TransientError
        The directory does not exist or cannot be made.
    """
    if result.exit_code != 0:
        reason = result.stderr.strip() or f"exit code {result.exit_code}"
        # The store has jobs there, so an empty directory would be the wrong one: it is not created.
        fix = f"mount it; if it was removed on purpose, confirm that with `mkdir -p {paths.outbox}`"
        raise TransientError(
            f"cannot use {paths.work_dir} on {host}: {reason}", hint=None if may_create else fix
        )
    own, *others = result.stdout.split(f"\n{_NEIGHBOUR}")
    lists = (other.partition("\n") for other in others)
    return Inventory(_names(own), {int(number): _names(text) for number, _, text in lists})


def _names(text: str) -> set[str]:
    return {line for line in text.splitlines() if line and not line.endswith(":")}
