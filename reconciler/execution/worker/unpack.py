"""One tar stream that brings everything that jobs need, into place only when it is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.run_files import CLAIM, CODE, LAUNCHERS, WorkerPaths, shell_path
from reconciler.execution.worker.prepare import STAGING
from reconciler.model.records import JobRecord


class Unpacked(msgspec.Struct, frozen=True):
    """What became of jobs, by their numbers: those in place, and those whose directory was used before.

    Of these, ``ran`` are those whose script has begun: it runs, or it has left what it found.
    """

    placed: set[int]
    used: set[int]
    ran: set[int]


def shared_name(path: str, folder: str) -> str:
    """Return the name in the stream of something that many jobs share: a launcher or a code tree."""
    return f"shared/{folder}/{path}"


def job_name(number: int, path: str) -> str:
    """Return the name in the stream of a file of a job."""
    return f"jobs/{number}/{path}"


def script(
    place: WorkerPaths,
    jobs: Sequence[JobRecord],
    needed: Sequence[str],
    nonce: str,
    borrowed: Mapping[str, str] | None = None,
) -> str:
    """Return the script. ``needed`` are launchers and code trees, as paths below the work_dir.

    One that nobody sends and that is not there makes the script fail: somebody has removed it. ``borrowed``
    are code trees that are copied from another directory of the same host.
    """
    stage = f"{STAGING}/{nonce}"
    lines = [
        f"cd -- {shell_path(place.work_dir)} || exit 9",
        f"trap 'rm -rf -- {stage}' EXIT",
        f"mkdir -p -- {LAUNCHERS} {CODE} {stage} && tar --no-same-owner -xf - -C {stage} || exit 10",
        "reconciler_share() {",
        f'[ -e "$1" ] || mv -- "{stage}/shared/$1" "$1" 2>/dev/null || [ -e "$1" ] || echo "missing $1"',
        "}",
        "reconciler_place() {",
        f'if [ -s "$2/{CLAIM}/queue_id" ]; then echo "ran $1"; return; fi',
        f'if [ -e "$2/{CLAIM}" ]; then',
        # A claim without a name was withdrawn, or is that of a script which is just about to write it.
        f'[ -e "$2/{CLAIM}/withdrawn" ] || [ -n "$(find "$2/{CLAIM}" -maxdepth 0 -mmin +1)" ] || return',
        'echo "used $1"; return; fi',
        f'[ -e "{stage}/jobs/$1" ] || return',
        'mkdir -p -- "$2" && rm -rf -- "$2/files" || exit 11',
        f'mv -f -- "{stage}/jobs/$1/"* "$2/" || exit 11',
        'echo "placed $1"',
        "}",
        *(_borrow(tree, shell_path(other), stage) for tree, other in (borrowed or {}).items()),
        *(f"reconciler_share {name}" for name in needed),
        *(f"reconciler_place {number} {_directory(job)}" for number, job in enumerate(jobs)),
        "exit 0",
    ]
    return "\n".join(lines)


def _borrow(tree: str, other: str, stage: str) -> str:
    """Return a line that brings a tree to where those are that were sent; a half of it is none."""
    target = f"{stage}/{shared_name(tree, CODE)}"
    copy = f"cp -R -- {other}/{CODE}/{tree} {target} 2>/dev/null || rm -rf -- {target}"
    return f"mkdir -p -- {stage}/{shared_name('', CODE)} && {{ {copy}; }}"


def _directory(job: JobRecord) -> str:
    assert job.run_dir is not None
    return shell_path(job.run_dir)


def uploaded(result: CommandResult, place: WorkerPaths) -> Unpacked:
    """Read what became of the jobs.

    Raises
    ------
    TransientError
        The directory is not there, the disk is full, or something that jobs share was removed.
    """
    if result.exit_code != 0:
        said = result.stderr.strip()[-300:] or f"exit code {result.exit_code}"
        raise TransientError(f"cannot write to {place.work_dir}: {said}")
    outcome = Unpacked(set(), set(), set())
    for line in result.stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word == "missing":
            raise TransientError(f"{place.work_dir}/{rest} was removed; it is sent again")
        (outcome.placed if word == "placed" else outcome.used).add(int(rest))
        if word == "ran":
            outcome.ran.add(int(rest))
    return outcome
