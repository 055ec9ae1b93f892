"""From READY to SUBMITTED: taking jobs out of the store, writing their run directories, starting them.

Also the way out of there: a cancelled job that may not have started yet.
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
from reconciler.model.records import AppliedConfig, Event, JobRecord
from reconciler.model.states import ACTIVE, JobState

BATCH = 100
"""Jobs that leave the store at once, and share one upload and one submission command."""

_WAIT_FOR_ROOM = 30.0
"""Seconds until a queue that took no more jobs is asked again; or until one of ours has ended."""

_FULL = "QueueFull"
_RAN_BEFORE = "it was started before the state was restored; that attempt counts"


class OnWorker:
    """What all work on the jobs of one worker needs. ``access`` gives its files and its queue."""

    def __init__(self, store: Store, outputs: Outputs, name: str, access: Callable[[], WorkerAccess]) -> None:
        self.store = store
        self.outputs = outputs
        self.name = name
        self._access = access

    @property
    def access(self) -> WorkerAccess:
        """The files and the queue of this worker."""
        return self._access()


class JobStarter(OnWorker):
    """Starts the jobs of one worker.

    ``warnings`` are for people: whoever tells them takes them out. ``full_until`` is when a queue that takes
    no more jobs is asked again (seconds since the epoch).
    """

    def __init__(self, store: Store, outputs: Outputs, name: str, access: Callable[[], WorkerAccess]) -> None:
        super().__init__(store, outputs, name, access)
        self.warnings: list[str] = []
        self.full_until = 0.0

    def is_full(self, now: float) -> bool:
        """Whether the queue takes no more jobs; a clock that was set back makes it wait no longer."""
        return 0 < self.full_until - now <= _WAIT_FOR_ROOM

    @property
    def max_jobs(self) -> int | None:
        """How many jobs the worker takes at once; None for any number."""
        return self.access.spec.max_jobs

    def check_out(self, now: float) -> list[JobRecord]:
        """Take the most urgent READY jobs, as many as the worker's limit allows. This is the intent."""

        def take(writer: Writer) -> list[JobRecord]:
            chosen = list(islice(writer.in_state(JobState.READY, self.name), self._free(writer)))
            return [self._next_attempt(writer, job, now) for job in chosen]

        with self.store.read() as view:
            worth_it = view.any_in_state([JobState.READY], self.name) and self._free(view) > 0
        return self.store.write(take) if worth_it else []

    def _free(self, view: View) -> int:
        if self.max_jobs is None:
            return BATCH
        used = sum(view.count_in_state(state, self.name) for state in ACTIVE)
        return max(0, min(BATCH, self.max_jobs - used))

    def _next_attempt(self, writer: Writer, job: JobRecord, now: float) -> JobRecord:
        return move(
            writer, next_attempt(job, self.access.work_dir), JobState.CHECKED_OUT, now, f"worker {self.name}",
            run_worker=self.name, queue_id=None, submitted=None, missing_since=None, error=None,
            cause=None, stuck=None,
        )  # fmt: skip

    def upload(self, jobs: Sequence[JobRecord], now: float) -> list[JobRecord]:
        """Bring the run directories; return the jobs that may start. One whose files cannot be made fails.

        Raises
        ------
        TransientError
            The worker, or the store of outputs, cannot be used now; no job has changed.
        """
        if not jobs:
            return []
        outcome = self.access.upload(jobs, BundleContents(self._payload, self._config(), self.outputs))

        def write(writer: Writer) -> list[JobRecord]:
            done = []
            restored = writer.restored() is not None
            for job in _still(writer, jobs, JobState.CHECKED_OUT):
                if restored and job.id in outcome.ran and job.cancel is None:
                    done.append(move(writer, job, JobState.UPLOADED, now, _RAN_BEFORE))
                elif job.id in outcome.used:  # by a life of this job that the store does not remember
                    self._next_attempt(writer, job, now)
                elif job.cancel is not None or job.id in outcome.impossible:
                    fail(writer, job, outcome.impossible.get(job.id, ""), now, JobState.REMOTE_ERROR)
                elif job.id in outcome.ready:
                    done.append(move(writer, job, JobState.UPLOADED, now))
            return done

        return self.store.write(write)

    def _config(self) -> AppliedConfig:
        """Return the configuration as it is now: these jobs may come from a revision just applied."""
        with self.store.read() as view:
            config = view.config()
        assert config is not None, "jobs come from an applied revision"
        return config

    def _payload(self, job: JobRecord) -> bytes:
        with self.store.read() as view:
            return view.payload(job.id) or b"{}"

    def start(self, fresh: Sequence[JobRecord], doubtful: Sequence[JobRecord], now: float) -> bool:
        """Submit what was uploaded. ``doubtful`` are jobs that an interrupted pass may have submitted.

        What a full queue does not take stays as it is, to be submitted later.

        Raises
        ------
        TransientError
            The worker gave no clear answer; what it may have submitted is looked for next time.
        """
        found = self.access.find(doubtful) if doubtful else {}
        rest = [job for job in (*doubtful, *fresh) if job.id not in found]
        result = self.access.submit(rest) if rest else SubmitResult({}, {})
        queue_ids = found | result.queue_ids

        def write(writer: Writer) -> list[str]:
            for job in _still(writer, (*doubtful, *fresh), JobState.UPLOADED):
                if job.id in queue_ids:
                    _submitted(writer, job, queue_ids[job.id], now)
                elif job.id in result.refused:
                    fail(writer, job, result.refused[job.id], now, JobState.REMOTE_ERROR)
            return _note_full(writer, self.name, result.full, now) if result.full else []

        self.full_until = now + _WAIT_FOR_ROOM if result.full else 0.0
        if queue_ids or result.refused or result.full:
            self.warnings += self.store.write(write)
        if result.doubt:
            raise TransientError(result.doubt)
        return bool(queue_ids or result.refused)

    # cancelled before the start -----------------------------------------------------------------------

    def drop(self, active: Sequence[JobRecord], now: float) -> list[JobRecord]:
        """Stop cancelled jobs that were certainly never started, whether or not their worker answers.

        Return the other jobs.
        """
        dropped = [job for job in active if job.state is JobState.CHECKED_OUT and job.cancel is not None]

        def write(writer: Writer) -> None:
            for job in _still(writer, dropped, JobState.CHECKED_OUT):
                fail(writer, job, "", now)

        if dropped:
            self.store.write(write)
        gone = {job.id for job in dropped}
        return [job for job in active if job.id not in gone]

    def withdraw(self, jobs: Sequence[JobRecord], now: float) -> bool:
        """Take the claims of cancelled jobs, so that no script of an interrupted pass can run any more.

        A script that was faster is known by its queue id from now on, and can be ended.
        """
        if not jobs:
            return False
        outcome = self.access.withdraw(jobs)
        if outcome.queued:
            self.access.cancel(outcome.queued)

        def write(writer: Writer) -> None:
            for job in _still(writer, jobs, JobState.UPLOADED):
                if job.id in outcome.gone:
                    fail(writer, job, "", now)
                elif job.id in outcome.running:
                    _submitted(writer, job, outcome.running[job.id], now)

        self.store.write(write)
        return bool(outcome.gone or outcome.running)


def _still(writer: Writer, jobs: Sequence[JobRecord], state: JobState) -> list[JobRecord]:
    """Return the present records of those jobs that are still in a state."""
    records = [writer.job(job.id) for job in jobs]
    return [job for job in records if job is not None and job.state is state]


def _submitted(writer: Writer, job: JobRecord, queue_id: str, now: float) -> None:
    move(writer, job, JobState.SUBMITTED, now, f"as {queue_id}", queue_id=queue_id, submitted=now)


def _note_full(writer: Writer, worker: str, said: str, now: float) -> list[str]:
    """Return a warning that the queue takes no more jobs, unless it was told before of this limit."""
    words = " ".join(said.split())
    about = f"worker/{worker}"
    message = f"its queue takes no more jobs now: {words}; set max_jobs of the worker to what it takes"
    known = {_without_numbers(event.message) for event in writer.events(about) if event.type == _FULL}
    if _without_numbers(message) in known:
        return []
    writer.add_event(Event(time=now, type=_FULL, about=about, message=message))
    return [f"worker {worker}: {message}; the others wait for room"]


def _without_numbers(text: str) -> str:
    """Some schedulers say how many jobs there are."""
    return re.sub(r"\d+", "", text)
