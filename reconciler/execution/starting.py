"""From READY to SUBMITTED: taking jobs out of the store, writing their run directories, starting them.

Also the way out of there: a cancelled job that may not have started yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from reconciler.actual.store import Store, View, Writer
from reconciler.errors import ReconcilerError, TransientError
from reconciler.execution.launch import next_attempt
from reconciler.execution.outputs import Outputs
from reconciler.execution.queues import Submission
from reconciler.execution.responses import fail
from reconciler.execution.transitions import move
from reconciler.execution.worker import WorkerAccess
from reconciler.model.records import AppliedConfig, JobRecord
from reconciler.model.states import ACTIVE, JobState

BATCH = 100
"""Jobs that leave the store at once. One command starts them, and a command has at most 128 KiB."""


class OnWorker:
    """What all work on the jobs of one worker needs; ``access`` gives files and queue of a worker by name."""

    def __init__(
        self,
        store: Store,
        config: AppliedConfig,
        outputs: Outputs,
        name: str,
        access: Callable[[str], WorkerAccess],
    ) -> None:
        self.store = store
        self.config = config
        self.outputs = outputs
        self.name = name
        self._access = access

    @property
    def access(self) -> WorkerAccess:
        """The files and the queue of this worker."""
        return self._access(self.name)


class Starter(OnWorker):
    """Starts the jobs of one worker."""

    @property
    def max_jobs(self) -> int | None:
        """How many jobs the worker takes at once; None for any number."""
        return self.config.workers[self.name].max_jobs

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
        )  # fmt: skip

    def upload(self, jobs: Sequence[JobRecord], now: float) -> list[JobRecord]:
        """Write the run directories; return the jobs that may start. One whose files cannot be made fails.

        Raises
        ------
        TransientError
            The worker, or the store of outputs, cannot be used now; no job has changed.
        """
        impossible: dict[str, str] = {}
        used = {job.id for job in jobs if self.access.is_claimed(job)}
        for job in jobs:
            if job.id not in used and (problem := self._write_files(job)):
                impossible[job.id] = problem

        def write(writer: Writer) -> list[JobRecord]:
            done = []
            for job in _still(writer, jobs, JobState.CHECKED_OUT):
                if job.id in used:  # by a life of this job that the store does not remember
                    self._next_attempt(writer, job, now)
                elif job.id in impossible or job.cancel is not None:
                    fail(writer, job, impossible.get(job.id, ""), now, JobState.REMOTE_ERROR)
                else:
                    done.append(move(writer, job, JobState.UPLOADED, now))
            return done

        return self.store.write(write) if jobs else []

    def _write_files(self, job: JobRecord) -> str:
        """Return what is wrong with the job, if its files cannot be made."""
        with self.store.read() as view:
            payload = view.payload(job.id)
        try:
            self.access.upload(job, payload or b"{}", self.config, self.outputs)
        except TransientError:
            raise
        except (ReconcilerError, ValueError, KeyError) as error:
            return str(error) or type(error).__name__
        return ""

    def start(self, jobs: Sequence[JobRecord], now: float) -> bool:
        """Start what was uploaded, unless its claim shows that an interrupted pass has started it.

        Raises
        ------
        TransientError
            The command did not run; what it may have started is found by its claim next time.
        """
        started = {job.id: pid for job in jobs if (pid := self.access.claimed_by(job)) is not None}
        fresh = [job for job in jobs if job.id not in started]
        started |= self.access.queue.submit([Submission(job.id, job.run_dir or "") for job in fresh])

        def write(writer: Writer) -> None:
            for job in _still(writer, jobs, JobState.UPLOADED):
                if job.id in started:
                    _submitted(writer, job, started[job.id], now)
                else:
                    fail(writer, job, "its script could not be started", now, JobState.REMOTE_ERROR)

        if jobs:
            self.store.write(write)
        return bool(jobs)

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

        A script that was faster is known by its process from now on, and can be killed.
        """
        gone = {job.id for job in jobs if self.access.withdraw(job)}
        started = {job.id: pid for job in jobs if (pid := self.access.claimed_by(job)) is not None}

        def write(writer: Writer) -> None:
            for job in _still(writer, jobs, JobState.UPLOADED):
                if job.id in gone:
                    fail(writer, job, "", now)
                elif job.id in started:
                    _submitted(writer, job, started[job.id], now)

        if jobs:
            self.store.write(write)
        return bool(gone or started)


def _still(writer: Writer, jobs: Sequence[JobRecord], state: JobState) -> list[JobRecord]:
    """Return the present records of those jobs that are still in a state."""
    records = [writer.job(job.id) for job in jobs]
    return [job for job in records if job is not None and job.state is state]


def _submitted(writer: Writer, job: JobRecord, queue_id: str, now: float) -> None:
    move(writer, job, JobState.SUBMITTED, now, f"process {queue_id}", queue_id=queue_id, submitted=now)
