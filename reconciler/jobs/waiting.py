"""Why jobs wait that could run. Only reads the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reconciler.actual.view import View
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE, ON_WORKER, JobState
from reconciler.model.summaries import FlowSummary


class WhyWaiting:
    """Tells why a job waits, in the queue of its worker or for its worker. It looks at each worker once."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._config = view.config()
        self._of_worker: dict[str, str | None] = {}

    def job(self, job: JobRecord) -> str | None:
        """Return why a job waits; None if it does not, or if that is unknown."""
        if job.attempt.waiting or job.state is not JobState.READY or not job.current:
            return job.attempt.waiting
        return self.worker(job.config.worker_name)

    def worker(self, name: str) -> str | None:
        """Return why READY jobs of a worker do not start; None if they can."""
        if name not in self._of_worker:
            self._of_worker[name] = self._look_at(name)
        return self._of_worker[name]

    def _look_at(self, name: str) -> str | None:
        view, config = self._view, self._config
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


def why_flow_waits(
    summary: FlowSummary, read_jobs: Callable[[], Sequence[JobRecord]], why: WhyWaiting
) -> str | None:
    """Return why no job of a flow runs although some could: ``relax waits: worker hpc is full: 4 of 4``.

    ``read_jobs`` returns all jobs of the flow; it is called only if the summary is not enough.
    """
    if not summary.states.keys().isdisjoint((ACTIVE - ON_WORKER) | {JobState.RUNNING}):
        return None
    reasons = {name: reason for name in summary.ready if (reason := why.worker(name)) is not None}
    firsts = [summary.ready[name].first for name in reasons]
    if not summary.explained and None not in firsts:
        found = [(first, name) for first, name in zip(firsts, reasons, strict=True) if first is not None]
        oldest = min(found, key=lambda one: one[0].sequence, default=None)
        return f"{oldest[0].key} waits: {reasons[oldest[1]]}" if oldest is not None else None
    for job in read_jobs():
        reason = why.job(job) if job.current and job.state in (JobState.READY, JobState.SUBMITTED) else None
        if reason is not None:
            return f"{job.key} waits: {reason}"
    return None
