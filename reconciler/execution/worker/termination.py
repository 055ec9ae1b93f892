"""How an attempt ended: by its result, or by what its files and its scheduler tell."""

from __future__ import annotations

import msgspec

from reconciler.execution.queues.base import Queue, Termination
from reconciler.execution.run_files import RESULT
from reconciler.execution.worker.fetch import AttemptFacts, CollectRequest
from reconciler.jobs.job_json import JobResult, read_result
from reconciler.model.retries import Cause
from reconciler.model.states import JobState


class AttemptEnd(msgspec.Struct, frozen=True):
    """How an attempt ended.

    ``result`` is what the launcher wrote; without one ``error``, ``cause`` and ``state`` say what became of
    the job. ``still_runs_as`` is the queue id under which it is in the queue after all: it has not ended.
    ``weight`` is the size of the result in bytes.
    """

    result: JobResult | None = None
    error: str = ""
    cause: Cause | None = None
    state: JobState = JobState.FAILED
    still_runs_as: str | None = None
    weight: int = 0


def read_ending(raw: bytes) -> AttemptEnd:
    """Return the ending that a result tells."""
    try:
        result = read_result(raw)
    except ValueError as error:
        return AttemptEnd(error=f"its {RESULT} is damaged: {error}", state=JobState.REMOTE_ERROR)
    return AttemptEnd(result=result, weight=len(raw))


def ended_without_result(wanted: CollectRequest, facts: AttemptFacts, queue: Queue) -> AttemptEnd | None:
    """Return the ending of an attempt that left no result; None if it is too early to tell.

    One that its scheduler still has, or that was claimed under another id than we know, goes on.
    """
    job = wanted.job
    if wanted.lost and facts.claimant is not None and facts.claimant != job.queue_id:
        return AttemptEnd(still_runs_as=facts.claimant)
    death = _death(wanted, facts, queue)
    if death is not None and not death.over:
        if wanted.lost:
            return AttemptEnd(still_runs_as=job.queue_id)
        by_signal = (facts.exit_code or 0) > 128
        if by_signal:  # its scheduler ended it, and knows why as soon as it is done with it
            return None
    started = facts.found == "claimed" and facts.claimant is not None
    state = JobState.FAILED if started or facts.found == "gone" else JobState.REMOTE_ERROR
    text = _text(facts, death, started=started, lost=wanted.lost)
    return AttemptEnd(error=text, cause=_cause(facts, death), state=state)


def may_still_start(wanted: CollectRequest, facts: AttemptFacts, queue: Queue) -> bool:
    """Whether nobody seems to have an attempt that has not started: it must not start once it is given up."""
    death = _death(wanted, facts, queue)
    return wanted.lost and facts.found == "fresh" and (death is None or death.over)


def _death(wanted: CollectRequest, facts: AttemptFacts, queue: Queue) -> Termination | None:
    if wanted.job.queue_id is None or facts.accounting is None:
        return None
    return queue.accounting(wanted.job.queue_id, facts.accounting)


def _cause(facts: AttemptFacts, death: Termination | None) -> Cause:
    if death is not None and death.cause is not None:
        return death.cause
    if facts.found == "fresh" or (facts.found == "claimed" and facts.claimant is None):
        return Cause.NEVER_STARTED
    return Cause.KILLED if facts.exit_code is not None else Cause.LOST


def _text(facts: AttemptFacts, death: Termination | None, *, started: bool, lost: bool) -> str:
    """Return the last words of the job, what the scheduler says, and what we make of it."""
    code = facts.exit_code
    if code is None and death is not None:
        code = death.exit_code
    lines = [facts.tail] if facts.tail else []
    headline = _headline(facts, code, started=started, lost=lost)
    lines.append(f"{death.text}: {headline}" if death is not None and death.over else headline)
    return "\n".join(lines)


def _headline(facts: AttemptFacts, code: int | None, *, started: bool, lost: bool) -> str:
    if facts.found == "gone":
        return "its run directory is gone: removed by the job itself, or by somebody else"
    if not started:
        return "it never started"
    if code is None and not lost:  # it has told that it ended, by a file without content
        return "it ended, but could write neither a result nor its exit code: is the disk there full?"
    if code is None:
        return "its process vanished without an exit code: killed, out of memory, or the machine restarted"
    signal = f" (signal {code - 128})" if code > 128 else ""
    return f"it ended without a result, exit code {code}{signal}"
