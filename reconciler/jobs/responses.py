"""Records how an attempt ended, in one transaction: output, generated jobs, and what may run now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from reconciler.actual.writer import Writer
from reconciler.errors import InputError
from reconciler.jobs.dependencies import (
    release_dependants,
    release_tolerant,
    wait_for_leaves,
    wait_for_references,
)
from reconciler.jobs.generated import Generation
from reconciler.jobs.job_json import JobResponse, JobResult, additional_stores
from reconciler.jobs.outputs import Outputs, check_own
from reconciler.jobs.restarts import begin_again, note_retry
from reconciler.jobs.stopping import stop_children, stop_flow
from reconciler.jobs.transitions import move
from reconciler.model.applied import AppliedConfig
from reconciler.model.records import NOT_CANCELLED, FlowRecord, JobRecord, RetryStatus
from reconciler.model.retries import Cause
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.retries import next_retry


def apply_result(
    writer: Writer,
    job_id: str,
    attempt: int,
    result: JobResult,
    outputs: Outputs,
    config: AppliedConfig,
    now: float,
) -> None:
    """Complete or fail a job according to its result. Doing it twice is the same as once.

    Raises
    ------
    InputError
        The result contains outputs of other jobs, or of additional stores that the job does not have.
    """
    job = writer.job(job_id)
    if job is None or job.attempt.number != attempt or job.state not in ACTIVE:
        return
    if job.cancelling and job.cancellation.rerun:  # a new attempt counts, not the result of this one
        begin_again(writer, job, now)
        return
    if not result.ok:
        text = result.error.traceback if result.error is not None else "unknown error"
        ran = msgspec.structs.replace(job, attempt=job.attempt_with(**_usage(result)))
        fail(writer, ran, text, now, cause=Cause.WALLTIME if result.signalled else Cause.EXCEPTION)
        return
    check_own(job, result.documents, result.blobs, result.packed)
    written = {name for name, blobs in result.blobs.items() if blobs}
    written |= {one.store for one in result.packed if one.store}
    undeclared = written - set(additional_stores(json.loads(writer.payload(job.id) or b"{}")))
    if undeclared:
        raise InputError(f"it has outputs for stores that the job does not name: {sorted(undeclared)[0]:.80}")
    outputs.save_inside(writer, result.documents, result.blobs, result.packed)
    done = move(
        writer, job, JobState.COMPLETED, now, f"ran {_seconds(result):.1f} s",
        error=None, cause=None, cancellation=NOT_CANCELLED,
        attempt=msgspec.structs.replace(job.attempt.settled, **_usage(result)),
        stored_data=result.response.stored_data, refers=[], left=[],
    )  # fmt: skip
    _carry_out(writer, done, result.response, result.refers, config, job.cancellation.reason, now)
    release_dependants(writer, done.uuid, now)


def _seconds(result: JobResult) -> float:
    """Return how long a job ran; not negative, even if the worker's clock was set back meanwhile."""
    return round(max(0.0, result.ended - result.started), 3)


def _usage(result: JobResult) -> dict[str, Any]:
    """Return what an attempt used, as fields of its record."""
    used = result.usage
    return {"seconds": _seconds(result)} | ({"cpu": used.cpu, "memory": used.memory} if used else {})


def _carry_out(
    writer: Writer,
    job: JobRecord,
    response: JobResponse,
    refers: Sequence[str],
    config: AppliedConfig,
    cancelled: str | None,
    now: float,
) -> None:
    """Add the jobs that a completed job asks for, make dependants wait for them, and stop what is to stop.

    ``refers`` are the jobs that the output refers to. ``cancelled`` is why the job was being cancelled when
    it completed; in that case no generated job runs.
    """
    flow = writer.flow(job.flow) or FlowRecord(name=job.flow, identity="", build_key="")
    generation = Generation(writer, job, flow, config, now, cancelled)
    replace = generation.add(response.replace, "replace")
    if all(record.uuid != job.uuid for record in replace):
        wait_for_leaves(writer, job, replace)
    wait_for_leaves(writer, job, generation.add(response.detour, "detour"))
    generation.add(response.addition, "addition")
    wait_for_references(writer, job, refers)
    if response.stop_children:
        stop_children(writer, job, now)
    if response.stop_jobflow:
        stop_flow(writer, flow, job, now)
    # Last, because only now it is known what the other jobs wait for.
    release_tolerant(writer, generation.never, now)


def fail(
    writer: Writer,
    job: JobRecord,
    error: str,
    now: float,
    state: JobState = JobState.FAILED,
    cause: Cause | None = None,
) -> None:
    """End a job without a result.

    A job that was being cancelled is stopped instead, or runs again if that was asked for. While a failed job
    is to be retried, its dependants keep waiting.
    """
    if job.cancellation.rerun:
        begin_again(writer, job, now)
        return
    over: dict[str, Any] = {"attempt": job.attempt.settled}
    if job.cancelling:
        reason = job.cancellation.reason or ""
        move(writer, job, JobState.USER_STOPPED, now, reason, cancellation=NOT_CANCELLED, **over)
        release_tolerant(writer, [job.uuid], now)
        return
    lines = error.strip().splitlines() or ["unknown error"]
    over |= {"error": error, "cause": cause}
    retry = next_retry(job, writer.flow(job.flow), cause, now)
    if retry is None:
        move(writer, job, state, now, lines[-1], **over)
        release_tolerant(writer, [job.uuid], now)
        return
    assert cause is not None
    due = RetryStatus(
        at=retry.at,
        causes=[*job.retry.causes, str(cause)],
        run_dirs=[*job.retry.run_dirs, *filter(None, [job.attempt.run_dir])],
    )
    failed = move(writer, job, state, now, lines[-1], retry=due, **over)
    note_retry(writer, failed, retry, now)
