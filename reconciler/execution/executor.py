"""The executor: the only place that acts on workers. One lane a worker; a pass moves every job it can.

Intent is written before every effect and the outcome after it, so a pass that dies anywhere is continued
by the next one: a CHECKED_OUT job is uploaded again, an UPLOADED one is looked up by its claim before it
is started again, a finished one is taken in again, which then changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from reconciler.actual.store import Store, Writer
from reconciler.errors import ReconcilerError, TransientError
from reconciler.execution.lifecycle import Observation, Step, next_step
from reconciler.execution.outputs import Outputs
from reconciler.execution.queues import Submission
from reconciler.execution.responses import Result, fail, take_in
from reconciler.execution.transitions import move
from reconciler.execution.worker import Ended, WorkerAccess
from reconciler.model.keys import run_dir
from reconciler.model.records import AppliedConfig, JobRecord, WorkerStatus
from reconciler.model.states import ACTIVE, JobState

QUEUE_INTERVAL = 2.0
"""Seconds between two looks at a worker's queue; the outbox is looked at in every pass."""

BATCH = 200
"""Jobs that leave the store at once."""

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 2.0, 300.0

Extract = Callable[[str, Path], None]
ReadBlobs = Callable[[Sequence[str]], Iterator[tuple[str, bytes]]]


class Executor:
    """Carries the jobs of all workers through their life.

    ``access`` gives the files and the queue of a worker by its name.
    """

    def __init__(
        self,
        store: Store,
        config: AppliedConfig,
        outputs: Outputs,
        access: Callable[[str], WorkerAccess],
    ) -> None:
        self.lanes = [Lane(store, config, outputs, name, access) for name in sorted(config.workers)]

    def advance(self, now: float) -> bool:
        """Move every job that can move; return whether any did."""
        moved = [lane.advance(now) for lane in self.lanes]
        return any(moved)


