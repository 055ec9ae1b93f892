"""The hand-over directory of a batch worker: where tickets and allocations are, and what is in a ticket.

``work_dir/.batch/<worker>/`` has ``waiting/<ticket>``, ``cancel/<marker>`` for jobs that are to be ended, and
for each allocation a directory with its script, the state that its agent reports, and ``running/<marker>``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from reconciler.errors import InputError
from reconciler.execution.run_files import (
    LAUNCHERS,
    WorkerPaths,
    code_lines,
    environment_lines,
    marker_name,
    shell_path,
)
from reconciler.model.flows import run_dir
from reconciler.model.manifests import ExecConfigSpec, WorkerSpec
from reconciler.model.records import JobRecord
from reconciler.model.schedulers import scheduler_of
from reconciler.model.settings import Resources

BATCHES = ".batch"
WAITING, CANCEL, RUNNING = "waiting", "cancel", "running"
WARM_SCRIPT = "warm.sh"
"""The script in a run directory that starts a warm interpreter for the job."""

_MARKER = re.compile(r"([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})_(\d+)\.(\d+)")
_HIGHEST_PRIORITY = 2**31 - 1


def batch_dir(paths: WorkerPaths, worker: str) -> str:
    """Return the hand-over directory of a worker; several workers can share a work_dir."""
    return f"{paths.work_dir}/{BATCHES}/{worker}"


def is_marker(queue_id: str) -> bool:
    """Return whether a queue id is that of a job in a batch, which is the name of its marker."""
    return _MARKER.fullmatch(queue_id) is not None


def run_dir_of(work_dir: str, marker: str) -> str:
    """Return the run directory of an attempt."""
    found = _MARKER.fullmatch(marker)
    assert found is not None, marker
    return run_dir(work_dir, found[1], int(found[2]), int(found[3]))


def ticket_name(job: JobRecord) -> str:
    """Return the name of a ticket: sorted by name, the most urgent comes first, then the oldest."""
    return f"{_HIGHEST_PRIORITY - job.config.priority_value:010}.{job.sequence:012}.{marker_name(job)}"


def marker_of(ticket: str) -> str:
    """Return the marker of the job of a ticket."""
    return ticket.split(".", 2)[-1]


def ticket_text(job: JobRecord, worker: WorkerSpec) -> str:
    """Return the content of a ticket: what the agent needs to know before it claims the job."""
    content = {
        "dir": run_dir("", job.uuid, job.index, job.attempt.number)[1:],
        "seconds": scheduler_of(worker.scheduler_type).request_of(job.asked).seconds,
        "module": job.function.rpartition(".")[0],
    }
    return json.dumps(content)


def time_limit(worker: WorkerSpec) -> int | None:
    """Return the seconds that an allocation of a worker lasts, as far as its resources say."""
    return scheduler_of(worker.scheduler_type).request_of(allocation_resources(worker)).seconds


def allocation_resources(worker: WorkerSpec) -> Resources:
    """Return what an allocation of a worker asks for."""
    if isinstance(worker.qresources, dict):
        return Resources(worker.qresources, generic=True)
    return Resources(worker.resources if isinstance(worker.resources, dict) else {})


def check_fits(job: JobRecord, worker: WorkerSpec) -> None:
    """Check that a job can start in an allocation.

    Raises
    ------
    InputError
        Its time limit is longer than an allocation lasts.
    """
    asked = scheduler_of(worker.scheduler_type).request_of(job.asked).seconds
    lasts = time_limit(worker)
    if asked is not None and lasts is not None and asked > lasts:
        raise InputError(
            f"its time limit of {asked} s is longer than an allocation of the worker, {lasts} s",
            hint="ask for less, or set a longer time in the `resources` of the worker",
        )


def warm_script(
    job: JobRecord, worker: WorkerSpec, paths: WorkerPaths, exec_config: ExecConfigSpec
) -> str | None:
    """Return the script that becomes a warm interpreter for the jobs of an exec_config and code trees.

    None if commands run around each job: then the job needs a shell of its own.
    """
    around = (worker.pre_run, worker.post_run, exec_config.pre_run, exec_config.post_run)
    if any(text.strip() for text in around):
        return None
    lines = [
        "#!/bin/bash",
        "mkdir -p claim",  # where the lines below leave complaints about modules
        *environment_lines(exec_config),
        *code_lines(job, paths),
        f'exec {shell_path(paths.python)} {program_path(paths, "warm.py")} {shell_path(paths.launcher)} "$1"',
    ]
    return "\n".join(lines) + "\n"


def handover_script(
    jobs: Sequence[JobRecord], worker: WorkerSpec, paths: WorkerPaths, name: str, nonce: str
) -> str:
    """Return the script that hands jobs over, the most urgent first; it may be repeated.

    A ticket of a job that was claimed before has no effect.
    """
    here, stage = shell_path(batch_dir(paths, name)), f"new.{nonce}"
    lines = [
        f"mkdir -p -- {here} && cd -- {here} && mkdir -p -- {WAITING} {CANCEL} {stage} || exit 9",
        f"trap 'rm -rf -- {stage}' EXIT",
    ]
    lines += [
        f"printf '%s\\n' {shlex.quote(ticket_text(job, worker))} > {stage}/{ticket_name(job)} || exit 10"
        for job in jobs
    ]
    # A rename each, in the order of the names: each ticket exists completely or not at all.
    return "\n".join([*lines, f"mv -f -- {stage}/* {WAITING}/ || exit 10", "exit 0"])


# Programs of the worker ------------------------------------------------------------------------------------


@cache
def program(name: str) -> tuple[str, bytes]:
    """Return the file name, which has a digest, and the source of ``agent.py`` or ``warm.py``."""
    source = Path(__file__).with_name(name).read_bytes()
    return f"{name.removesuffix('.py')}-{hashlib.sha256(source).hexdigest()[:16]}.py", source


def programs() -> dict[str, bytes]:
    """Return the programs that travel to batch workers, by file name."""
    return dict(program(name) for name in ("agent.py", "warm.py"))


def program_path(paths: WorkerPaths, name: str) -> str:
    """Return the quoted path of a program on the worker."""
    return shell_path(f"{paths.work_dir}/{LAUNCHERS}/{program(name)[0]}")
