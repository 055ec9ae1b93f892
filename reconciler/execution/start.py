"""From READY to SUBMITTED: check jobs out of the store, upload their run directories, submit them.

Also the way back: cancelling a job that may not have started yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.errors import TransientError
from reconciler.execution.run_files import next_attempt
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.submit import SubmitResult
from reconciler.execution.worker.upload import BundleContents
from reconciler.jobs.outputs import Outputs
from reconciler.jobs.responses import fail
from reconciler.jobs.transitions import move
from reconciler.model.records import Event, JobRecord
from reconciler.model.states import ACTIVE, JobState

BATCH = 100
"""Jobs that are checked out together and share one upload and one submission command."""

_FULL_INTERVAL = 30.0
"""Seconds until a queue that had no room is tried again, unless a job on the worker ends before."""


class JobStarter:
    """Starts the jobs of one worker.

    The caller takes new ``warnings`` from the list. ``full_until`` is when a queue that has no room for more
    jobs is tried again (seconds since the epoch).
    """

    def __init__(self, store: Store, outputs: Outputs, name: str, access: Callable[[], WorkerAccess]) -> None:
        self.store = store
        self.outputs = outputs
        self.name = name
        self.warnings: list[str] = []
        self.full_until = 0.0
        self._access = access

    def is_full(self, now: float) -> bool:
        """Return whether the queue has no room for more jobs; false if the clock was set back."""
        return 0 < self.full_until - now <= _FULL_INTERVAL

    def check_out(self, now: float) -> list[JobRecord]:
        """Check out the most urgent READY jobs, as many as the worker's limit allows: the written intent."""

        def free(view: View) -> int:
            limit = self._access().spec.max_jobs
            if limit is None:
                return BATCH
            active = sum(view.count_in_state(state, self.name) for state in ACTIVE)
            return max(0, min(BATCH, limit - active))

        def write(writer: Writer) -> list[JobRecord]:
            chosen = list(islice(writer.in_state(JobState.READY, self.name), free(writer)))
            return [self._begin_attempt(writer, job, now) for job in chosen]

        with self.store.read() as view:
            possible = view.any_in_state([JobState.READY], self.name) and free(view) > 0
        return self.store.write(write) if possible else []

    def _begin_attempt(self, writer: Writer, job: JobRecord, now: float) -> JobRecord:
        begun = next_attempt(job, self._access().work_dir, self.name)
        return move(writer, begun, JobState.CHECKED_OUT, now, f"worker {self.name}", error=None, cause=None)

    def upload(self, jobs: Sequence[JobRecord], now: float) -> list[JobRecord]:
        """Upload the run directories; return the jobs to submit. A job whose files cannot be made fails.

        Raises
        ------
        TransientError
            The worker, or the store of outputs, cannot be used now; no job has changed.
        """
        if not jobs:
            return []
        with self.store.read() as view:
            config = view.config()  # the present one: these jobs can belong to a revision just applied
        assert config is not None, "jobs come from an applied revision"

        def payload(job: JobRecord) -> bytes:
            with self.store.read() as view:
                return view.payload(job.id) or b"{}"

        uploads = self._access().upload(jobs, BundleContents(payload, config, self.outputs))

        def write(writer: Writer) -> list[JobRecord]:
            ready = []
            restored = writer.restored() is not None
            for job in _still(writer, jobs, JobState.CHECKED_OUT):
                if restored and job.id in uploads.ran and not job.cancelling:
                    reason = "it was started before the state was restored; that attempt counts"
                    ready.append(move(writer, job, JobState.UPLOADED, now, reason))
                elif job.id in uploads.used:  # by an attempt that the store does not remember
                    self._begin_attempt(writer, job, now)
                elif job.cancelling or job.id in uploads.impossible:
                    fail(writer, job, uploads.impossible.get(job.id, ""), now, JobState.REMOTE_ERROR)
                elif job.id in uploads.ready:
                    ready.append(move(writer, job, JobState.UPLOADED, now))
            return ready

        return self.store.write(write)

    def start(self, fresh: Sequence[JobRecord], doubtful: Sequence[JobRecord], now: float) -> bool:
        """Submit uploaded jobs. An interrupted pass may have submitted the ``doubtful`` ones.

        Jobs for which the queue has no room stay as they are, to be submitted later.

        Raises
        ------
        TransientError
            The worker gave no clear answer; the next pass finds what it may have submitted.
        """
        found = self._access().find(doubtful) if doubtful else {}
        rest = [job for job in (*doubtful, *fresh) if job.id not in found]
        result = self._access().submit(rest) if rest else SubmitResult({}, {})
        queue_ids = found | result.queue_ids

        def write(writer: Writer) -> list[str]:
            for job in _still(writer, (*doubtful, *fresh), JobState.UPLOADED):
                if job.id in queue_ids:
                    _submitted(writer, job, queue_ids[job.id], now)
                elif job.id in result.refused:
                    fail(writer, job, result.refused[job.id], now, JobState.REMOTE_ERROR)
            return _note_full(writer, self.name, result.full, now) if result.full else []

        self.full_until = now + _FULL_INTERVAL if result.full else 0.0
        if queue_ids or result.refused or result.full:
            self.warnings += self.store.write(write)
        if result.doubt:
            raise TransientError(result.doubt)
        return bool(queue_ids or result.refused)

    # cancelled before the start -----------------------------------------------------------------------

    def drop(self, active: Sequence[JobRecord], now: float) -> list[JobRecord]:
        """Stop cancelled jobs that were certainly never started, even if their worker does not answer.

        Return the other jobs.
        """
        dropped = [job for job in active if job.state is JobState.CHECKED_OUT and job.cancelling]

        def write(writer: Writer) -> None:
            for job in _still(writer, dropped, JobState.CHECKED_OUT):
                fail(writer, job, "", now)

        if dropped:
            self.store.write(write)
        gone = {job.id for job in dropped}
        return [job for job in active if job.id not in gone]

    def withdraw(self, jobs: Sequence[JobRecord], now: float) -> bool:
        """Take the claims of cancelled jobs, so that no script of an interrupted pass can run any more.

        If a script was faster, its queue id becomes known and the job can be cancelled in the queue.
        """
        if not jobs:
            return False
        result = self._access().withdraw(jobs)
        if result.queued:
            self._access().cancel(result.queued)

        def write(writer: Writer) -> None:
            for job in _still(writer, jobs, JobState.UPLOADED):
                if job.id in result.gone:
                    fail(writer, job, "", now)
                elif job.id in result.running:
                    _submitted(writer, job, result.running[job.id], now)

        self.store.write(write)
        return bool(result.gone or result.running)


