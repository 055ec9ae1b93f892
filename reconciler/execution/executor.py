"""The executor: the only place that acts on workers. One lane a worker; a pass moves every job it can.

Intent is written before every effect and the outcome after it, so a pass that dies anywhere is continued
by the next one: a CHECKED_OUT job is uploaded again, an UPLOADED one is looked for before it is submitted
again, a finished one is taken in again, which then changes nothing. The work of a pass is proportional to
the jobs that are active, however many wait; its commands on the worker are at most four.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.errors import TransientError
from reconciler.execution.collect import ResultCollector
from reconciler.execution.lifecycle import Observation, Step, next_step
from reconciler.execution.poll_schedule import PollSchedule
from reconciler.execution.start import JobStarter, OnWorker
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.poll import PollResult
from reconciler.execution.worker_health import WorkerHealth
from reconciler.jobs.outputs import Outputs
from reconciler.jobs.restarts import begin_due
from reconciler.jobs.transitions import move, note
from reconciler.model.manifests import PollInterval
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE, ON_WORKER, JobState

_CLEANED_AT_ONCE = 200
_SOON = 1.0  # seconds until jobs are looked at again that could start, and did not for no known reason
_MAY_BE_THERE = ON_WORKER | {JobState.UPLOADED}
_NOTES = (
    Step.NOTE_RUNNING,
    Step.NOTE_MISSING,
    Step.NOTE_FOUND,
    Step.NOTE_STUCK,
    Step.NOTE_RESUBMIT,
)

Steps = Mapping[Step, Sequence[JobRecord]]


class Executor:
    """Carries the jobs of all workers through their life, one worker after the other."""

    def __init__(self, store: Store, lanes: Sequence[WorkerRunner]) -> None:
        self.store = store
        self.lanes = lanes

    def advance(self, now: float) -> bool:
        """Move every job that can move, and begin the retries that are due; return whether any did."""
        begun = begin_due(self.store, now)
        moved = [lane.advance(now) for lane in self.lanes]
        return begun or any(moved)

    def outages(self) -> dict[str, str]:
        """Return why workers cannot be used now, by name."""
        return {lane.name: reason for lane in self.lanes if (reason := lane.health.outage) is not None}

    def warnings(self) -> list[str]:
        """Return what people should know of workers that can be used; each is told once, ever."""
        return [warning for lane in self.lanes for warning in lane.warnings()]

    def tidy_up(self) -> None:
        """Remove on the workers what was taken in; to be called at the end."""
        for lane in self.lanes:
            lane.tidy_up()


class WorkerRunner(OnWorker):
    """The jobs of one worker. What fails here leaves the other workers alone."""

    def __init__(self, store: Store, outputs: Outputs, name: str, access: Callable[[], WorkerAccess]) -> None:
        super().__init__(store, outputs, name, access)
        self._starter = JobStarter(store, outputs, name, access)
        self._collector = ResultCollector(store, outputs, name, access)
        self._looks: PollSchedule | None = None
        self._urgent = False
        self._strays: set[str] = set()
        self.health = WorkerHealth(store, name)

    @property
    def looks(self) -> PollSchedule:
        """When this worker is looked at."""
        if self._looks is None:
            bounds = self.access.spec.poll_interval or PollInterval()
            self._looks = PollSchedule(bounds, local=self.access.host.is_local)
        return self._looks

    def advance(self, now: float) -> bool:
        """Move the jobs of this worker; an outage changes no job and makes the next try later.

        Raises
        ------
        WorldError
            The store failed: whatever else fails in a pass is a TransientError, an outage of this worker.
        """
        with self.store.read() as view:
            active = [job for state in ACTIVE for job in view.in_state(state, self.name)]
            old = view.due_cleanups(self.name, now, _CLEANED_AT_ONCE)
            work = active or old or view.any_in_state([JobState.READY], self.name)
        if not work:
            return False
        active = self._starter.drop(active, now)
        if self.health.rests(now):
            return False
        try:
            before = self.access.commands
            moved = self._pass(active, now)
            self._clean_up(old)
            asked = self.access.commands > before
        except TransientError as error:
            self.health.failed(error, now)
            return False
        if asked:  # else there was no reason to ask it for anything, and nothing is known
            self.health.answered(now)
        return moved

    def due(self, now: float) -> float | None:
        """Return when another pass is worth while, if nothing happens elsewhere; None if never."""
        with self.store.read() as view:
            on_worker = view.any_in_state(ON_WORKER, self.name)
            waits = on_worker or view.any_in_state((*ACTIVE, JobState.READY), self.name)
            cleanup = view.next_cleanup(self.name)
        times = [cleanup] if cleanup is not None else []
        if on_worker:
            times.append(self.looks.next_look(now, urgent=self._urgent))
        if self._starter.is_full(now):
            times.append(self._starter.full_until)
        elif waits and not on_worker:
            times.append(now + _SOON)
        if times and self.health.rests(now):
            return max(min(times), self.health.status.next_try)
        return min(times, default=None)

    def warnings(self) -> list[str]:
        """Return what is new and people should know of this worker."""
        found = [*self._collector.warnings, *self._starter.warnings]
        self._collector.warnings, self._starter.warnings = [], []
        return found

    def tidy_up(self) -> None:
        """Remove on the worker what was taken in; one that does not answer keeps it until the next time."""
        with contextlib.suppress(TransientError):
            self.access.tidy_up()

    def _pass(self, active: Sequence[JobRecord], now: float) -> bool:
        self.access.prepare(may_create=not any(job.state in _MAY_BE_THERE for job in active))
        seen = self._look(active, now)
        steps = self._decided(active, seen, now)
        moved = self._collector.collect(steps[Step.COLLECT], steps[Step.COLLECT_LOST], now)
        if moved:  # there may be room for others in the queue
            self._starter.full_until = 0.0
        moved |= self._note(steps, seen, now)
        self._kill(steps[Step.KILL], now)
        moved |= self._starter.withdraw(steps[Step.WITHDRAW], now)
        started = self._start(steps[Step.UPLOAD], steps[Step.START], now)
        if started:
            self.looks.ask_again()
        if moved or started:
            self.looks.moved(now)
        return moved or started

    def _start(self, begun: Sequence[JobRecord], uploaded: Sequence[JobRecord], now: float) -> bool:
        """Bring jobs to the queue: those of earlier passes, which it did not take or the worker did not get,
        before any other leaves the store.
        """
        full = self._starter.is_full(now)
        fresh = [] if full or begun or uploaded else self._starter.check_out(now)
        ready = self._starter.upload([*begun, *fresh], now)
        return not full and self._starter.start(ready, uploaded, now)

    # observing ----------------------------------------------------------------------------------------

    def _look(self, active: Sequence[JobRecord], now: float) -> PollResult:
        """Poll the worker if that is due and any job is there."""
        on_worker = [job for job in active if job.state in ON_WORKER]
        if not on_worker or not self.looks.due(now):
            return PollResult(set())
        self._urgent = any(job.cancel is not None or job.state is JobState.SUBMITTED for job in on_worker)
        ask = {}
        if self.looks.queue_due(now, urgent=self._urgent):
            ask = {job.queue_id: job.submitted or now for job in on_worker if job.queue_id}
        seen = self.access.poll(ask)
        self.looks.looked(now, asked=bool(ask))
        self._clear_strays(seen.markers - {self.access.marker(job) for job in on_worker})
        return seen

    def _decided(self, active: Sequence[JobRecord], seen: PollResult, now: float) -> Steps:
        decided: dict[Step, list[JobRecord]] = {step: [] for step in Step}
        for job in active:
            decided[next_step(job, self._observation(job, seen), now)].append(job)
        return decided

    def _observation(self, job: JobRecord, seen: PollResult) -> Observation:
        return Observation(
            marker=self.access.marker(job) in seen.markers,
            asked=seen.entries is not None,
            entry=(seen.entries or {}).get(job.queue_id or ""),
            lost_after=self.access.queue.lost_after,
        )

    def _clear_strays(self, names: set[str]) -> None:
        """Remove markers that an interrupted pass has left behind.

        Only those of jobs that this store knows: another project may share the directory.
        """
        fresh, self._strays = names - self._strays, names
        if fresh:
            with self.store.read() as view:
                known = [(name, view.job(name.rpartition(".")[0])) for name in fresh]
            self.access.forget(name for name, job in known if job is not None and job.state not in ACTIVE)

    def _clean_up(self, old: Mapping[bytes, str]) -> None:
        """Remove run directories whose time has come."""
        if old:
            self.access.discard(old.values())
            self.access.tidy_up()
            self.store.write(lambda writer: writer.delete_cleanups(old))

    # noting and ending --------------------------------------------------------------------------------

    def _note(self, steps: Steps, seen: PollResult, now: float) -> bool:
        noted = [(step, job) for step in _NOTES for job in steps[step]]

        def write(writer: Writer) -> None:
            for step, known in noted:
                job = writer.job(known.id)
                if job is not None and job.state in ON_WORKER:
                    _note_one(writer, step, job, seen, now)

        if noted:
            self.store.write(write)
        return bool(noted)

    def _kill(self, jobs: Sequence[JobRecord], now: float) -> None:
        """Ask the queue to end jobs; the next looks tell whether they are gone."""
        if not jobs:
            return
        problems = self.access.cancel([job.queue_id for job in jobs if job.queue_id])
        self.looks.ask_again()
        refused = {job.id: problems[job.queue_id] for job in jobs if job.queue_id in problems}

        def write(writer: Writer) -> None:
            for job_id, problem in refused.items():
                job = writer.job(job_id)
                if job is not None and job.state in ON_WORKER:
                    _note_stuck(writer, job, f"it cannot be cancelled: {problem}", now)

        if refused:
            self.store.write(write)


def _note_one(writer: Writer, step: Step, job: JobRecord, seen: PollResult, now: float) -> None:
    match step:
        case Step.NOTE_RUNNING:
            move(writer, job, JobState.RUNNING, now, missing_since=None, stuck=None)
        case Step.NOTE_STUCK:
            entry = (seen.entries or {}).get(job.queue_id or "")
            _note_stuck(writer, job, entry.never if entry is not None else "", now)
        case Step.NOTE_RESUBMIT:
            reason = "its run config was changed, and as submitted it can never start"
            note(writer, job, "Resubmitting", reason, now, attempt=job.attempt)
            writer.put_job(msgspec.structs.replace(job, cancel=reason, again=True))
        case _:
            since = now if step is Step.NOTE_MISSING else None
            writer.put_job(msgspec.structs.replace(job, missing_since=since))


def _note_stuck(writer: Writer, job: JobRecord, why: str, now: float) -> None:
    if why == (job.stuck or ""):
        return
    stuck = msgspec.structs.replace(job, stuck=why or None)
    note(writer, stuck, "Stuck" if why else "Unstuck", why or "it can start now", now, attempt=job.attempt)
    writer.put_job(stuck)
