"""How an attempt ended: by its result, or without one by its files and what its scheduler knows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import msgspec

from reconciler.actual.packed import check as check_packed
from reconciler.execution.claims import RESULT
from reconciler.execution.launcher import DEEPEST, bounded, check_depth
from reconciler.execution.queues.base import Queue, Termination
from reconciler.execution.worker.fetch import AttemptFacts, CollectRequest
from reconciler.jobs.job_json import JobError, JobResult, read_result
from reconciler.model.retries import Cause
from reconciler.model.states import JobState

GONE_AFTER = 180.0
"""Seconds without a sign of life after which an attempt counts as ended that nothing else tells about."""


class AttemptEnd(msgspec.Struct, frozen=True):
    """How an attempt ended.

    ``result`` is from the launcher; without one, ``error``, ``cause`` and ``state`` say how the job is to
    fail. ``still_runs_as`` is set if it has not ended: the queue id under which it is in the queue.
    With ``requeued`` it waits there to be started again.
    ``unknown`` is why nothing is known about it; the next pass tries again. ``too_early``: the scheduler does
    not know yet how it ended. ``in_doubt`` is set if it is lost without evidence that it has ended;
    ``heartbeat`` is then its latest one. ``size`` is that of the result in bytes. ``turn`` is the one that
    ended. ``unstarted``: it never began, and can start again at no cost. ``result_kept``: it has a result
    that cannot be stored now, and stays in the run directory. ``may_live``: it is given up although nothing
    proves that its processes have ended. ``unproven``: nothing but a marker, which any job of the account can
    leave, says that it has ended.
    """

    result: JobResult | None = None
    error: str = ""
    cause: Cause | None = None
    state: JobState = JobState.FAILED
    still_runs_as: str | None = None
    requeued: bool = False
    unknown: str = ""
    too_early: bool = False
    turn: int = 1
    in_doubt: bool = False
    heartbeat: str | None = None
    size: int = 0
    result_kept: bool = False
    unstarted: bool = False
    may_live: bool = False
    unproven: bool = False


def end_with_result(raw: bytes | None, documents: Mapping[str, bytes] | None = None) -> AttemptEnd:
    """Return the end of an attempt that left a result, which is None if its file is not a regular one.

    ``documents`` are the large ones, by the names of their files.
    """
    if raw is None:
        return bad_result("is not a regular file")
    documents = documents or {}
    try:
        result = _checked(read_result(raw), documents)
    except RecursionError:
        return bad_result("is damaged: it is nested too deeply")
    except Exception as error:  # a job can write anything; it concerns no other job
        return bad_result(f"is damaged: {type(error).__name__ if not str(error) else error}")
    return AttemptEnd(result=result, size=len(raw) + sum(map(len, documents.values())))


def _checked(result: JobResult, documents: Mapping[str, bytes]) -> JobResult:
    """Return a result with texts of bounded length that the store can keep.

    Raises
    ------
    ValueError
        It is nested too deeply, a large document is missing or damaged, or its times are not numbers.
    """
    packed = []
    for one in result.packed:
        data = documents.get(one.sha256, b"")
        if hashlib.sha256(data).hexdigest() != one.sha256:
            raise ValueError(f"its document {one.sha256[:80]} is missing or damaged")
        check_packed(data, DEEPEST)
        packed.append(msgspec.structs.replace(one, data=data))
    response = result.response
    for part in (result.documents, result.blobs, [response.stored_data]):
        check_depth(part)
    for new_jobs in (response.replace, response.detour, response.addition):
        check_depth(new_jobs)
    if not (math.isfinite(result.started) and math.isfinite(result.ended)):
        raise ValueError("its times are not finite numbers")
    error = result.error
    if error is not None:
        headline = _with_headline(error)
        error = JobError(clean(error.type), clean(error.message), headline, error.reference)
    return msgspec.structs.replace(
        result,
        error=error,
        packed=packed,
        python=clean(result.python)[:100],
        jobflow=clean(result.jobflow)[:100],
    )


def clean(text: str) -> str:
    """Return a text of bounded length, with characters escaped that UTF-8 cannot encode."""
    return bounded(text.encode("utf-8", "backslashreplace").decode())


def _with_headline(error: JobError) -> str:
    """Return the traceback so that its last line, which listings show, says what went wrong.

    Some tracebacks end in an advertisement (pydantic) or a frame (exception groups), and some messages have
    many lines. Then the type and the first line of the message are repeated at the end.
    """
    text = clean(error.traceback).strip()
    message = error.message.strip()
    if message == text.rpartition("\n")[2].strip() or message.startswith("File "):  # File: a SyntaxError
        return text
    kind, colon, rest = message.partition(": ")
    if colon and kind.rpartition(".")[2] == error.type:  # pydantic_core._pydantic_core.ValidationError: 1 ...
        message = rest
    first = next((line.strip() for line in message.splitlines() if line.strip()), "")
    headline = ": ".join(filter(None, (error.type, first)))
    return clean("\n".join(filter(None, (text, headline[:500]))))


def bad_result(reason: str) -> AttemptEnd:
    """Return the end of an attempt whose result cannot be used: ``is damaged``."""
    return AttemptEnd(error=clean(f"its {RESULT} {reason}"), state=JobState.REMOTE_ERROR)


def end_without_result(wanted: CollectRequest, facts: AttemptFacts, queue: Queue) -> AttemptEnd:
    """Return the end of an attempt that left no result.

    An attempt that its scheduler still has or starts again, or that was claimed under another queue id than
    the store has, goes on.
    """
    job = wanted.job
    if wanted.moved_from is not None and facts.found == "gone":
        return AttemptEnd(
            unknown=f"its run directory is not on the present host of its worker, and it was started on "
            f"{wanted.moved_from}, where it may still run: give the worker that host back until the job has "
            f"ended, or `reconcile abandon {job.path}`"
        )
    if wanted.requeued:
        return AttemptEnd(still_runs_as=job.attempt.queue_id, requeued=True)
    if (
        wanted.lost
        and facts.claimant is not None
        and not queue.same_job(facts.claimant, job.attempt.queue_id or "")
    ):
        return AttemptEnd(still_runs_as=facts.claimant)
    if facts.bad_result:
        return bad_result(facts.bad_result)
    accounting = _accounting(wanted, facts, queue)
    if not wanted.lost and (accounting is None or not accounting.over) and _is_unproven(wanted, facts):
        return AttemptEnd(unproven=True)
    if accounting is not None and not accounting.over:
        if wanted.lost:
            return AttemptEnd(still_runs_as=job.attempt.queue_id)
        if facts.found == "claimed" and facts.exit_code is None and facts.turn > 1:
            return AttemptEnd(still_runs_as=job.attempt.queue_id)  # started again since it left its marker
        # Killed, probably by the scheduler, which will know why; or it has not written the last output yet.
        if wanted.patient or (facts.exit_code or 0) > 128:
            return AttemptEnd(too_early=True)
    if _is_in_doubt(wanted, facts, accounting, queue):
        return AttemptEnd(in_doubt=True, heartbeat=facts.heartbeat)
    started = facts.found == "claimed" and (facts.claimant is not None or facts.damaged_claim)
    code = facts.exit_code
    if code is None and accounting is not None:
        code = accounting.exit_code

    cause = None if accounting is None else accounting.cause
    if cause in (None, Cause.KILLED):
        cause = queue.cause_in_output(facts.tail) or cause
    if facts.signalled and cause in (None, Cause.KILLED):
        cause = Cause.WALLTIME
    if facts.failed_command:
        headline = (
            f"`{facts.failed_command}` failed with exit code {code}, so the job did not start; to run it all "
            "the same, set `on_setup_error: ignore` in its ExecConfig"
        )
        cause = cause or Cause.NEVER_STARTED
    elif facts.found == "gone":
        headline = "its run directory is gone: the job itself or someone else removed it"
    elif not started:
        headline = "it never started"
    elif code is not None:
        signal = f" (signal {code - 128})" if code > 128 else ""
        headline = f"it ended without a result, exit code {code}{signal}"
    elif wanted.lost:
        headline = (
            "its process vanished without an exit code: killed, out of memory, or the machine restarted"
        )
    else:  # there is a marker, but the file of the exit code is empty
        headline = "it ended, but could write neither a result nor its exit code: is the disk there full?"
    if accounting is not None and accounting.over:
        headline = f"{accounting.text}: {headline}"

    if cause in (None, Cause.KILLED) and not started and facts.found != "gone":
        cause = Cause.NEVER_STARTED
    elif cause is None:
        cause = Cause.KILLED if facts.exit_code is not None else Cause.LOST
    return AttemptEnd(
        error=clean(f"{facts.tail}\n{headline}" if facts.tail else headline),
        cause=cause,
        state=JobState.FAILED if started or facts.found == "gone" else JobState.REMOTE_ERROR,
        turn=facts.turn,
        may_live=not job.cancelling
        and (started or facts.found == "gone")
        and code is None
        and not (accounting is not None and accounting.over)
        and (queue.scheduler.is_batch or not facts.same_host),
        unstarted=accounting is not None and accounting.unstarted,
    )


def _is_unproven(wanted: CollectRequest, facts: AttemptFacts) -> bool:
    """Return whether only a marker says that an attempt has ended: its script writes the exit code first.

    If its queue does not list it any more, the attempt has ended, on a full disk for example.
    """
    job = wanted.job
    on_its_way = job.state in (JobState.SUBMITTED, JobState.RUNNING) and job.attempt.queue_id is not None
    silent = facts.exit_code is None and facts.found != "gone"
    return on_its_way and silent and wanted.listed is not False


def _is_in_doubt(
    wanted: CollectRequest, facts: AttemptFacts, accounting: Termination | None, queue: Queue
) -> bool:
    """Return whether a lost attempt may be alive: nothing shows that it has ended.

    A listing that omits a job is no evidence, nor is a scheduler that does not know it. An exit code is, and
    so is the process list of the host that ran it. Otherwise its heartbeat must have stood still for long.
    """
    if not wanted.lost or wanted.job.cancelling or facts.found == "gone" or facts.exit_code is not None:
        return False
    if accounting is not None:
        return False
    if not queue.scheduler.is_batch and (facts.same_host or facts.found == "fresh"):
        return False
    return facts.heartbeat != wanted.job.attempt.heartbeat or wanted.missing_for < GONE_AFTER


def _accounting(wanted: CollectRequest, facts: AttemptFacts, queue: Queue) -> Termination | None:
    if wanted.job.attempt.queue_id is None or facts.accounting is None:
        return None
    return queue.accounting(wanted.job.attempt.queue_id, facts.accounting)
