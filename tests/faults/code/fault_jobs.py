"""Jobs that append one line a run, so that whoever runs twice is found out. User code: it runs on workers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from jobflow import CURRENT_JOB, Flow, Job, Response, job


def tell(file: str) -> str:
    """Append ``<uuid>_<index>`` of the job that runs, in one system call."""
    this = CURRENT_JOB.job
    line = f"{this.uuid}_{this.index}"
    handle = os.open(file, os.O_WRONLY | os.O_APPEND)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)
    return line


@job
def line(file: str, *after: Any) -> str:
    """Append a line; ``after`` is what must have run before."""
    return tell(file)


@job
def span(file: str, seconds: float, *after: Any) -> str:
    """Append a line, and run for a while."""
    tell(file)
    time.sleep(seconds)
    return "slept"


@job
def gated(file: str, gate: str, *after: Any) -> str:
    """Append a line, and go on once a file exists."""
    tell(file)
    while not Path(gate).exists():
        time.sleep(0.02)
    return "went on"


@job
def replaces(file: str, times: int, *after: Any) -> Any:
    """Be replaced by the same with one less, and at the end by a chain."""
    tell(file)
    return Response(replace=replaces(file, times - 1) if times else _chain(file, 2))


@job
def detours(file: str, count: int, *after: Any) -> Response:
    """Let the children wait for a chain."""
    return Response(output=tell(file), detour=_chain(file, count))


@job
def adds(file: str, count: int, *after: Any) -> Response:
    """Add a chain that nobody waits for."""
    return Response(output=tell(file), addition=_chain(file, count))


def _chain(file: str, count: int) -> Flow:
    jobs: list[Job] = []
    for _ in range(count):
        jobs.append(line(file, *(before.output for before in jobs[-1:])))
    return Flow(jobs, output=jobs[-1].output)


def hanging(path: str) -> Flow:
    """Say that it began, and be built for ever."""
    Path(path).touch()
    time.sleep(3600)
    raise AssertionError
