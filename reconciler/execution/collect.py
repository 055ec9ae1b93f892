"""From the worker back into the store: results fetched, outputs kept, endings recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.errors import InputError, TransientError
from reconciler.execution.start import OnWorker
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.fetch import CollectRequest
from reconciler.execution.worker.termination import AttemptEnd
from reconciler.jobs.job_json import JobResult
from reconciler.jobs.outputs import Outputs
from reconciler.jobs.responses import apply_result, fail
from reconciler.jobs.transitions import move
from reconciler.model.records import Event, JobRecord, WorkerStatus
from reconciler.model.states import ACTIVE, JobState

AT_ONCE = 200
"""Jobs whose endings one command brings, and one transaction records unless they are heavy."""

_HEAVY = 16 << 20
"""Bytes of results after which a transaction is closed: they are all in memory until then."""

Collected = tuple[JobRecord, AttemptEnd]


class ResultCollector(OnWorker):
    """Takes in what the jobs of one worker left. Taking in twice is the same as once.

    ``warnings`` are for people: whoever tells them takes them out.
    """

    def __init__(self, store: Store, outputs: Outputs, name: str, access: Callable[[], WorkerAccess]) -> None:
        super().__init__(store, outputs, name, access)
        self.warnings: list[str] = []

    def collect(self, ended: Sequence[JobRecord], lost: Sequence[JobRecord], now: float) -> bool:
        """Take in attempts that are over, and look what became of lost ones; return whether any job moved.

        Raises
        ------
        TransientError
            The worker does not answer: what was taken in so far stays so.
        """
        wanted = [
            *(CollectRequest(job, lost=False) for job in ended),
            *(CollectRequest(job, lost=True) for job in lost),
        ]
        moved = False
        for start in range(0, len(wanted), AT_ONCE):
            for group in self._grouped(self.access.collect(wanted[start : start + AT_ONCE])):
                self._record(group, now)
                over = [job for job, ending in group if not ending.still_runs_as]
                self.access.forget(self.access.marker(job) for job in over)
                moved = True
        return moved

    def _grouped(self, collected: Iterable[Collected]) -> Iterator[list[Collected]]:
        """Group endings for one transaction each: many small ones, or a few that are big."""
        group: list[Collected] = []
        weight = 0
        for job, ending in collected:
            try:
                group.append((job, self._saved(ending)))
            except TransientError:
                if group:  # what was saved so far counts, whatever becomes of the others
                    yield group
                raise
            weight += ending.weight
            if weight >= _HEAVY:
                yield group
                group, weight = [], 0
        if group:
            yield group

    def _saved(self, ending: AttemptEnd) -> AttemptEnd:
        """Write the outputs where they must be before the job counts as completed."""
        result = ending.result
        if result is None or not result.ok:
            return ending
        try:
            self.outputs.save_before(result.documents, result.blobs)
        except InputError as error:
            return _not_kept(error)
        return ending

    def _record(self, endings: Sequence[Collected], now: float) -> None:
        """Record all endings at once; if one holds what cannot be kept, that job alone fails."""
        try:
            self.warnings += self.store.write(lambda writer: self._record_endings(writer, endings, now))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            if len(endings) > 1:
                for one in endings:
                    self._record([one], now)
            elif endings[0][1].result is not None:
                self._record([(endings[0][0], _not_kept(error))], now)
            else:
                raise

    def _record_endings(self, writer: Writer, endings: Sequence[Collected], now: float) -> list[str]:
        warnings: list[str | None] = []
        config = writer.config()  # in this transaction: children are born by the rules of this very moment
        assert config is not None, "jobs come from an applied revision"
        for job, ending in endings:
            if ending.still_runs_as:
                _adopt(writer, job, ending.still_runs_as, now)
            elif ending.result is not None:
                apply_result(writer, job.id, job.attempt, ending.result, self.outputs, config, now)
                self._plan_cleanup(writer, job, ending.result, now)
                warnings.append(note_versions(writer, self.name, ending.result, now))
            else:
                current = writer.job(job.id)
                if current is not None and current.attempt == job.attempt and current.state in ACTIVE:
                    fail(writer, current, ending.error, now, ending.state, ending.cause)
        return list(filter(None, warnings))

    def _plan_cleanup(self, writer: Writer, job: JobRecord, result: JobResult, now: float) -> None:
        """A run directory goes, if the worker says so, after a success; people look at failures."""
        cleanup = self.access.spec.cleanup
        if result.ok and cleanup != "keep":
            wait = 0 if cleanup == "completed" else cleanup.seconds
            writer.add_cleanup(self.name, now + wait, job)


def _adopt(writer: Writer, job: JobRecord, queue_id: str, now: float) -> None:
    """It is in the queue after all, perhaps started under the id of an interrupted submission."""
    current = writer.job(job.id)
    if current is None or current.state not in ACTIVE:
        return
    if current.queue_id == queue_id:
        writer.put_job(msgspec.structs.replace(current, missing_since=None))
    else:
        move(
            writer, current, JobState.RUNNING, now, f"found as {queue_id}",
            queue_id=queue_id, missing_since=None, submitted=current.submitted or now,
        )  # fmt: skip


def _not_kept(error: Exception) -> AttemptEnd:
    return AttemptEnd(error=f"its output cannot be kept: {error}", state=JobState.REMOTE_ERROR)


# Which Python and jobflow a worker has, as its jobs report them; a difference is told once.


EVENT = "Versions"


def note_versions(writer: Writer, worker: str, result: JobResult, now: float) -> str | None:
    """Remember the versions that a job reports; return a warning if there is one that was never told.

    Jobs of one worker may have several, since the modules of an exec_config can bring a Python along: then
    the last one is remembered, and each is told once all the same.
    """
    status = writer.worker_status(worker) or WorkerStatus(reachable=True, last_seen=now)
    seen = msgspec.structs.replace(status, python=result.python, jobflow=result.jobflow)
    if not result.jobflow or seen == status:
        return None
    writer.put_worker_status(worker, seen)
    message = _difference(result.jobflow)
    about = f"worker/{worker}"
    if message is None or any(event.message == message for event in writer.events(about)):
        return None
    writer.add_event(Event(time=now, type=EVENT, about=about, message=message))
    return f"worker {worker}: {message}"


def _difference(there: str) -> str | None:
    """Return what is to be said of the jobflow of a worker; None if it is about that of this machine."""
    here = version("jobflow")
    if there.split(".")[:2] == here.split(".")[:2]:
        return None
    return (
        f"has jobflow {there}, this machine {here}: flows are built by the one and run by the other; install "
        "the same on both"
    )
