"""``next_step``: the one decision about how a job moves on. Pure; the executor carries it out."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from reconciler.execution.queues.base import QueueEntry, QueueState
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState


class Observation(msgspec.Struct, frozen=True):
    """What was seen of a job.

    ``asked`` is False when the queue was not asked, or gave no answer; ``entry`` is the job in its listing.
    ``lost_after`` is how many seconds it must be missing there, in two listings, before its files decide.
    """

    marker: bool = False
    asked: bool = False
    entry: QueueEntry | None = None
    lost_after: float = 0.0


class Step(StrEnum):
    """How a job moves on.

    One that can never start is submitted anew when its run config has been changed meanwhile.
    A cancelled job is dropped while it was certainly never started, and withdrawn when an interrupted pass
    may have started it.
    """

    WAIT = "wait"
    UPLOAD = "upload"
    START = "start"
    DROP = "drop"
    WITHDRAW = "withdraw"
    NOTE_RUNNING = "note running"
    NOTE_MISSING = "note missing"
    NOTE_FOUND = "note found"
    NOTE_STUCK = "note stuck"
    NOTE_RESUBMIT = "note resubmit"
    KILL = "kill"
    COLLECT = "take in"
    COLLECT_LOST = "take in lost"


def next_step(job: JobRecord, seen: Observation, now: float) -> Step:
    """Return the next step of an active job.

    Not being in the queue counts only when two listings, some seconds apart, agree; and then the job's
    own files decide what became of it. An unanswered question changes nothing.
    """
    match job.state:
        case JobState.CHECKED_OUT:
            return Step.UPLOAD if job.cancel is None else Step.DROP
        case JobState.UPLOADED:
            return Step.START if job.cancel is None else Step.WITHDRAW
        case JobState.SUBMITTED | JobState.RUNNING:
            return _on_worker(job, seen, now)
        case JobState.RUN_FINISHED | JobState.DOWNLOADED:
            return Step.COLLECT
    return Step.WAIT


def _on_worker(job: JobRecord, seen: Observation, now: float) -> Step:
    if seen.marker:
        return Step.COLLECT
    if not seen.asked:
        return Step.WAIT
    if seen.entry is not None:
        return _in_queue(job, seen.entry)
    if job.missing_since is None or job.missing_since > now:  # the clock was set back: doubt anew
        return Step.NOTE_MISSING
    # That one which we ended ourselves is gone is no surprise.
    doubt = seen.lost_after if job.cancel is None else 0.0
    return Step.COLLECT_LOST if now - job.missing_since >= doubt else Step.WAIT


def _in_queue(job: JobRecord, entry: QueueEntry) -> Step:
    if job.cancel is not None:  # only now: an id that is not in the queue may be a stranger's
        return Step.KILL
    if job.missing_since is not None:
        return Step.NOTE_FOUND
    if job.state is JobState.SUBMITTED and entry.state in _STARTED:
        return Step.NOTE_RUNNING
    if entry.never != (job.stuck or ""):
        return Step.NOTE_STUCK
    # It can never start as it is, and somebody has put that right: it has lost nothing by starting anew.
    return Step.NOTE_RESUBMIT if job.stuck and job.wanted is not None else Step.WAIT


_STARTED = (QueueState.RUNNING, QueueState.SUSPENDED)
