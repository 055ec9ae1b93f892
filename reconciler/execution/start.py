"""From READY to SUBMITTED: check jobs out of the store, upload their run directories, submit them.

Also the way back: cancelling a job that may not have started yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.errors import TransientError
from reconciler.execution.claims import left_attempts
from reconciler.execution.run_files import next_attempt
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.submit import SubmitResult, target_of
from reconciler.execution.worker.upload import BundleContents
from reconciler.jobs.outputs import Outputs
from reconciler.jobs.responses import fail
from reconciler.jobs.restarts import give_back
from reconciler.jobs.transitions import move, note
from reconciler.model.flows import is_run_dir, run_dir
from reconciler.model.records import Event, JobRecord, LeftAttempt
from reconciler.model.states import ACTIVE, PENDING, JobState

BATCH = 100
"""Jobs that are checked out together and share one upload and one submission command."""

_LEAST_AHEAD, _AHEAD = 1000, 20
"""Jobs that a batch worker has at a time: at least this many, and this many for each slot."""

_FIRST_WAIT, _LONGEST_TARGET_WAIT, _LONGEST_WAIT = 30.0, 60.0, 300.0
"""Seconds until something that was not accepted is tried again: a target, or a single job."""

_TIME_TO_END = 10.0
"""Seconds in which a script ends whose claim was withdrawn; it looks once a second."""

_GIVEN_UP = PENDING | {JobState.STOPPED, JobState.USER_STOPPED}
"""States in which a result of an earlier attempt does not count."""


class _Refused(msgspec.Struct):
    """A target or a job that was not accepted: how often, and until when it is not tried again."""

    times: int = 0
    until: float = 0.0

    def is_over(self, now: float) -> bool:
        """Return whether it may be tried again; also true if the clock was set back."""
        return not 0 < self.until - now <= _LONGEST_WAIT


def _refuse(known: dict[str, _Refused], key: str, now: float, longest: float) -> None:
    refused = known.setdefault(key, _Refused())
    refused.until = now + min(longest, _FIRST_WAIT * 2**refused.times)
    refused.times = min(refused.times + 1, 10)


class JobStarter:
    """Starts the jobs of one worker.

    A job that the scheduler does not accept now is READY again: it can be edited and takes no place of
    ``max_jobs``. While its target (queue, partition, QOS, account) accepts no jobs, jobs for the same target
    stay READY; then one of them is tried first. The caller takes new ``warnings`` from the list.
    """

    def __init__(self, store: Store, outputs: Outputs, name: str, access: Callable[[], WorkerAccess]) -> None:
        self.store = store
        self.outputs = outputs
        self.name = name
        self.warnings: list[str] = []
        self._access = access
        self._targets: dict[str, _Refused] = {}
        self._jobs: dict[str, _Refused] = {}
        self._closed = ""
        self._ending: dict[str, float] = {}

    def job_ended(self) -> None:
        """Try all targets again soon: the queue may have room."""
        for refused in self._targets.values():
            refused.until = 0.0

    def next_try(self, now: float) -> float | None:
        """Return when something that was not accepted is tried again."""
        waits = [*self._targets.values(), *self._jobs.values()]
        return min((one.until for one in waits if not one.is_over(now)), default=None)

    def check_out(self, now: float) -> list[JobRecord]:
        """Check out the most urgent READY jobs, as many as the worker's limit allows: the written intent.

        None start on a worker that the applied revision has removed or made invalid, and none whose earlier
        attempt may still run: the claim of that attempt is withdrawn first, on its own worker.
        """

        def free(view: View) -> int:
            spec = self._access().spec
            limit = spec.max_jobs
            if limit is not None and spec.batch is not None:  # it counts allocations
                limit = max(_LEAST_AHEAD, _AHEAD * limit * spec.batch.parallel_jobs)
            if limit is None:
                return BATCH
            active = sum(view.count_in_state(state, self.name) for state in ACTIVE)
            return max(0, min(BATCH, limit - active))

        def choose(view: View) -> list[JobRecord]:
            jobs = view.in_state(JobState.READY, self.name)
            if blocked:
                jobs = (job for job in jobs if not self._blocking(job))
            if self._targets or self._jobs:
                jobs = self._acceptable(jobs, now)
            return list(islice(jobs, free(view)))

        def write(writer: Writer) -> list[JobRecord]:
            for job in _still(writer, blocked, JobState.READY):
                if (waiting := self._why_blocked(writer, job)) != job.attempt.waiting:
                    writer.put_job(msgspec.structs.replace(job, attempt=job.attempt_with(waiting=waiting)))
            return [self._begin_attempt(writer, job, now) for job in choose(writer)]

        with self.store.read() as view:
            config = view.config()
            reason = config.closed_workers.get(self.name, "") if config is not None else ""
            if reason and reason != self._closed:
                self.warnings.append(f"worker {self.name}: {reason}, so no further jobs start there")
            self._closed = reason
            if reason:
                return []
            blocked = [
                job
                for job in view.left_on()
                if job.state is JobState.READY and job.config.worker_name == self.name and self._blocking(job)
            ]
            possible = view.any_in_state([JobState.READY], self.name) and free(view) > 0
            if possible and (self._targets or self._jobs or blocked):
                news = any(self._why_blocked(view, job) != job.attempt.waiting for job in blocked)
                possible = news or bool(choose(view))
        return self.store.write(write) if possible else []

    def _blocking(self, job: JobRecord) -> list[LeftAttempt]:
        """Return the attempts that a job has left and that may run, except one that would start again here.

        The claim of that one, which was not accepted, is also that of the next attempt.
        """
        if not job.left:
            return []
        access, attempt = self._access(), job.attempt
        if job.state is not JobState.CHECKED_OUT:
            attempt = next_attempt(job, access.work_dir, self.name, access.host.name).attempt
        return [one for one in left_attempts(job) if one != attempt.as_left]

    def _why_blocked(self, view: View, job: JobRecord) -> str:
        """Return why a job waits for an attempt that it has left, and how to go on anyway."""
        one = self._blocking(job)[0]
        status = view.worker_status(one.worker)
        answer = f" ({status.reason})" if status is not None and not status.reachable else ""
        moved = one.worker == self.name and one.host not in (None, self._access().host.name)
        host = f" on {one.host}" if moved else ""
        return (
            f"an earlier attempt on worker '{one.worker}'{host} may still run; its claim is withdrawn "
            f"first{answer}. To start without that: `reconcile abandon {job.path}`"
        )

    def left_here(self, view: View) -> list[JobRecord]:
        """Return the jobs that have left an attempt on this worker which must not run any more.

        A failed job is not among them, since its lost attempt may still deliver the result.
        """

        def starts_here(job: JobRecord) -> bool:
            return job.state in PENDING and job.config.worker_name == self.name and not self._blocking(job)

        return [job for job in view.left_on(self.name) if job.state in _GIVEN_UP and not starts_here(job)]

    def leave(self, jobs: Sequence[JobRecord], now: float) -> bool:
        """Withdraw the claims of attempts that jobs have left on this worker; return whether any is over.

        A script that runs gets some seconds to end. A run directory that does not exist has no script either,
        but only on the host that it was on.

        Raises
        ------
        TransientError
            The worker does not answer.
        """
        host = self._access().host.name
        mine = [(job, one) for job in jobs for one in job.left if one.worker == self.name]
        ours = [one for job, one in mine if one in left_attempts(job)]  # others are places of no job of ours
        found = self._access().leave([one.run_dir for one in ours]) if ours else {}

        def is_over(one: LeftAttempt) -> bool:
            match found.get(one.run_dir, ""):
                case "left":
                    return True
                case "absent":
                    return one.host in (None, host)
                case "ending":
                    return not 0 <= now - self._ending.setdefault(one.run_dir, now) < _TIME_TO_END
            return one not in ours

        over = [one for _, one in mine if is_over(one)]
        if not over:
            return False

        def write(writer: Writer) -> None:
            for known in jobs:
                job = writer.job(known.id)
                gone = [one for one in job.left if one in over] if job is not None else []
                if job is None or not gone or job.state not in _GIVEN_UP:
                    continue
                for one in gone:
                    text = f"the attempt in {one.run_dir} on worker {self.name} cannot run any more"
                    note(writer, job, "Withdrawn", text, now, attempt=job.attempt.number or None)
                left = [one for one in job.left if one not in over]
                attempt = job.attempt_with(waiting=None)
                writer.put_job(msgspec.structs.replace(job, left=left, attempt=attempt))

        self.store.write(write)
        for one in over:
            self._ending.pop(one.run_dir, None)
        return True

    def _acceptable(self, jobs: Iterable[JobRecord], now: float) -> Iterator[JobRecord]:
        """Yield the jobs that may be accepted; only the first one of a target that was refused before."""
        tried = set()
        for job in jobs:
            target = target_of(job, self._access().queue)
            refused = self._targets.get(target)
            own = self._jobs.get(job.id)
            if own is not None and not own.is_over(now):
                continue
            if refused is not None and (target in tried or not refused.is_over(now)):
                continue
            tried.add(target)
            yield job

    def _begin_attempt(self, writer: Writer, job: JobRecord, now: float) -> JobRecord:
        access = self._access()
        begun = next_attempt(job, access.work_dir, self.name, access.host.name)
        return move(writer, begun, JobState.CHECKED_OUT, now, f"worker {self.name}", error=None, cause=None)

    def upload(self, jobs: Sequence[JobRecord], now: float) -> list[JobRecord]:
        """Upload the run directories; return the jobs to submit. A job whose files cannot be made fails.

        Raises
        ------
        TransientError
            The worker, or the store of outputs, cannot be used now; no job has changed.
        """
        away = [job for job in jobs if not self._is_in_place(job)]
        if away:  # the worker has another place since, or a restored record names a foreign one

            def begin_again(writer: Writer) -> None:
                for job in _still(writer, away, JobState.CHECKED_OUT):
                    if self._blocking(job):
                        give_back(writer, job, "its worker has another host since", now)
                    else:
                        self._begin_attempt(writer, job, now)

            self.store.write(begin_again)
        jobs = [job for job in jobs if job not in away]
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
                left = job.without(job.attempt)
                submitted = left != job.left  # an earlier answer was that it is not accepted
                if (restored or submitted) and job.id in uploads.ran and not job.cancelling:
                    reason = "it was started before the state was restored; that attempt counts"
                    if submitted:
                        reason = "it was started although it seemed not to be accepted; that attempt counts"
                    ready.append(move(writer, job, JobState.UPLOADED, now, reason, left=left))
                elif job.id in uploads.used:  # by an attempt that the store does not remember
                    self._begin_attempt(writer, msgspec.structs.replace(job, left=left), now)
                elif job.cancelling or job.id in uploads.impossible:
                    fail(writer, job, uploads.impossible.get(job.id, ""), now, JobState.REMOTE_ERROR)
                elif job.id in uploads.ready:
                    ready.append(move(writer, job, JobState.UPLOADED, now, left=left))
            return ready

        return self.store.write(write)

    def _is_in_place(self, job: JobRecord) -> bool:
        """Return whether the run directory of a job is in the work_dir of the worker, on its present host."""
        access = self._access()
        return job.attempt.host in (None, access.host.name) and is_run_dir(
            job.attempt.run_dir or "", job.id, job.attempt.number, access.work_dir
        )

    def start(self, fresh: Sequence[JobRecord], doubtful: Sequence[JobRecord], now: float) -> bool:
        """Submit uploaded jobs. An interrupted pass may have submitted the ``doubtful`` ones.

        Raises
        ------
        TransientError
            The worker gave no clear answer; the next pass finds what it may have submitted.
        """
        queue = self._access().queue
        found = self._access().find(doubtful) if doubtful else {}
        by_target: dict[str, list[JobRecord]] = {}
        foreign = [job for job in doubtful if job.id not in found and not self._is_in_place(job)]
        if foreign:
            self.store.write(lambda writer: self._fail_foreign(writer, foreign, now))
        for job in (*doubtful, *fresh):
            if job.id not in found and job not in foreign:
                by_target.setdefault(target_of(job, queue), []).append(job)
        rest = [job for jobs in by_target.values() for job in jobs]
        result = self._access().submit(rest) if rest else SubmitResult()
        queue_ids = found | result.queue_ids
        not_now = result.target_refused | result.not_now

        def write(writer: Writer) -> list[str]:
            for job in _still(writer, (*doubtful, *fresh), JobState.UPLOADED):
                if job.id in queue_ids:
                    _submitted(writer, job, queue_ids[job.id], now)
                elif job.id in result.refused:
                    fail(writer, job, result.refused[job.id], now, JobState.REMOTE_ERROR)
                elif job.id in not_now:
                    _take_back(writer, job, not_now[job.id], self._access().work_dir, now)
            warnings = [self._warn(writer, target, answer, now) for target, answer in closed.items()]
            return [warning for found in warnings for warning in found]

        closed = {
            target: result.target_refused[job.id]
            for target, jobs in by_target.items()
            for job in jobs
            if job.id in result.target_refused
        }
        if queue_ids or result.refused or not_now:
            self.warnings += self.store.write(write)
        self._remember(by_target, result, now)
        if result.outage:
            raise TransientError(result.outage)
        return bool(queue_ids or result.refused)

    def _fail_foreign(self, writer: Writer, jobs: Sequence[JobRecord], now: float) -> None:
        """Fail jobs whose script is not where this worker has its files: it is not ours to run."""
        for job in _still(writer, jobs, JobState.UPLOADED):
            error = f"its run directory {job.attempt.run_dir} is not in {self._access().work_dir}"
            fail(writer, job, error, now, JobState.REMOTE_ERROR)

    def _remember(
        self, by_target: Mapping[str, Sequence[JobRecord]], result: SubmitResult, now: float
    ) -> None:
        """Note what was accepted and what was not, to decide when to try again."""
        for target, jobs in by_target.items():
            if any(job.id in result.target_refused for job in jobs):
                _refuse(self._targets, target, now, _LONGEST_TARGET_WAIT)
            elif any(job.id in result.queue_ids for job in jobs):
                self._targets.pop(target, None)
            for job in jobs:
                if job.id in result.not_now:
                    _refuse(self._jobs, job.id, now, _LONGEST_WAIT)
                else:
                    self._jobs.pop(job.id, None)

    def _warn(self, writer: Writer, target: str, answer: str, now: float) -> list[str]:
        """Return a warning that a target accepts no jobs, unless the same was reported before."""

        def without_numbers(text: str) -> str:  # some schedulers count the jobs in the message
            return re.sub(r"\d+", "", text)

        kind, about = "QueueFull", f"worker/{self.name}"
        reason = " ".join(answer.split())
        where = f" ({target})" if target else ""
        message = f"its queue takes no more jobs now{where}: {reason}"
        known = {without_numbers(event.message) for event in writer.events(about) if event.type == kind}
        if without_numbers(message) in known:
            return []
        writer.add_event(Event(time=now, type=kind, about=about, message=message))
        return [
            f"worker {self.name}: {message}; these jobs wait, others go on. If it is a limit on your jobs, "
            "set max_jobs of the worker to it"
        ]

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

    def send_programs(self) -> None:
        """Send what allocations run, unless it is there: it may have been removed since the jobs were sent.

        Raises
        ------
        TransientError
            The worker does not answer, or its disk is full.
        """
        if not self._access().has_programs:
            with self.store.read() as view:
                config = view.config()
            assert config is not None, "jobs come from an applied revision"
            self._access().upload([], BundleContents(lambda job: b"{}", config, self.outputs))

    def take_back(self, jobs: Sequence[JobRecord], now: float) -> bool:
        """Take back jobs that wait for a slot of a batch, to apply the change of their run config.

        A job that an agent has claimed first is left alone.
        """
        if not jobs:
            return False
        gone = self._access().withdraw(jobs).gone

        def write(writer: Writer) -> None:
            for job in _still(writer, jobs, JobState.SUBMITTED):
                if job.id in gone and not job.cancelling:
                    give_back(
                        writer,
                        job,
                        "taken back from its batch, since its run config or its worker was changed",
                        now,
                    )

        if gone:
            self.store.write(write)
        return bool(gone)

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
    attempt = job.attempt_with(queue_id=queue_id, submitted=now, waiting=None)
    move(writer, job, JobState.SUBMITTED, now, f"as {queue_id}", attempt=attempt)


def _take_back(writer: Writer, job: JobRecord, reason: str, work_dir: str, now: float) -> None:
    """Make a job READY again that was not accepted; its next try is the same attempt in the same directory.

    Even if the answer was wrong and the job is in the queue, its claim lets it run only once. If a commit
    moves the job meanwhile, that claim must be withdrawn first: the attempt counts as left.
    """
    if job.cancelling or job.cancellation.rerun:
        fail(writer, job, "", now)
        return
    flow = writer.flow(job.flow)
    state = JobState.PAUSED if flow is not None and flow.suspended else JobState.READY
    number = job.attempt.number - 1
    directory = run_dir(work_dir, job.uuid, job.index, number) if number else None
    reason = " ".join(reason.split())
    attempt = job.attempt_with(number=number, run_dir=directory, waiting=reason)
    left = job.leaving(job.attempt)
    move(writer, job, state, now, f"not accepted now: {reason}", attempt=attempt, left=left)
