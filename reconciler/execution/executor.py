"""The executor: the only place that acts on workers. A pass of a worker moves every job that can move.

Intent is written before every effect and the outcome after it, so the next pass continues one that died
anywhere: a CHECKED_OUT job is uploaded again, an UPLOADED one is searched for before it is submitted again,
and an ended one is collected again, which then changes nothing. The work of a pass is proportional to the
number of active jobs, however many wait; it runs at most four commands on the worker, and one more when it
submits allocations.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping, Sequence

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.errors import InputError, ReconcilerError, TransientError
from reconciler.execution.batch.allocations import AllocationKeeper
from reconciler.execution.cleanup import unread
from reconciler.execution.collect import REQUEUED, ResultCollector
from reconciler.execution.lifecycle import Observation, Step, next_step
from reconciler.execution.pacing import PollSchedule, WorkerHealth
from reconciler.execution.problems import describe_error, note_problem, note_stuck
from reconciler.execution.run_files import marker_name
from reconciler.execution.start import JobStarter
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.poll import PollResult
from reconciler.jobs.outputs import Outputs
from reconciler.jobs.restarts import begin_due
from reconciler.jobs.transitions import move, note
from reconciler.model.manifests import PollInterval
from reconciler.model.records import Cancellation, JobRecord
from reconciler.model.retries import Cause
from reconciler.model.states import ACTIVE, FINISHED, ON_WORKER, JobState

_CLEANUP_BATCH = 200
_CLEANUP_INTERVAL = 10.0
"""Seconds until directories are looked at again that a job may still read."""
_LEAVE_INTERVAL = 1.0
"""Seconds until left attempts are looked at again of which none was over."""
_RETRY_INTERVAL = 1.0
"""Seconds until the next pass for jobs that could have started and did not, for no known reason."""
_UPLOADED = ON_WORKER | {JobState.UPLOADED}
"""States of jobs whose run directories exist on the worker."""

Steps = Mapping[Step, Sequence[JobRecord]]


class Executor:
    """Moves the jobs of all workers, one worker after the other."""

    def __init__(self, store: Store, runners: Sequence[WorkerRunner]) -> None:
        self.store = store
        self.runners = runners

    def advance(self, now: float) -> bool:
        """Move every job that can move, and begin the retries that are due; return whether any job moved.

        An unexpected error ends the pass of one worker only, as an outage.
        """
        moved = begin_due(self.store, now)
        for runner in self.runners:
            try:
                moved |= runner.advance(now)
            except ReconcilerError:
                raise
            except Exception as error:
                reason = f"a bug in reconciler: {describe_error(error)}"
                runner.health.failed(TransientError(reason, hint="please report it"), now)
        return moved

    def outages(self) -> dict[str, str]:
        """Return why workers cannot be used now, by name."""
        return {
            runner.name: reason for runner in self.runners if (reason := runner.health.outage) is not None
        }

    def warnings(self) -> list[str]:
        """Return new warnings about workers that can be used; each is returned once."""
        return [warning for runner in self.runners for warning in runner.warnings()]

    def tidy_up(self) -> None:
        """Remove collected files on the workers, at the end of the program."""
        for runner in self.runners:
            runner.tidy_up()


class WorkerRunner:
    """Moves the jobs of one worker. Its failures do not affect other workers.

    ``access`` gives the worker's files and queue; it is called on first use.
    """

    def __init__(self, store: Store, outputs: Outputs, name: str, access: Callable[[], WorkerAccess]) -> None:
        self.store = store
        self.name = name
        self.health = WorkerHealth(store, name)
        self._access = access
        self._starter = JobStarter(store, outputs, name, access)
        self._collector = ResultCollector(store, outputs, name, access)
        self._allocations = AllocationKeeper(store, name)
        self._schedule: PollSchedule | None = None
        self._urgent = False
        self._strays: set[str] = set()
        self._stray_tickets: set[str] = set()
        self._kept_directories = 0
        self._next_cleanup = 0.0
        self._next_leave = 0.0

    @property
    def access(self) -> WorkerAccess:
        """The files and the queue of the worker."""
        return self._access()

    @property
    def schedule(self) -> PollSchedule:
        """When the worker is polled."""
        if self._schedule is None:
            bounds = self.access.spec.poll_interval or PollInterval()
            self._schedule = PollSchedule(bounds, local=self.access.host.is_local)
        return self._schedule

    def advance(self, now: float) -> bool:
        """Make one pass; return whether any job moved. An outage changes no job and delays the next try.

        Raises
        ------
        WorldError
            The store failed. Any other expected failure is a TransientError, an outage of this worker.
        """
        with self.store.read() as view:
            active = [job for state in ACTIVE for job in view.in_state(state, self.name)]
            cleanups = self._due_cleanups(view, now)
            alive = bool(self._allocations.alive())
            left = self._starter.left_here(view) if self._next_leave <= now else []
            late = self._late_owed(view, now)
            ready = view.any_in_state([JobState.READY], self.name)
            work = active or cleanups or alive or ready or left or late
        if not work:
            return False
        active = self._starter.drop(active, now)
        if self.health.backs_off(now):
            return False
        try:
            before = self.access.commands
            moved = self._pass(active, left, now, late_owed=late)
            if cleanups:
                for path in self.access.discard(cleanups.values()):
                    self._collector.warnings.append(
                        f"worker {self.name}: {shlex.quote(path)} is not removed, because it is not in its "
                        f"work_dir {self.access.work_dir}; remove it yourself if it is not needed"
                    )
                self.access.tidy_up()
                self.store.write(lambda writer: writer.delete_cleanups(cleanups))
            answered = self.access.commands > before
        except TransientError as error:
            self.health.failed(error, now)
            return False
        if answered:  # without a command, nothing new is known
            self.health.answered(now)
        return moved

    def due(self, now: float) -> float | None:
        """Return when the next pass can find work without an event elsewhere, or None if never."""
        with self.store.read() as view:
            on_worker = view.any_in_state(ON_WORKER, self.name)
            waiting = on_worker or not view.is_idle(self.name)
            cleanup = view.next_cleanup(self.name)
            left = self._starter.left_here(view)
            on_worker = on_worker or self._late_owed(view, now)
        on_worker = on_worker or bool(self._allocations.alive())
        times = [max(cleanup, self._next_cleanup)] if cleanup is not None else []
        if on_worker:
            times.append(self.schedule.next_poll(now, urgent=self._urgent))
        if left:
            times.append(max(now, self._next_leave))
        next_try = self._starter.next_try(now)
        if next_try is not None:
            times.append(next_try)
        elif waiting and not on_worker:
            times.append(now + _RETRY_INTERVAL)
        if times and self.health.backs_off(now):
            return max(min(times), self.health.status.next_try)
        return min(times, default=None)

    def _due_cleanups(self, view: View, now: float) -> dict[bytes, str]:
        """Return the run directories to remove; those that a job may still read are looked at again later."""
        if 0 < self._next_cleanup - now <= _CLEANUP_INTERVAL:
            return {}
        due = view.due_cleanups(self.name, now, _CLEANUP_BATCH + self._kept_directories)
        free = unread(view, due)
        self._kept_directories = len(due) - len(free)
        self._next_cleanup = now + _CLEANUP_INTERVAL if self._kept_directories else 0.0
        return free

    def warnings(self) -> list[str]:
        """Return new warnings about the worker; each is returned once."""
        found = [*self._collector.warnings, *self._starter.warnings]
        self._collector.warnings, self._starter.warnings = [], []
        return found

    def tidy_up(self) -> None:
        """Remove collected files on the worker; if it does not answer, the next process removes them."""
        with contextlib.suppress(TransientError):
            self.access.tidy_up()

    def _late_owed(self, view: View, now: float) -> bool:
        """Return whether an attempt that counted as lost here may still deliver a result."""
        here = f"{self.access.work_dir}/"
        return any(
            job.may_deliver(now)
            for job in view.left_on(self.name)
            if (job.attempt.run_dir or "").startswith(here)
        )

    def _pass(
        self, active: Sequence[JobRecord], left: Sequence[JobRecord], now: float, *, late_owed: bool
    ) -> bool:
        here = f"{self.access.work_dir}/"
        used = late_owed or any(one.run_dir.startswith(here) for job in left for one in job.left)
        self.access.prepare(may_create=not (used or any(job.state in _UPLOADED for job in active)))
        polled = self._poll(active, now, late_owed=late_owed)
        steps: dict[Step, list[JobRecord]] = {step: [] for step in Step}
        for job in active:
            seen = Observation(
                marker=marker_name(job) in polled.markers,
                asked=polled.entries is not None,
                entry=(polled.entries or {}).get(job.attempt.queue_id or ""),
                lost_after=self.access.queue.lost_after,
            )
            try:
                step = next_step(job, seen, now)
                unclaimed = seen.entry is not None and seen.entry.unclaimed and not job.cancelling
                if unclaimed and self.access.spec.batch is None:
                    step = Step.TAKE_BACK  # the worker is a batch worker no longer
                steps[step].append(job)
            except Exception as error:
                note_problem(self.store, job, f"its next step is unknown: {describe_error(error)}", now)

        entries = polled.entries or {}
        waiting = {
            queue_id for queue_id, entry in entries.items() if entry.is_pending and not entry.unclaimed
        }
        pending = {job.id for job in active if job.attempt.queue_id in waiting}
        listed = None
        if polled.entries is not None:
            listed = {job.id for job in active if job.attempt.queue_id in entries}
        collected = steps[Step.COLLECT]
        moved = self._collector.collect(collected, steps[Step.COLLECT_LOST], pending, listed, now)
        unproven = [job for job in collected if job.id in self._collector.unproven]
        if unproven and listed is None:
            self.schedule.ask_queue_soon()
        steps[Step.KILL] += (job for job in unproven if job.cancelling and job.id in (listed or ()))
        if moved:
            self._starter.job_ended()
            self._next_cleanup = min(self._next_cleanup, now + 1.0)
        moved |= self._note(steps, polled, now)
        self._kill(steps[Step.KILL], now)
        moved |= self._starter.take_back(steps[Step.TAKE_BACK], now)
        moved |= self._starter.withdraw(steps[Step.WITHDRAW], now)
        if left:
            over = self._starter.leave(left, now)
            moved |= over
            self._next_leave = 0.0 if over else now + _LEAVE_INTERVAL

        # Jobs that earlier passes could not upload or submit go first: no others leave the store until then.
        begun, uploaded = steps[Step.UPLOAD], steps[Step.START]
        fresh = [] if begun or uploaded else self._starter.check_out(now)
        ready = self._starter.upload([*begun, *fresh], now)
        started = self._starter.start(ready, uploaded, now)
        self._allocate(now)
        if started:
            self.schedule.ask_queue_soon()
        if moved or started:
            self.schedule.moved(now)
        return moved or started

    def _poll(self, active: Sequence[JobRecord], now: float, *, late_owed: bool) -> PollResult:
        """Poll the worker if that is due and any job is there, or a lost one that may end after all."""
        on_worker = [job for job in active if job.state in ON_WORKER]
        known = self._allocations.known
        self.access.queue.allocations = {one.name: one.queue_id for one in known if one.queue_id}
        anything = on_worker or late_owed or any(one.ended is None for one in known)
        if not anything or not self.schedule.due(now):
            return PollResult(set())
        self._urgent = any(job.cancelling or job.state is JobState.SUBMITTED for job in on_worker)
        ask = {}
        if self.schedule.queue_due(now, urgent=self._urgent):
            ask = {
                job.attempt.queue_id: (job.attempt.run_dir or "").rpartition("/")[2]
                for job in on_worker
                if job.attempt.queue_id
            }
            ask |= self._allocations.asked(now)
        polled = self.access.poll(ask)
        self.schedule.polled(now, asked=bool(ask))
        if polled.entries is not None:
            queue = self.access.queue
            failed, forgotten = self._allocations.observe(queue, polled.entries, now)
            for name in failed:
                self._allocations.failed(name, self.access.agent_log(name))
                self.access.take_inventory()
            self.access.discard_allocations(forgotten)
            self._clear_tickets({marker_name(job) for job in on_worker})
        self._clear_strays(polled.markers - {marker_name(job) for job in on_worker}, now)
        return polled

    def _allocate(self, now: float) -> None:
        """Submit the allocations that the jobs of a batch worker need.

        Raises
        ------
        TransientError
            The worker does not answer, or its scheduler does not accept them now.
        """
        if self.access.spec.batch is None:
            return
        reason = self._allocations.backs_off(now)
        if reason is not None:
            hint = "see the `log` in its directory below .batch, and `python:` of the worker"
            raise TransientError(reason, hint=hint)
        wanted = self._allocations.intend(self.access.spec, now)
        if not wanted:
            return
        try:
            self._starter.send_programs()
            ids, problem = self.access.allocate(wanted)
        except InputError as error:
            raise TransientError(error.message, hint=error.hint) from error
        self._allocations.submitted(ids)
        self.schedule.ask_queue_soon()
        if problem:
            raise TransientError(f"an allocation could not be submitted: {problem}")

    def _clear_strays(self, names: set[str], now: float) -> None:
        """Remove markers that an interrupted pass has left behind; collect an attempt that counted as lost.

        Only markers of jobs in this store are removed, since another project can use the same directory.
        """
        fresh, self._strays = names - self._strays, names
        if fresh:
            with self.store.read() as view:
                known = [(name, view.job(name.rpartition(".")[0])) for name in fresh]
            late = [job for name, job in known if job is not None and _is_late(job, name)]
            if late:
                self.store.write(lambda writer: _take_back(writer, late, now))
            kept = {marker_name(job) for job in late}
            self.access.forget(
                name
                for name, job in known
                if job is not None
                and (job.state not in ACTIVE or _is_of_earlier_attempt(job, name))
                and name not in kept
            )

    def _clear_tickets(self, current: set[str]) -> None:
        """Remove tickets of attempts that are over, such as those that were taken back."""
        names = self.access.queue.handed_over.tickets.keys() - current
        fresh, self._stray_tickets = names - self._stray_tickets, names
        if fresh:
            with self.store.read() as view:
                known = [(name, view.job(name.rpartition(".")[0])) for name in fresh]
            self.access.forget(
                name
                for name, job in known
                if job is not None and (job.state not in ACTIVE or marker_name(job) != name)
            )

    def _note(self, steps: Steps, polled: PollResult, now: float) -> bool:
        """Record what the poll shows of jobs that stay on the worker; return whether there was anything."""
        entries = polled.entries or {}

        def on_worker(writer: Writer, step: Step) -> list[JobRecord]:
            records = [writer.job(job.id) for job in steps[step]]
            return [job for job in records if job is not None and job.state in ON_WORKER]

        def write(writer: Writer) -> None:
            for job in on_worker(writer, Step.NOTE_RUNNING):
                move(writer, job, JobState.RUNNING, now, attempt=job.attempt.settled)
            for job in on_worker(writer, Step.NOTE_REQUEUED):
                move(writer, job, JobState.SUBMITTED, now, REQUEUED, attempt=job.attempt.settled)
            for job in on_worker(writer, Step.NOTE_MISSING):
                writer.put_job(msgspec.structs.replace(job, attempt=job.attempt_with(missing_since=now)))
            for job in on_worker(writer, Step.NOTE_FOUND):
                writer.put_job(msgspec.structs.replace(job, attempt=job.attempt_with(missing_since=None)))
            for job in on_worker(writer, Step.NOTE_STUCK):
                entry = entries.get(job.attempt.queue_id or "")
                note_stuck(writer, job, entry.never if entry is not None else "", now)
            for job in on_worker(writer, Step.NOTE_WAITING):
                if (entry := entries.get(job.attempt.queue_id or "")) is not None:
                    attempt = job.attempt_with(waiting=entry.waiting or None, expected_start=entry.start)
                    writer.put_job(msgspec.structs.replace(job, attempt=attempt))
            for job in on_worker(writer, Step.NOTE_RESUBMIT):
                reason = "its run config was changed, and as submitted it can never start"
                note(writer, job, "Resubmitting", reason, now, attempt=job.attempt.number)
                writer.put_job(
                    msgspec.structs.replace(job, cancellation=Cancellation(reason=reason, rerun=True))
                )

        if any(steps[step] for step in _NOTES):
            self.store.write(write)
        # Why a job waits changes often, and calls for no further pass.
        return any(steps[step] for step in _NOTES if step is not Step.NOTE_WAITING)

    def _kill(self, jobs: Sequence[JobRecord], now: float) -> None:
        """Cancel jobs in the queue; the next polls show whether they are gone."""
        if not jobs:
            return
        problems = self.access.cancel([job.attempt.queue_id for job in jobs if job.attempt.queue_id])
        self.schedule.ask_queue_soon()
        refused = {job.id: problems[job.attempt.queue_id] for job in jobs if job.attempt.queue_id in problems}

        def write(writer: Writer) -> None:
            for job_id, problem in refused.items():
                job = writer.job(job_id)
                if job is not None and job.state in ON_WORKER:
                    note_stuck(writer, job, f"it cannot be cancelled: {problem}", now)

        if refused:
            self.store.write(write)


def _is_late(job: JobRecord, marker: str) -> bool:
    """Return whether this marker is of an attempt that counted as lost, and that no other has followed."""
    return job.state in FINISHED and job.cause == Cause.LOST and marker_name(job) == marker


def _is_of_earlier_attempt(job: JobRecord, marker: str) -> bool:
    number = marker.rpartition(".")[2]
    return number.isdecimal() and int(number) < job.attempt.number


def _take_back(writer: Writer, jobs: Sequence[JobRecord], now: float) -> None:
    for known in jobs:
        job = writer.job(known.id)
        if job is not None and _is_late(job, marker_name(known)):
            move(writer, job, JobState.RUN_FINISHED, now, "it was not lost: it has ended just now")


_NOTES = (
    Step.NOTE_RUNNING,
    Step.NOTE_REQUEUED,
    Step.NOTE_MISSING,
    Step.NOTE_FOUND,
    Step.NOTE_STUCK,
    Step.NOTE_WAITING,
    Step.NOTE_RESUBMIT,
)
