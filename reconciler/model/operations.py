"""What people may ask of a job by hand, and in which of its states. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import ACTIVE, BROKEN, FINISHED, PENDING, JobState


class JobVerb(StrEnum):
    """What a person may ask of a job."""

    RETRY = "retry"
    RERUN = "rerun"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FORGET = "forget"


class Effect(StrEnum):
    """What happens to one job.

    ``SUPERSEDE`` reaches the jobs that one which runs again had generated: they become history. ``GIVE_UP``
    makes no more retries of a job that has failed.
    """

    AGAIN = "again"
    CANCEL_THEN_AGAIN = "cancel, then again"
    SUPERSEDE = "supersede"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    CANCEL = "cancel"
    GIVE_UP = "give up"
    FORGET = "forget"


S = JobState

TAKES: Mapping[JobVerb, frozenset[JobState]] = {
    JobVerb.RETRY: BROKEN,
    JobVerb.RERUN: FINISHED | ACTIVE,
    JobVerb.PAUSE: frozenset({S.READY, S.WAITING}),
    JobVerb.RESUME: frozenset({S.PAUSED}),
    JobVerb.CANCEL: PENDING | ACTIVE,
    JobVerb.FORGET: FINISHED,
}
"""The states that each verb takes a job from; one that waits for a retry can also be paused and cancelled."""

RERUN_BY_TOKEN = frozenset({S.FAILED, S.REMOTE_ERROR, S.USER_STOPPED})
"""Jobs in these states run again when ``spec.rerun`` of their flow changes."""


class Verdict(msgspec.Struct, frozen=True):
    """What a verb does to a job: an effect, or none for a reason. ``hint`` is what would work.

    ``slight`` tells that the job is just in no state for the verb: of importance only to who named that very
    job, and none to who named its flow.
    """

    effect: Effect | None
    reason: str
    hint: str = ""
    slight: bool = False


def decide(verb: JobVerb, job: JobRecord, flow: FlowRecord | None, suspended_at: str = "") -> Verdict:
    """Return what a verb does to a job.

    ``suspended_at`` is the place of ``spec.suspend`` of its flow, for people.
    """
    if verb is JobVerb.FORGET:
        return _forget(job, wanted=job.current and flow is not None and not flow.removed)
    gone = _gone(job, flow)
    if gone is not None:
        return gone
    of_retry = _of_retry(verb, job) if job.retry_at is not None else None
    if of_retry is not None:
        return of_retry
    if job.state not in TAKES[verb]:
        return Verdict(None, *_state_does_not_fit(verb, job.state), slight=True)
    match verb:
        case JobVerb.RETRY | JobVerb.RERUN:
            return _again(verb, job, suspended=flow is not None and flow.suspended)
        case JobVerb.PAUSE:
            return Verdict(Effect.PAUSE, f"{job.state}: paused until `reconcile resume`")
        case JobVerb.RESUME:
            return _resume(flow, suspended_at)
    return _cancel(job)


def _of_retry(verb: JobVerb, job: JobRecord) -> Verdict | None:
    """What a verb does to a job that waits for an automatic retry, where its state alone says otherwise."""
    match verb:
        case JobVerb.PAUSE:
            return Verdict(Effect.PAUSE, f"{job.state}, to be retried: paused until `reconcile resume`")
        case JobVerb.CANCEL:
            return Verdict(Effect.GIVE_UP, f"{job.state}, to be retried: it is not tried again")
        case JobVerb.RESUME:
            why = f"it is {job.state}, to be retried; resume is for jobs that {_MEANT[verb]}"
            return Verdict(None, why, "`reconcile retry` tries it again now", slight=True)
    return None


def _gone(job: JobRecord, flow: FlowRecord | None) -> Verdict | None:
    """A job that nothing looks after any more; those of an orphaned flow still run by themselves."""
    if flow is None or (flow.removed and not flow.orphaned):
        return Verdict(
            None, "its flow was removed from git", "bring its manifest back, or `reconcile forget`"
        )
    if not job.current:
        return Verdict(
            None, "it is history: a newer job has taken its place", "`reconcile forget` deletes its record"
        )
    return None


def _again(verb: JobVerb, job: JobRecord, *, suspended: bool) -> Verdict:
    attempt = f"attempt {job.attempt + 1}"
    if job.state in ACTIVE:
        if job.again and job.cancel is not None:
            return Verdict(None, "it is being cancelled to run again already", slight=True)
        how = f"{job.state}: cancelled, and once that is done it runs again as {attempt}"
        return Verdict(Effect.CANCEL_THEN_AGAIN, how)
    later = "; not before its flow is no longer suspended" if suspended else ""
    if job.retry_at is not None and verb is JobVerb.RETRY:
        return Verdict(Effect.AGAIN, f"{job.state}, to be retried: that is done now, as {attempt}{later}")
    return Verdict(Effect.AGAIN, f"{job.state}: runs again as {attempt}{later}")


def _resume(flow: FlowRecord | None, suspended_at: str) -> Verdict:
    if flow is None or not flow.suspended:
        return Verdict(Effect.RESUME, "PAUSED: may run again")
    place = f" ({suspended_at})" if suspended_at else ""
    return Verdict(
        None,
        f"its flow is suspended by spec.suspend{place}",
        f"`reconcile set suspend {flow.name} off`, then `reconcile --once`",
    )


def _cancel(job: JobRecord) -> Verdict:
    if job.state in PENDING:
        return Verdict(Effect.STOP, f"{job.state}: it will not run")
    if job.cancel is not None and not job.again:
        return Verdict(None, "it is being cancelled already", slight=True)
    return Verdict(Effect.CANCEL, f"{job.state}: its attempt is ended")


def _forget(job: JobRecord, *, wanted: bool) -> Verdict:
    if wanted:
        return Verdict(
            None,
            f"it is {job.state}, and a job of a flow that is wanted",
            "only history is forgotten: remove the flow from git first",
        )
    if job.state in ACTIVE:
        return Verdict(
            None, f"it is {job.state}: only what has ended is forgotten", "wait until it has ended"
        )
    if job.state in PENDING:
        return Verdict(
            None, f"it is {job.state}: only what has ended is forgotten", "`reconcile cancel` first"
        )
    return Verdict(Effect.FORGET, f"{job.state}: its record and its output are deleted")


def _state_does_not_fit(verb: JobVerb, state: JobState) -> tuple[str, str]:
    """Return why, and what would work."""
    takes = f"{verb} is for jobs that {_MEANT[verb]}"
    if state in ACTIVE:
        return f"it is {state}; {takes}", _WHILE_ACTIVE.get(verb, "")
    return f"it is {state}; {takes}", _WAY_OUT[state] if (verb, state) not in _DONE else ""


_MEANT = {
    JobVerb.RETRY: "are FAILED or REMOTE_ERROR",
    JobVerb.RERUN: "have started",
    JobVerb.PAUSE: "are READY or WAITING",
    JobVerb.RESUME: "are PAUSED",
    JobVerb.CANCEL: "have not ended",
}

_WHILE_ACTIVE = {
    JobVerb.RETRY: "`reconcile rerun` cancels it and runs it again",
    JobVerb.PAUSE: "what was started cannot be paused; `reconcile cancel` ends it",
}

_DONE = {
    (JobVerb.PAUSE, S.PAUSED),
    (JobVerb.RESUME, S.READY),
    (JobVerb.RESUME, S.WAITING),
    *((JobVerb.CANCEL, state) for state in FINISHED),
}
"""Where nothing is left to be done."""

_WAY_OUT = {
    S.READY: "it runs as soon as its worker has a place",
    S.WAITING: "it runs as soon as the jobs that it needs have completed",
    S.PAUSED: "`reconcile resume` lets it run",
    S.COMPLETED: "`reconcile rerun` runs it again all the same",
    S.STOPPED: "`reconcile rerun` runs it all the same",
    S.USER_STOPPED: "`reconcile rerun` runs it after all",
    S.FAILED: "`reconcile retry` runs it again",
    S.REMOTE_ERROR: "`reconcile retry` runs it again",
}
