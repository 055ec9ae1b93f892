"""``next_step``: the one decision about how a job moves on. Pure; the executor carries it out."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from reconciler.execution.queues.base import QueueEntry, QueueState
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState


class Observation(msgspec.Struct, frozen=True):
    """What a poll shows of a job.

    ``asked`` is False when the queue was not asked or did not answer; ``entry`` is the job in its listing.
    ``lost_after`` is how many seconds a job must be missing there, in two listings, before its files decide.
    """

    marker: bool = False
    asked: bool = False
    entry: QueueEntry | None = None
    lost_after: float = 0.0


_START_CHANGED = 300.0
"""Seconds by which the expected start must differ to be noted: it changes with every look."""


class Step(StrEnum):
    """How a job moves on.

    ``NOTE_RESUBMIT``: as submitted it can never start, and its run config was changed since.
    ``DROP``: it is cancelled and was certainly never started. ``WITHDRAW``: it is cancelled, and an
    interrupted pass may have started it. ``TAKE_BACK``: it waits for a slot of a batch, and its run config
    was changed since.
    """

    WAIT = "wait"
    UPLOAD = "upload"
    START = "start"
    DROP = "drop"
    WITHDRAW = "withdraw"
    TAKE_BACK = "take back"
    NOTE_RUNNING = "note running"
    NOTE_REQUEUED = "note requeued"
    NOTE_MISSING = "note missing"
    NOTE_FOUND = "note found"
    NOTE_STUCK = "note stuck"
    NOTE_WAITING = "note waiting"
    NOTE_RESUBMIT = "note resubmit"
    KILL = "kill"
    COLLECT = "collect"
    COLLECT_LOST = "collect lost"


def next_step(job: JobRecord, seen: Observation, now: float) -> Step:
    """Return the next step of an active job.

    A job that the queue does not list is lost only when two listings, some seconds apart, agree; then its own
    files decide how it ended. A queue that does not answer changes nothing.
    """
    match job.state:
        case JobState.CHECKED_OUT:
            return Step.UPLOAD if not job.cancelling else Step.DROP
        case JobState.UPLOADED:
            return Step.START if not job.cancelling else Step.WITHDRAW
        case JobState.RUN_FINISHED | JobState.DOWNLOADED:
            return Step.COLLECT
        case JobState.SUBMITTED | JobState.RUNNING:
            pass
        case _:
            return Step.WAIT
    if seen.marker:
        return Step.COLLECT
    if not seen.asked:
        return Step.WAIT
    if seen.entry is not None:
        return _step_in_queue(job, seen.entry)
    since = job.attempt.missing_since
    if since is None or since > now:  # later than now: the clock was set back
        return Step.NOTE_MISSING
    # There is no doubt about a job that we cancelled.
    doubt = seen.lost_after if not job.cancelling else 0.0
    return Step.COLLECT_LOST if now - since >= doubt else Step.WAIT


def _step_in_queue(job: JobRecord, entry: QueueEntry) -> Step:
    if job.cancelling:  # only jobs in the queue are killed: another id can belong to a stranger
        return Step.KILL
    if job.attempt.missing_since is not None:
        return Step.NOTE_FOUND
    if job.state is JobState.SUBMITTED and entry.state in (QueueState.RUNNING, QueueState.SUSPENDED):
        return Step.NOTE_RUNNING
    if job.state is JobState.RUNNING and entry.is_pending:
        return Step.NOTE_REQUEUED
    if entry.unclaimed and job.wanted is not None:
        return Step.TAKE_BACK
    if entry.never != (job.attempt.stuck or ""):
        return Step.NOTE_STUCK
    # A job that can never start loses nothing when it is submitted again.
    if job.attempt.stuck and job.wanted is not None:
        return Step.NOTE_RESUBMIT
    return Step.NOTE_WAITING if not entry.never and _waits_otherwise(job, entry) else Step.WAIT


def _waits_otherwise(job: JobRecord, entry: QueueEntry) -> bool:
    """Return whether the reason why a job waits has changed, or much of the time when it is to start."""
    known, start = job.attempt.expected_start, entry.start
    if entry.waiting != (job.attempt.waiting or ""):
        return True
    return start != known and (start is None or known is None or abs(start - known) >= _START_CHANGED)
