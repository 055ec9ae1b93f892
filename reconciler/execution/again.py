"""A job that has run, or was to run, begins once more. Works inside a transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from reconciler.actual.writer import Writer
from reconciler.execution.no_worker import end_without_worker, no_worker
from reconciler.execution.ready import recheck, unhook
from reconciler.execution.transitions import move
from reconciler.model.flows import BuiltJob
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import ACTIVE, JobState


def run_again(
    writer: Writer,
    jobs: Iterable[JobRecord],
    reason: str,
    now: float,
    *,
    as_retry: bool = False,
    builds: Builds | None = None,
) -> None:
    """Let jobs whose last attempt is over run again, as soon as what they need is there.

    They get the present run config and code. Jobs that need them wait for them again, unless they have
    ended. ``jobs`` may need each other. ``as_retry``: those that wait for an automatic retry get that one
    now, with what it escalates; else retries are counted anew. ``builds`` are those of this transaction, for
    who calls this many times in it.
    """
    builds = builds or Builds(writer)
    begun = [_begin(writer, builds, job, reason, now, as_retry=as_retry) for job in jobs]
    unhook(writer, begun, now)
    for job in begun:
        recheck(writer, _present(writer, [job, *writer.dependants(job.uuid)]), now)


def begin_again(writer: Writer, job: JobRecord, now: float) -> None:
    """The attempt that was to be cancelled first, or was being cancelled, is over: now the job runs again."""
    config = writer.config()
    why = no_worker(job, config.workers) if config is not None else None
    if why is not None:  # it was generated anew, with a worker that does not exist
        over: dict[str, Any] = {"stuck": None, "missing_since": None, "cancel": None, "again": False}
        end_without_worker(writer, job, why, now, **over)
        return
    run_again(writer, [job], job.cancel or "it was cancelled, and is wanted again", now)


def _present(writer: Writer, jobs: Iterable[JobRecord]) -> list[JobRecord]:
    found = (writer.job(job.id) for job in jobs)
    return [job for job in found if job is not None and job.current]


class Builds:
    """The flows of some jobs as they are built now, each read once. For one transaction."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._known: dict[str, tuple[list[str], dict[tuple[str, int], BuiltJob]]] = {}

    def job(self, flow: FlowRecord, job: JobRecord) -> tuple[list[str], BuiltJob | None]:
        """Return the code trees of a flow, and a job as it is built."""
        if flow.build_key not in self._known:
            built = self._writer.build(flow.build_key)
            jobs = {(one.uuid, one.index): one for one in built.jobs} if built is not None else {}
            self._known[flow.build_key] = (built.code if built is not None else [], jobs)
        code, jobs = self._known[flow.build_key]
        return code, jobs.get((job.uuid, job.index))


def _begin(
    writer: Writer, builds: Builds, job: JobRecord, reason: str, now: float, *, as_retry: bool
) -> JobRecord:
    flow = writer.flow(job.flow)
    state = JobState.PAUSED if flow is not None and flow.suspended else JobState.WAITING
    if flow is not None and job.generated_by is None:
        job = _as_built_now(writer, job, *builds.job(flow, job))
    retried = job.retried if as_retry and job.retry_at is not None else []
    return move(
        writer, job, state, now, reason, retried=retried,
        error=None, cause=None, stuck=None, missing_since=None, cancel=None, again=False,
    )  # fmt: skip


def _as_built_now(writer: Writer, job: JobRecord, code: list[str], built: BuiltJob | None) -> JobRecord:
    """Give a job the code and the metadata that its flow has now; a generated one keeps what it was given."""
    if built is None:
        return job
    writer.put_payload(job.id, built.payload)
    more = [parent for parent in job.parents if parent not in built.parents and _generated(writer, parent)]
    return msgspec.structs.replace(job, code=code, files=built.files, parents=[*built.parents, *more])


def _generated(writer: Writer, uuid: str) -> bool:
    """Whether a uuid is that of a job that was born at run time: who waits for a detour goes on doing so."""
    return any(job.current and job.generated_by is not None for job in writer.generations(uuid))


def reborn(old: JobRecord, fresh: JobRecord) -> JobRecord:
    """Return the record of a generated job whose uuid and index a job of a former life has.

    The numbers of attempts go on, so that their run directories differ. If the old one is still on its way
    out, the new one waits until it is gone.
    """
    if old.state not in ACTIVE:
        return msgspec.structs.replace(fresh, attempt=old.attempt)
    return msgspec.structs.replace(
        fresh,
        state=old.state, config=old.config, wanted=fresh.config, attempt=old.attempt, run_dir=old.run_dir,
        run_worker=old.run_worker, queue_id=old.queue_id, submitted=old.submitted,
        missing_since=old.missing_since, stuck=old.stuck, cancel="generated anew", again=True,
    )  # fmt: skip
