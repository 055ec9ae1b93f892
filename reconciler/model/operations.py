"""What you can ask of a job, in which of its states, and with what effect. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import ACTIVE, BROKEN, FINISHED, PENDING, JobState


class JobOperation(StrEnum):
    """What you can ask of a job."""

    RETRY = "retry"
    RERUN = "rerun"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FORGET = "forget"
    ABANDON = "abandon"


class Effect(StrEnum):
    """What happens to one job.

    ``SUPERSEDE`` is for the jobs that a job which runs again had generated. ``GIVE_UP`` takes the automatic
    retry from a failed job. ``ABANDON`` no longer waits for attempts on workers that do not answer.
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
    ABANDON = "abandon"


S = JobState

TAKES: Mapping[JobOperation, frozenset[JobState]] = {
    JobOperation.RETRY: BROKEN,
    JobOperation.RERUN: FINISHED | ACTIVE,
    JobOperation.PAUSE: frozenset({S.READY, S.WAITING}),
    JobOperation.RESUME: frozenset({S.PAUSED}),
    JobOperation.CANCEL: PENDING | ACTIVE,
    JobOperation.FORGET: FINISHED,
    JobOperation.ABANDON: ACTIVE,
}
"""The states that each operation is for; a job that waits for a retry can also be paused and cancelled."""

RERUN_BY_TOKEN = frozenset({S.FAILED, S.REMOTE_ERROR, S.USER_STOPPED})
"""Jobs in these states run again when ``spec.rerun`` of their flow changes."""


class OperationVerdict(msgspec.Struct, frozen=True):
    """What an operation does to a job: an effect, or none for a reason. ``hint`` is what would work.

    ``slight``: only the state of the job does not fit. That matters to a user who named this job, and not to
    one who named its flow.
    """

    effect: Effect | None
    reason: str
    hint: str = ""
    slight: bool = False


def decide(
    operation: JobOperation, job: JobRecord, flow: FlowRecord | None, suspended_at: str = ""
) -> OperationVerdict:
    """Return what an operation does to a job.

    ``suspended_at`` is the place of ``spec.suspend`` of its flow, for messages.
    """
    if operation is JobOperation.FORGET:
        return _forget(job, wanted=job.current and flow is not None and not flow.removed)
    if operation is JobOperation.ABANDON:
        return _abandon(job)
    gone = _gone(job, flow)
    if gone is not None:
        return gone
    of_retry = _of_retry(operation, job) if job.retry.at is not None else None
    if of_retry is not None:
        return of_retry
    if job.state not in TAKES[operation]:
        return OperationVerdict(None, *_state_does_not_fit(operation, job.state), slight=True)
    match operation:
        case JobOperation.RETRY | JobOperation.RERUN:
            return _again(operation, job, suspended=flow is not None and flow.suspended)
        case JobOperation.PAUSE:
            return OperationVerdict(Effect.PAUSE, f"{job.state}: paused until `reconcile resume`")
        case JobOperation.RESUME:
            return _resume(flow, suspended_at)
    return _cancel(job)


def _of_retry(operation: JobOperation, job: JobRecord) -> OperationVerdict | None:
    """Return what an operation does to a job that waits for a retry, where its state alone says otherwise."""
    match operation:
        case JobOperation.PAUSE:
            return OperationVerdict(
                Effect.PAUSE, f"{job.state}, to be retried: paused until `reconcile resume`"
            )
        case JobOperation.CANCEL:
            return OperationVerdict(Effect.GIVE_UP, f"{job.state}, to be retried: it is not tried again")
        case JobOperation.RESUME:
            why = f"it is {job.state}, to be retried; resume is for jobs that {_MEANT[operation]}"
            return OperationVerdict(None, why, "`reconcile retry` tries it again now", slight=True)
    return None


def _gone(job: JobRecord, flow: FlowRecord | None) -> OperationVerdict | None:
    """Return that a job is superseded, or its flow removed; jobs of an orphaned flow still run."""
    if flow is None or (flow.removed and not flow.orphaned):
        return OperationVerdict(
            None, "its flow was removed from git", "bring its manifest back, or `reconcile forget`"
        )
    if not job.current:
        return OperationVerdict(
            None, "it is superseded by a newer job", "`reconcile forget` deletes its record"
        )
    return None


