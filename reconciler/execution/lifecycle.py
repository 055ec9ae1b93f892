"""``next_step``: the one decision about how a job moves on. Pure; the executor carries it out."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from reconciler.model.records import JobRecord
from reconciler.model.states import JobState

LOST_AFTER = 3.0
"""Seconds that a job must be missing from its queue, in two listings, before its own files decide."""


class Observation(msgspec.Struct, frozen=True):
    """What was seen of a job. ``in_queue`` is None when the queue was not asked or gave no answer."""

    marker: bool = False
    in_queue: bool | None = None


class Step(StrEnum):
    """How a job moves on.

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
    KILL = "kill"
    TAKE_IN = "take in"
    TAKE_IN_LOST = "take in lost"


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
            return Step.TAKE_IN
    return Step.WAIT


def _on_worker(job: JobRecord, seen: Observation, now: float) -> Step:
    if seen.marker:
        return Step.TAKE_IN
    if seen.in_queue is False:
        if job.missing_since is None:
            return Step.NOTE_MISSING
        return Step.TAKE_IN_LOST if now - job.missing_since >= LOST_AFTER else Step.WAIT
    if seen.in_queue:
        return _in_queue(job)
    return Step.WAIT


def _in_queue(job: JobRecord) -> Step:
    if job.cancel is not None:  # only now: an id that is not in the queue may be a stranger's
        return Step.KILL
    if job.missing_since is not None:
        return Step.NOTE_FOUND
    return Step.NOTE_RUNNING if job.state is JobState.SUBMITTED else Step.WAIT
