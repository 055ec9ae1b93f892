"""The first command on a worker: check or create its directory, and list the shared files in it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.run_files import CODE, DOCUMENTS, LAUNCHERS, OUTBOX, WorkerPaths, shell_path

STAGING = ".staging"
UNUSED_AFTER = 60
"""Minutes after its last use until a document is removed that no run directory links to."""
_UNUSABLE = 9
_NEIGHBOUR = "neighbour "


class Inventory(msgspec.Struct, frozen=True):
    """The names of the shared files of a worker, and of the code trees of its neighbours by their number."""

    own: set[str]
    of_neighbours: dict[int, set[str]]


def script(paths: WorkerPaths, neighbours: Sequence[str] = (), *, may_create: bool) -> str:
    """Return a script that lists launchers, code trees and documents; with ``may_create`` it makes the
    directories.

    ``neighbours`` are the directories of other workers on the host; they need not exist.
    """
    make = f"mkdir -p -- {OUTBOX} {LAUNCHERS} {CODE} {DOCUMENTS} {STAGING}"
    work = shell_path(paths.work_dir)
    begin = f"mkdir -p -- {work} && cd -- {work} && {make}" if may_create else f"cd -- {work}/{OUTBOX}/.."
    return (
        f"umask 077; {{ {begin}; }} || exit {_UNUSABLE}\n"
        f"{_OURS}\n"
        f"{_GENUINE}\n"
        # Remainders of interrupted uploads; one of the last day can be in progress.
        f"find {STAGING} -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf -- {{}} + 2>/dev/null\n"
        f"{remove_unused_documents()}\n"
        f"mkdir -p -- {DOCUMENTS}\n"  # earlier versions made none
        f"ls -1A -- {LAUNCHERS} {CODE} {DOCUMENTS} || exit {_UNUSABLE}\n"
        + "".join(
            f"echo {_NEIGHBOUR}{number}; ls -1A -- {shell_path(other)}/{CODE} 2>/dev/null || :\n"
            for number, other in enumerate(neighbours)
        )
    )


_OURS = f"""\
if [ -n "$(find . -maxdepth 0 -perm -0002 ! -perm -1000)" ]; then
  echo "everybody can write to it: run chmod o-w on it there" >&2; exit {_UNUSABLE}
fi
for place in {OUTBOX} {LAUNCHERS} {CODE} {DOCUMENTS} {STAGING}; do
  [ -e $place ] || continue
  if [ -L $place ] || [ ! -O $place ]; then
    echo "$place in it is a link or belongs to another user" >&2; exit {_UNUSABLE}
  fi
  chmod go-w $place
done"""
"""Check that no other user can put files where jobs find their code. The work_dir can belong to a project."""

_GENUINE = f"""\
if command -v sha256sum >/dev/null; then
  for file in {LAUNCHERS}/*.py; do
    sum=$(sha256sum 2>/dev/null < "$file") || continue
    name=${{file##*/}}
    [ "${{sum:0:16}}.py" = "${{name##*-}}" ] || rm -f -- "$file"
  done
fi"""
"""Remove launchers whose content is not what their name says; they are sent again.

The name ends in a digest: ``<digest>.py``, ``agent-<digest>.py``.
"""


def remove_unused_documents() -> str:
    """Return the command that removes the documents in the current work_dir that no run directory links to.

    One that was used in the last hour stays: a job that is about to start can need it.
    """
    return f"find {DOCUMENTS} -type f -links 1 -mmin +{UNUSED_AFTER} -exec rm -f -- {{}} + 2>/dev/null"


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