def _again(operation: JobOperation, job: JobRecord, *, suspended: bool) -> OperationVerdict:
    attempt = f"attempt {job.attempt.number + 1}"
    if job.state in ACTIVE:
        if job.cancellation.rerun and job.cancelling:
            return OperationVerdict(None, "it is being cancelled to run again already", slight=True)
        how = f"{job.state}: cancelled, and once that is done it runs again as {attempt}"
        return OperationVerdict(Effect.CANCEL_THEN_AGAIN, how)
    later = "; not before its flow is no longer suspended" if suspended else ""
    if job.retry.at is not None and operation is JobOperation.RETRY:
        return OperationVerdict(
            Effect.AGAIN, f"{job.state}, to be retried: that is done now, as {attempt}{later}"
        )
    if job.has_uncollected_result and operation is JobOperation.RETRY:
        return OperationVerdict(Effect.AGAIN, f"{job.state}: its result is collected again; it does not run")
    return OperationVerdict(Effect.AGAIN, f"{job.state}: runs again as {attempt}{later}")


def _resume(flow: FlowRecord | None, suspended_at: str) -> OperationVerdict:
    if flow is None or not flow.suspended:
        return OperationVerdict(Effect.RESUME, "PAUSED: may run again")
    place = f" ({suspended_at})" if suspended_at else ""
    return OperationVerdict(
        None,
        f"its flow is suspended by spec.suspend{place}",
        f"`reconcile set suspend {flow.name} off`, then `reconcile --once`",
    )


def _cancel(job: JobRecord) -> OperationVerdict:
    if job.state in PENDING:
        return OperationVerdict(Effect.STOP, f"{job.state}: it will not run")
    if job.cancelling and not job.cancellation.rerun:
        return OperationVerdict(None, "it is being cancelled already", slight=True)
    return OperationVerdict(Effect.CANCEL, f"{job.state}: its attempt is cancelled")


def _abandon(job: JobRecord) -> OperationVerdict:
    if job.state in ACTIVE:
        where = f" on worker '{job.attempt.worker}'" if job.attempt.worker else ""
        return OperationVerdict(
            Effect.ABANDON,
            f"{job.state}: attempt {job.attempt.number}{where} counts as lost from now on, and may still run",
        )
    if job.left:
        where = ", ".join(sorted({f"'{one.worker}'" for one in job.left}))
        return OperationVerdict(
            Effect.ABANDON,
            f"{job.state}: earlier attempts on worker {where} are forgotten, and may still run",
        )
    return OperationVerdict(None, *_state_does_not_fit(JobOperation.ABANDON, job.state), slight=True)


def _forget(job: JobRecord, *, wanted: bool) -> OperationVerdict:
    if wanted:
        return OperationVerdict(
            None,
            f"it is {job.state}, and belongs to a flow that is wanted",
            "only superseded jobs are forgotten: remove the flow from git first",
        )
    if job.state in ACTIVE:
        return OperationVerdict(
            None, f"it is {job.state}: only what has ended is forgotten", "wait until it has ended"
        )
    if job.state in PENDING:
        return OperationVerdict(
            None, f"it is {job.state}: only what has ended is forgotten", "`reconcile cancel` first"
        )
    return OperationVerdict(Effect.FORGET, f"{job.state}: its record and its output are deleted")


def _state_does_not_fit(operation: JobOperation, state: JobState) -> tuple[str, str]:
    """Return why, and what would work."""
    if operation is JobOperation.ABANDON:
        return f"it is {state}; abandon is for jobs that {_MEANT[operation]}", ""
    takes = f"{operation} is for jobs that {_MEANT[operation]}"
    if state in ACTIVE:
        return f"it is {state}; {takes}", _WHILE_ACTIVE.get(operation, "")
    return f"it is {state}; {takes}", _WAY_OUT[state] if (operation, state) not in _DONE else ""


_MEANT = {
    JobOperation.RETRY: "are FAILED or REMOTE_ERROR",
    JobOperation.RERUN: "have started",
    JobOperation.PAUSE: "are READY or WAITING",
    JobOperation.RESUME: "are PAUSED",
    JobOperation.CANCEL: "have not ended",
    JobOperation.ABANDON: "are active or have left an attempt",
}

_WHILE_ACTIVE = {
    JobOperation.RETRY: "`reconcile rerun` cancels it and runs it again",
    JobOperation.PAUSE: "an active job cannot be paused; `reconcile cancel` ends it",
}

_DONE = {
    (JobOperation.PAUSE, S.PAUSED),
    (JobOperation.RESUME, S.READY),
    (JobOperation.RESUME, S.WAITING),
    *((JobOperation.CANCEL, state) for state in FINISHED),
}
"""Operations that have nothing to do in a state: they need no hint."""

_WAY_OUT = {
    S.READY: "it runs as soon as its worker is free",
    S.WAITING: "it runs as soon as the jobs that it needs have completed",
    S.PAUSED: "`reconcile resume` lets it run",
    S.COMPLETED: "`reconcile rerun` runs it again all the same",
    S.STOPPED: "`reconcile rerun` runs it all the same",
    S.USER_STOPPED: "`reconcile rerun` runs it after all",
    S.FAILED: "`reconcile retry` runs it again",
    S.REMOTE_ERROR: "`reconcile retry` runs it again",
}
