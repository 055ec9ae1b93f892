"""The executor: the only place that acts on workers. One lane a worker; a pass moves every job it can.

Intent is written before every effect and the outcome after it, so a pass that dies anywhere is continued
by the next one: a CHECKED_OUT job is uploaded again, an UPLOADED one is looked up by its claim before it
is started again, a finished one is taken in again, which then changes nothing. The work of a pass is
proportional to the jobs that are active, however many wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from reconciler.actual.store import Store, Writer
from reconciler.errors import InputError, TransientError
from reconciler.execution.lifecycle import Observation, Step, next_step
from reconciler.execution.outputs import Outputs
from reconciler.execution.responses import fail, take_in
from reconciler.execution.starting import OnWorker, Starter
from reconciler.execution.transitions import move
from reconciler.execution.worker import Ended, WorkerAccess
from reconciler.model.records import AppliedConfig, JobRecord, WorkerStatus
from reconciler.model.states import ACTIVE, ON_WORKER, JobState

QUEUE_INTERVAL = 2.0
"""Seconds between two looks at a worker's queue; the outbox is looked at in every pass."""

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 2.0, 300.0

Steps = Mapping[Step, Sequence[JobRecord]]


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

    def outages(self) -> dict[str, str]:
        """Return why workers cannot be used now, by name."""
        return {lane.name: reason for lane in self.lanes if (reason := lane.outage()) is not None}


