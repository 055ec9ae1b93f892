"""Why jobs wait that could run. Only reads the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reconciler.actual.view import View
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE, ON_WORKER, JobState

WhyWaiting = Callable[[JobRecord], str | None]
"""Why a job waits, in the queue of its worker or for its worker; None if it does not, or nobody knows."""


def why_waiting(view: View) -> WhyWaiting:
    """Return the function that tells why a job waits. It looks at each worker once."""
    config = view.config()
    of_worker: dict[str, str | None] = {}

    def look_at(name: str) -> str | None:
        if config is None:
            return None
        if name in config.closed_workers:
            return config.closed_workers[name]
        if name not in config.workers:
            return f"the applied revision has no worker '{name}'" if name else "nothing sets its worker"
        status, spec = view.worker_status(name), config.workers[name]
        if status is not None and not status.reachable:
            return f"worker {name} does not answer: {status.reason}"
        if spec.max_jobs is not None and spec.batch is None:
            active = sum(view.count_in_state(state, name) for state in ACTIVE)
            if active >= spec.max_jobs:
                return f"worker {name} is full: {active} of {spec.max_jobs}"
        return None

    def why(job: JobRecord) -> str | None:
        if job.attempt.waiting or job.state is not JobState.READY or not job.current:
            return job.attempt.waiting
        name = job.config.worker_name
        if name not in of_worker:
            of_worker[name] = look_at(name)
        return of_worker[name]

    return why


def why_flow_waits(jobs: Sequence[JobRecord], why: WhyWaiting) -> str | None:
    """Return why no job of a flow runs although some could: ``relax waits: worker hpc is full: 4 of 4``."""
    current = [job for job in jobs if job.current]
    if any(job.state in ACTIVE - ON_WORKER or job.state is JobState.RUNNING for job in current):
        return None
    for job in current:
        reason = why(job) if job.state in (JobState.READY, JobState.SUBMITTED) else None
        if reason is not None:
            return f"{job.key} waits: {reason}"
    return None