def _still(writer: Writer, jobs: Sequence[JobRecord], state: JobState) -> list[JobRecord]:
    """Return the present records of those jobs that are still in a state."""
    records = [writer.job(job.id) for job in jobs]
    return [job for job in records if job is not None and job.state is state]


def _submitted(writer: Writer, job: JobRecord, queue_id: str, now: float) -> None:
    attempt = job.attempt_with(queue_id=queue_id, submitted=now)
    move(writer, job, JobState.SUBMITTED, now, f"as {queue_id}", attempt=attempt)


def _note_full(writer: Writer, worker: str, answer: str, now: float) -> list[str]:
    """Return a warning that the queue has no room, unless there was one about the same limit before."""

    def without_numbers(text: str) -> str:  # some schedulers count the jobs in the message
        return re.sub(r"\d+", "", text)

    kind, about = "QueueFull", f"worker/{worker}"
    reason = " ".join(answer.split())
    message = f"its queue takes no more jobs now: {reason}; set max_jobs of the worker to its limit"
    known = {without_numbers(event.message) for event in writer.events(about) if event.type == kind}
    if without_numbers(message) in known:
        return []
    writer.add_event(Event(time=now, type=kind, about=about, message=message))
    return [f"worker {worker}: {message}; the other jobs wait for room"]
