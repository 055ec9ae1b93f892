"""From the worker back into the store: fetch results, keep outputs, record how attempts ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from importlib.metadata import version

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.errors import InputError, ReconcilerError, TransientError
from reconciler.execution.problems import describe_error, note_problem, note_stuck
from reconciler.execution.references import with_reference
from reconciler.execution.run_files import marker_name
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.fetch import CollectRequest
from reconciler.execution.worker.termination import AttemptEnd, clean
from reconciler.jobs.job_json import JobResult
from reconciler.jobs.outputs import Outputs, check_own
from reconciler.jobs.responses import apply_result, fail
from reconciler.jobs.restarts import give_back
from reconciler.jobs.transitions import move
from reconciler.model.records import Event, JobRecord, WorkerStatus
from reconciler.model.retries import Cause
from reconciler.model.states import ACTIVE, JobState

REQUEUED = "its scheduler has requeued it; the same attempt starts again"

BATCH = 200
"""Attempts that one command fetches, and one transaction records unless their results are large."""

_LARGE = 16 << 20
"""Bytes of results, all in memory, after which a transaction is closed."""

_PATIENCE, _EARLY_AGAIN = 30.0, 1.0
"""Seconds to wait until a scheduler is done with the end of a job, and between two questions meanwhile."""
_RETRY_AFTER = 10.0
"""Seconds until an attempt is collected again whose end could not be read or recorded."""

Collected = tuple[JobRecord, AttemptEnd]


class ResultCollector:
    """Collects the ended attempts of one worker. Collecting twice is the same as once.

    The caller takes new ``warnings`` from the list. ``unproven`` are the ids of jobs of which only a marker
    says that they have ended.
    """

    def __init__(self, store: Store, outputs: Outputs, name: str, access: Callable[[], WorkerAccess]) -> None:
        self.store = store
        self.outputs = outputs
        self.name = name
        self.warnings: list[str] = []
        self.unproven: set[str] = set()
        self._access = access
        self._retry_at: dict[str, float] = {}

    def collect(
        self,
        ended: Sequence[JobRecord],
        lost: Sequence[JobRecord],
        pending: Collection[str],
        listed: Collection[str] | None,
        now: float,
    ) -> bool:
        """Collect ended attempts, and find out how lost ones ended; return whether any job moved.

        ``pending`` are the ids of jobs that their queue lists as pending, and ``listed`` those that it lists
        at all; None if it was not asked.

        Raises
        ------
        TransientError
            The worker does not answer; what was collected before stays so.
        """
        wanted = [
            CollectRequest(
                job,
                is_lost,
                requeued=job.id in pending,
                patient=self._is_patient(job, now),
                missing_for=now - (job.attempt.missing_since or now),
                moved_from=job.attempt.host if job.attempt.host != self._access().host.name else None,
                listed=job.id in listed if listed is not None else None,
            )
            for is_lost, jobs in ((False, ended), (True, lost))
            for job in jobs
        ]
        # Attempts whose end could not be read or recorded are tried again later; a clock can be set back.
        wanted = [one for one in wanted if not 0 < self._retry_at.get(one.job.id, 0.0) - now <= _RETRY_AFTER]
        self.unproven -= {one.job.id for one in wanted}
        unseen = {job.id for job in lost}
        any_moved = False
        for start in range(0, len(wanted), BATCH):
            for group in self._grouped(self._access().collect(wanted[start : start + BATCH])):
                moved = self._record(group, now)
                self.unproven |= {job.id for job, end in group if end.unproven}
                # Of a requeued attempt, only the marker of its former process goes. The marker of a lost one
                # has not been seen: if it comes after all, it announces a late result.
                over = [
                    job
                    for job, end in group
                    if job.id in moved
                    and (end.requeued or not end.still_runs_as)
                    and not (end.cause is Cause.LOST and job.id in unseen)
                ]
                self._access().forget(marker_name(job) for job in over)
                self._retry_at |= {
                    job.id: now + (_EARLY_AGAIN if end.too_early or end.unproven else _RETRY_AFTER)
                    for job, end in group
                    if job.id not in moved
                }
                any_moved = any_moved or bool(moved)
        return any_moved

    def _is_patient(self, job: JobRecord, now: float) -> bool:
        since = job.attempt.missing_since
        return since is None or 0 <= now - since < _PATIENCE

    def _grouped(self, collected: Iterable[Collected]) -> Iterator[list[Collected]]:
        """Save outputs outside of the store, and group attempts for one transaction each.

        A group has many small results or a few large ones.
        """
        group: list[Collected] = []
        size = 0
        for job, end in collected:
            try:
                group.append((job, self._saved(job, end)))
            except TransientError:
                if group:
                    yield group
                raise
            size += end.size
            if size >= _LARGE:
                yield group
                group, size = [], 0
        if group:
            yield group

    def _saved(self, job: JobRecord, end: AttemptEnd) -> AttemptEnd:
        """Write the outputs to an external store, which must have them before the job is completed.

        Its documents get the labels of the flow, which the embedded store adds when it is read.
        """
        result = end.result
        if result is not None and result.ok:
            try:
                check_own(job, result.documents, result.blobs, result.packed)
                with self.store.read() as view:
                    flow = view.flow(job.flow)
                labels = dict(flow.labels) if flow is not None else {}
                documents, packed = result.documents, result.packed
                if labels:
                    documents = [doc | {"labels": labels} for doc in documents]
                    packed = [one if one.store else one.with_field("labels", labels) for one in packed]
                self.outputs.save_before(documents, result.blobs, packed)
            except ReconcilerError as error:
                if not isinstance(error, InputError):
                    raise
                return _not_kept(error)
            except Exception as error:  # a value that the client of the job store cannot handle
                return _not_kept(error)
        return end

    def _record(self, group: Sequence[Collected], now: float) -> set[str]:
        """Record all attempts of a group together; one whose result cannot be kept fails alone.

        Return the ids of the jobs that moved.

        Raises
        ------
        WorldError
            The store failed.
        """
        try:
            self.warnings += self.store.write(lambda writer: self._record_in(writer, group, now))
            return {
                job.id
                for job, end in group
                if not (end.unknown or end.too_early or end.in_doubt or end.unproven)
            }
        except Exception as error:
            if isinstance(error, ReconcilerError) and not isinstance(error, InputError):
                raise
            if len(group) > 1:
                return set().union(*(self._record([one], now) for one in group))
            ((job, end),) = group
            if end.result is not None:
                return self._record([(job, _not_kept(error))], now)
            # Not even its failure can be recorded.
            note_problem(self.store, job, f"its end cannot be recorded: {describe_error(error)}", now)
            return set()

    def _record_in(self, writer: Writer, group: Sequence[Collected], now: float) -> list[str]:
        warnings: list[str | None] = []
        config = writer.config()  # in this transaction: the present rules apply to generated jobs
        assert config is not None, "jobs come from an applied revision"
        for job, end in group:
            if end.unproven:
                continue
            current = writer.job(job.id)
            if end.unknown:
                if current is not None and current.state in ACTIVE:
                    note_stuck(writer, current, f"how it ended cannot be read: {end.unknown}", now)
            elif end.too_early:
                if current is not None and current.attempt.missing_since is None:
                    attempt = current.attempt_with(missing_since=now)
                    writer.put_job(msgspec.structs.replace(current, attempt=attempt))
            elif end.in_doubt:
                if current is not None and current.state in ACTIVE:
                    _note_heartbeat(writer, current, end.heartbeat, now)
            elif end.still_runs_as:
                if current is not None and current.state in ACTIVE:
                    _adopt(writer, current, end.still_runs_as, end.requeued, now)
            elif end.result is not None:
                result = with_reference(writer, job, end.result)
                apply_result(writer, job.id, job.attempt.number, result, self.outputs, config, now)
                self._plan_cleanup(writer, job, end.result, now)
                warnings.append(note_versions(writer, self.name, end.result, now))
            elif (
                current is not None
                and current.attempt.number == job.attempt.number
                and current.state in ACTIVE
            ):
                if end.unstarted and not current.cancelling:
                    give_back(writer, current, end.error.splitlines()[-1], now)
                    continue
                if end.result_kept:
                    kept = current.attempt_with(result_kept=True)
                    current = msgspec.structs.replace(current, attempt=kept)
                if end.may_live:
                    left = current.leaving(current.attempt)
                    current = msgspec.structs.replace(current, left=left)
                fail(writer, current, end.error, now, end.state, end.cause)
        return list(filter(None, warnings))

    def _plan_cleanup(self, writer: Writer, job: JobRecord, result: JobResult, now: float) -> None:
        """Plan the removal of the run directory of a successful attempt, if the worker's spec wants it."""
        cleanup = self._access().spec.cleanup
        if result.ok and cleanup != "keep":
            wait = 0 if cleanup == "completed" else cleanup.seconds
            writer.add_cleanup(self.name, now + wait, job)


