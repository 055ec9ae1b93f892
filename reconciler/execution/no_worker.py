"""A job whose worker the applied revision does not have: nobody would ever take it, so it must say so."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from typing import Any

from reconciler.actual.writer import Writer
from reconciler.diagnostics import did_you_mean
from reconciler.execution.ready import release_indifferent
from reconciler.execution.transitions import move
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState


def no_worker(job: JobRecord, workers: Collection[str]) -> str | None:
    """Return why nobody can take a job, and what to do, on one line; None if one of ``workers`` can."""
    name = (job.wanted or job.config).worker_name
    if name in workers:
        return None
    problem = f"there is no Worker named '{name}'" if name else "no level of the run config gives it a worker"
    guess = did_you_mean(name, workers) if name else None
    add = "add that Worker, or " if name else ""
    other = shlex.quote(f"{job.flow}/{job.name}")
    return (
        f"{problem}{f' ({guess})' if guess else ''}: {add}give the job another one, as with "
        f"`reconcile set worker {other} NAME`; then `reconcile retry {shlex.quote(job.path)}`"
    )


def end_without_worker(writer: Writer, job: JobRecord, why: str, now: float, **fields: Any) -> None:
    """End a job that nobody can take; one that does not mind goes on without its result."""
    move(writer, job, JobState.REMOTE_ERROR, now, why, error=why, cause=None, **fields)
    release_indifferent(writer, job.uuid, now)