class Lane:
    """The jobs of one worker. What fails here leaves the other workers alone."""

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
        self.spec = config.workers[name]
        self._access = access
        self._queue_asked = 0.0
        self._starting: set[str] = set()

    def advance(self, now: float) -> bool:
        """Move the jobs of this worker; an outage changes no job and makes the next try later."""
        with self.store.read() as view:
            active = [job for state in ACTIVE for job in view.in_state(state, self.name)]
            ready = view.count_in_state(JobState.READY, self.name)
            status = view.worker_status(self.name)
        if not (active or ready) or (status is not None and now < status.next_try):
            return False
        try:
            moved = self._pass(active, now)
        except TransientError as error:
            self._note_failure(status, str(error), now)
            return False
        if status is None or not status.reachable:
            self.store.write(
                lambda w: w.put_worker_status(self.name, WorkerStatus(reachable=True, last_seen=now))
            )
        return moved

    @property
    def access(self) -> WorkerAccess:
        """The files and the queue of this worker."""
        return self._access(self.name)

    def _pass(self, active: list[JobRecord], now: float) -> bool:
        steps = self._decide(active, now)
        moved = self._take_in(steps, now)
        moved |= self._note(steps, now)
        self._kill([job for job, step in steps if step is Step.KILL])
        upload = [job for job, step in steps if step is Step.UPLOAD]
        start = [job for job, step in steps if step is Step.START]
        upload += self._check_out(now)
        start += self._upload(upload, now)
        self._start(start, now)
        return moved or bool(upload or start)

    # observing ----------------------------------------------------------------------------------------

    def _decide(self, active: Sequence[JobRecord], now: float) -> list[tuple[JobRecord, Step]]:
        on_worker = [job for job in active if job.state in (JobState.SUBMITTED, JobState.RUNNING)]
        markers = self.access.markers() if on_worker else set()
        alive = self._alive([job for job in on_worker if self.access.marker(job) not in markers], now)
        decided = []
        for job in active:
            in_queue = None if alive is None else job.queue_id in alive
            seen = Observation(marker=self.access.marker(job) in markers, in_queue=in_queue)
            decided.append((job, next_step(job, seen, now)))
        return decided

    def _alive(self, jobs: Sequence[JobRecord], now: float) -> set[str] | None:
        urgent = any(job.cancel is not None or job.state is JobState.SUBMITTED for job in jobs)
        interval = QUEUE_INTERVAL / 4 if urgent else QUEUE_INTERVAL
        if not jobs or 0 <= now - self._queue_asked < interval:
            return None
        self._queue_asked = now
        return self.access.queue.alive({job.queue_id: job.submitted or now for job in jobs if job.queue_id})

    # taking in ----------------------------------------------------------------------------------------

    def _take_in(self, steps: Sequence[tuple[JobRecord, Step]], now: float) -> bool:
        ended = [(job, step) for job, step in steps if step in (Step.TAKE_IN, Step.TAKE_IN_LOST)]
        read = [(job, self.access.ending(job, lost=step is Step.TAKE_IN_LOST)) for job, step in ended]
        for _, ending in read:
            if ending.result is not None and ending.result["ok"]:
                self.outputs.save_before(ending.result["documents"], ending.result["blobs"])
        if read:
            self.store.write(lambda writer: self._record_endings(writer, read, now))
            self.access.clear([job for job, ending in read if not ending.still_runs_as])
        return bool(read)

    def _record_endings(self, writer: Writer, read: Sequence[tuple[JobRecord, Ended]], now: float) -> None:
        for job, ending in read:
            if ending.still_runs_as:
                self._adopt(writer, job, ending.still_runs_as, now)
            elif ending.result is not None:
                take_in(writer, job.id, job.attempt, ending.result, self.outputs, self.config, now)
            else:
                current = writer.job(job.id)
                if current is not None and current.attempt == job.attempt and current.state in ACTIVE:
                    fail(writer, current, ending.error, now, ending.state)

    def _adopt(self, writer: Writer, job: JobRecord, queue_id: str, now: float) -> None:
        """An interrupted submission had started the job under another queue id than we know."""
        current = writer.job(job.id)
        if current is not None and current.state in ACTIVE:
            move(
                writer, current, JobState.RUNNING, now, f"found as {queue_id}",
                queue_id=queue_id, missing_since=None, submitted=current.submitted or now,
            )  # fmt: skip

    def _note(self, steps: Sequence[tuple[JobRecord, Step]], now: float) -> bool:
        noted = [(job.id, step) for job, step in steps if step in _NOTES]
        if not noted:
            return False

        def write(writer: Writer) -> None:
            for job_id, step in noted:
                job = writer.job(job_id)
                if job is None or job.state not in (JobState.SUBMITTED, JobState.RUNNING):
                    continue
                if step is Step.NOTE_RUNNING:
                    move(writer, job, JobState.RUNNING, now, missing_since=None)
                else:
                    missing = now if step is Step.NOTE_MISSING else None
                    writer.put_job(msgspec.structs.replace(job, missing_since=missing))

        self.store.write(write)
        return True

    def _kill(self, jobs: Sequence[JobRecord]) -> None:
        if jobs:
            self.access.queue.cancel([job.queue_id for job in jobs if job.queue_id])
            self._queue_asked = 0.0

    # starting -----------------------------------------------------------------------------------------

    def _check_out(self, now: float) -> list[JobRecord]:
        """Take the most urgent READY jobs, as many as the worker's limit allows. This is the intent."""

        def take(writer: Writer) -> list[JobRecord]:
            used = sum(writer.count_in_state(state, self.name) for state in ACTIVE)
            free = BATCH if self.spec.max_jobs is None else min(BATCH, self.spec.max_jobs - used)
            chosen: list[JobRecord] = []
            for job in writer.in_state(JobState.READY, self.name):
                if len(chosen) >= free:
                    break
                chosen.append(job)
            return [self._claim_attempt(writer, job, now) for job in chosen]

        with self.store.read() as view:
            if view.count_in_state(JobState.READY, self.name) == 0:
                return []
            if self.spec.max_jobs is not None:
                used = sum(view.count_in_state(state, self.name) for state in ACTIVE)
                if used >= self.spec.max_jobs:
                    return []
        return self.store.write(take)

    def _claim_attempt(self, writer: Writer, job: JobRecord, now: float) -> JobRecord:
        attempt = job.attempt + 1
        directory = run_dir(self.access.work_dir, job.uuid, job.index, attempt)
        return move(
            writer, job, JobState.CHECKED_OUT, now, f"worker {self.name}",
            attempt=attempt, run_dir=directory, queue_id=None, submitted=None, error=None,
        )  # fmt: skip

    def _upload(self, jobs: Sequence[JobRecord], now: float) -> list[JobRecord]:
        """Write the run directories; a job whose files cannot be made fails alone."""
        impossible: dict[str, str] = {}
        for job in jobs:
            try:
                with self.store.read() as view:
                    payload = view.payload(job.id)
                self.access.upload(job, payload or b"{}", self.config, self.outputs)
            except TransientError:
                raise
            except (ReconcilerError, ValueError, KeyError) as error:
                impossible[job.id] = str(error)

        def write(writer: Writer) -> list[JobRecord]:
            done = []
            for known in jobs:
                job = writer.job(known.id)
                if job is None or job.state is not JobState.CHECKED_OUT:
                    continue
                if job.cancel is not None:
                    move(writer, job, JobState.USER_STOPPED, now, job.cancel, cancel=None)
                elif job.id in impossible:
                    fail(writer, job, impossible[job.id], now, JobState.REMOTE_ERROR)
                else:
                    done.append(move(writer, job, JobState.UPLOADED, now))
            return done

        return self.store.write(write) if jobs else []

    def _start(self, jobs: Sequence[JobRecord], now: float) -> None:
        """Start what was uploaded, unless its claim shows that an interrupted pass has started it."""
        started = {job.id: pid for job in jobs if (pid := self.access.claimed_by(job)) is not None}
        fresh = [job for job in jobs if job.id not in started and job.cancel is None]
        started |= self.access.queue.submit([Submission(job.id, job.run_dir or "") for job in fresh])

        def write(writer: Writer) -> None:
            for known in jobs:
                job = writer.job(known.id)
                if job is None or job.state is not JobState.UPLOADED:
                    continue
                if job.id in started:
                    queue_id = started[job.id]
                    move(
                        writer, job, JobState.SUBMITTED, now, f"process {queue_id}",
                        queue_id=queue_id, submitted=now,
                    )  # fmt: skip
                elif job.cancel is not None:
                    move(writer, job, JobState.USER_STOPPED, now, job.cancel, cancel=None)
                else:
                    fail(writer, job, "its script could not be started", now, JobState.REMOTE_ERROR)

        if jobs:
            self.store.write(write)
            self._queue_asked = 0.0

    def _note_failure(self, status: WorkerStatus | None, reason: str, now: float) -> None:
        failures = (status.failures if status is not None else 0) + 1
        wait = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** (failures - 1))
        last_seen = status.last_seen if status is not None else None
        worse = WorkerStatus(
            reachable=False, last_seen=last_seen, reason=reason, failures=failures, next_try=now + wait
        )
        self.store.write(lambda writer: writer.put_worker_status(self.name, worse))


_NOTES = frozenset({Step.NOTE_RUNNING, Step.NOTE_MISSING, Step.NOTE_FOUND})

__all__ = ["Executor", "Result"]