class Lane(OnWorker):
    """The jobs of one worker. What fails here leaves the other workers alone."""

    def __init__(
        self,
        store: Store,
        config: AppliedConfig,
        outputs: Outputs,
        name: str,
        access: Callable[[str], WorkerAccess],
    ) -> None:
        super().__init__(store, config, outputs, name, access)
        self._starter = Starter(store, config, outputs, name, access)
        self._queue_asked = 0.0
        self._strays: set[str] = set()

    def advance(self, now: float) -> bool:
        """Move the jobs of this worker; an outage changes no job and makes the next try later."""
        with self.store.read() as view:
            active = [job for state in ACTIVE for job in view.in_state(state, self.name)]
            work = bool(active) or view.any_in_state([JobState.READY], self.name)
            status = view.worker_status(self.name)
        if not work:
            return False
        active = self._starter.drop(active, now)
        if status is not None and now < status.next_try:
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

    def outage(self) -> str | None:
        """Return why this worker cannot be used now, if so."""
        with self.store.read() as view:
            status = view.worker_status(self.name)
        return None if status is None or status.reachable else status.reason

    def _pass(self, active: Sequence[JobRecord], now: float) -> bool:
        steps = self._decide(active, now)
        moved = self._take_in(steps, now)
        moved |= self._note(steps, now)
        self._kill(steps[Step.KILL])
        moved |= self._starter.withdraw(steps[Step.WITHDRAW], now)
        uploaded = self._starter.upload([*steps[Step.UPLOAD], *self._starter.check_out(now)], now)
        started = self._starter.start([*steps[Step.START], *uploaded], now)
        if started:
            self._queue_asked = 0.0
        return moved or started

    # observing ----------------------------------------------------------------------------------------

    def _decide(self, active: Sequence[JobRecord], now: float) -> Steps:
        on_worker = [job for job in active if job.state in ON_WORKER]
        markers = self.access.markers() if on_worker else set()
        self._clear_strays(markers - {self.access.marker(job) for job in on_worker})
        alive = self._alive([job for job in on_worker if self.access.marker(job) not in markers], now)
        decided: dict[Step, list[JobRecord]] = {step: [] for step in Step}
        for job in active:
            in_queue = None if alive is None else job.queue_id in alive
            seen = Observation(marker=self.access.marker(job) in markers, in_queue=in_queue)
            decided[next_step(job, seen, now)].append(job)
        return decided

    def _clear_strays(self, names: set[str]) -> None:
        """Remove markers that an interrupted pass has left behind.

        Only those of jobs that this store knows: another project may share the directory.
        """
        fresh = names - self._strays
        self._strays |= fresh
        if fresh:
            with self.store.read() as view:
                known = [(name, view.job(name.rpartition(".")[0])) for name in fresh]
            self.access.clear_markers(
                [name for name, job in known if job is not None and job.state not in ACTIVE]
            )

    def _alive(self, jobs: Sequence[JobRecord], now: float) -> set[str] | None:
        urgent = any(job.cancel is not None or job.state is JobState.SUBMITTED for job in jobs)
        interval = QUEUE_INTERVAL / 4 if urgent else QUEUE_INTERVAL
        if not jobs or 0 <= now - self._queue_asked < interval:
            return None
        self._queue_asked = now
        return self.access.queue.alive({job.queue_id: job.submitted or now for job in jobs if job.queue_id})

    # taking in ----------------------------------------------------------------------------------------

    def _take_in(self, steps: Steps, now: float) -> bool:
        read = [(job, self.access.ending(job, lost=False)) for job in steps[Step.TAKE_IN]]
        read += [(job, self.access.ending(job, lost=True)) for job in steps[Step.TAKE_IN_LOST]]
        saved = [(job, self._saved(ending)) for job, ending in read]
        self._record(saved, now)
        self.access.clear([job for job, ending in saved if not ending.still_runs_as])
        return bool(saved)

    def _saved(self, ending: Ended) -> Ended:
        """Write the outputs where they must be before the job counts as completed."""
        result = ending.result
        if result is None or not result.ok:
            return ending
        try:
            self.outputs.save_before(result.documents, result.blobs)
        except InputError as error:
            return _not_kept(error)
        return ending

    def _record(self, endings: Sequence[tuple[JobRecord, Ended]], now: float) -> None:
        """Record all endings at once; if one holds what cannot be kept, that job alone fails."""
        if not endings:
            return
        try:
            self.store.write(lambda writer: self._record_endings(writer, endings, now))
        except (ValueError, TypeError, KeyError) as error:
            if len(endings) > 1:
                for one in endings:
                    self._record([one], now)
            elif endings[0][1].result is not None:
                self._record([(endings[0][0], _not_kept(error))], now)
            else:
                raise

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

    def _note(self, steps: Steps, now: float) -> bool:
        noted: list[tuple[JobRecord, float | None]] = [
            *((job, None) for job in steps[Step.NOTE_RUNNING]),
            *((job, now) for job in steps[Step.NOTE_MISSING]),
            *((job, None) for job in steps[Step.NOTE_FOUND]),
        ]
        running = {job.id for job in steps[Step.NOTE_RUNNING]}

        def write(writer: Writer) -> None:
            for known, missing_since in noted:
                job = writer.job(known.id)
                if job is None or job.state not in ON_WORKER:
                    continue
                if job.id in running:
                    move(writer, job, JobState.RUNNING, now, missing_since=None)
                else:
                    writer.put_job(msgspec.structs.replace(job, missing_since=missing_since))

        if noted:
            self.store.write(write)
        return bool(noted)

    def _kill(self, jobs: Sequence[JobRecord]) -> None:
        if jobs:
            self.access.queue.cancel([job.queue_id for job in jobs if job.queue_id])
            self._queue_asked = 0.0

    def _note_failure(self, status: WorkerStatus | None, reason: str, now: float) -> None:
        failures = (status.failures if status is not None else 0) + 1
        wait = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** (failures - 1))
        last_seen = status.last_seen if status is not None else None
        worse = WorkerStatus(
            reachable=False, last_seen=last_seen, reason=reason, failures=failures, next_try=now + wait
        )
        self.store.write(lambda writer: writer.put_worker_status(self.name, worse))


def _not_kept(error: Exception) -> Ended:
    return Ended(error=f"its output cannot be kept: {error}", state=JobState.REMOTE_ERROR)