def _note_heartbeat(writer: Writer, job: JobRecord, heartbeat: str | None, now: float) -> None:
    """Note a new heartbeat: the job is alive, so it is missing only since now."""
    if heartbeat != job.attempt.heartbeat:
        attempt = job.attempt_with(heartbeat=heartbeat, missing_since=now)
        writer.put_job(msgspec.structs.replace(job, attempt=attempt))


def _adopt(writer: Writer, job: JobRecord, queue_id: str, requeued: bool, now: float) -> None:
    """Go on with a job that is in the queue after all, perhaps as another submission of the same attempt."""
    if requeued and job.state is JobState.RUNNING:
        move(writer, job, JobState.SUBMITTED, now, REQUEUED, attempt=job.attempt.settled)
    elif job.attempt.queue_id == queue_id:
        writer.put_job(msgspec.structs.replace(job, attempt=job.attempt_with(missing_since=None)))
    else:
        submitted = job.attempt.submitted or now
        found = job.attempt_with(queue_id=queue_id, missing_since=None, submitted=submitted)
        move(writer, job, JobState.RUNNING, now, f"found as {queue_id}", attempt=found)


def _not_kept(error: Exception) -> AttemptEnd:
    reason = error.message if isinstance(error, ReconcilerError) else describe_error(error)
    hint = "once that is mended, `reconcile retry` collects it without running the job again"
    return AttemptEnd(
        error=clean(f"its output cannot be kept: {reason} ({hint})"),
        state=JobState.REMOTE_ERROR,
        result_kept=True,
    )


def note_versions(writer: Writer, worker: str, result: JobResult, now: float) -> str | None:
    """Record the versions of Python and jobflow that a job reports; return a new warning about them.

    Jobs of one worker can have different versions, since the modules of an exec_config can include Python:
    the record has the latest ones, and there is one warning about each version.
    """
    status = writer.worker_status(worker) or WorkerStatus(reachable=True, last_seen=now)
    seen = msgspec.structs.replace(status, python=result.python, jobflow=result.jobflow)
    if not result.jobflow or seen == status:
        return None
    writer.put_worker_status(worker, seen)
    here = version("jobflow")
    if result.jobflow.split(".")[:2] == here.split(".")[:2]:
        return None
    message = (
        f"has jobflow {result.jobflow}, this machine {here}: flows are built by the one and run by the "
        "other; install the same on both"
    )
    about = f"worker/{worker}"
    if any(event.message == message for event in writer.events(about)):
        return None
    writer.add_event(Event(time=now, type="Versions", about=about, message=message))
    return f"worker {worker}: {message}"
