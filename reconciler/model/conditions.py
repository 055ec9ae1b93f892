"""The conditions Ready, Reconciling and Stalled of a flow or a worker, as Flux and kstatus use them.

Ready: it is as the newest revision wants it, and nothing is left to do. Reconciling: work goes on or is tried
again without your help. Stalled: it waits for your help. A flow with a failed job whose other jobs still run
is both Reconciling and Stalled. SourceVerified: the newest revision is signed, if the policy asks
for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec

from reconciler.model.applied import AppliedConfig, Attempt, AttemptResult
from reconciler.model.health import FlowStatus, many_jobs
from reconciler.model.records import FlowRecord, WorkerStatus
from reconciler.model.states import ACTIVE, BROKEN, Health, JobState, Sync


class ConditionType(StrEnum):
    """What a condition is about."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SOURCE_VERIFIED = "SourceVerified"


class Truth(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(msgspec.Struct, frozen=True):
    """One condition; ``reason`` is a word for programs, ``message`` a line for people."""

    type: ConditionType
    status: Truth
    reason: str
    message: str


class Conditions(msgspec.Struct, frozen=True):
    """All conditions of one object.

    ``last_attempted`` is the revision of the last attempt to apply one, ``last_applied`` the newest revision
    that the object matches; None if there is none.
    """

    conditions: tuple[Condition, ...]
    last_attempted: str | None
    last_applied: str | None


class _Finding(msgspec.Struct, frozen=True):
    """One thing that keeps an object from being ready. ``moves``: it may end without your help."""

    reason: str
    message: str
    moves: bool = False
    stalled: bool = False


# flows ------------------------------------------------------------------------------------------------


def flow_conditions(
    flow: FlowRecord,
    status: FlowStatus,
    sync: Sync,
    why: str,
    config: AppliedConfig | None,
    attempt: Attempt | None,
) -> Conditions:
    """Return the conditions of a flow; ``why`` explains ``sync``, ``attempt`` is the latest one."""
    findings = [
        found
        for found in (
            _of_health(flow, status),
            _of_jobs_that_move(status),
            _of_sync(flow, sync, why, config),
            _of_attempt(config, attempt),
        )
        if found is not None
    ]
    applied = config.revision if config is not None and flow.name not in config.out_of_sync else flow.revision
    done = _Finding("Completed", status.reason)
    return _conditions(findings, done, config, attempt, applied or None)


def never_submitted_conditions(
    reason: str, config: AppliedConfig | None, attempt: Attempt | None
) -> Conditions:
    """Return the conditions of a flow that was never submitted, for a reason."""
    finding = _Finding("NotSubmitted", reason, stalled=True)
    return _conditions([finding], finding, config, attempt, None)


def _of_health(flow: FlowRecord, status: FlowStatus) -> _Finding | None:
    if status.blocked:
        return _Finding("DependencyNotReady", status.reason, stalled=status.health is Health.DEGRADED)
    match status.health:
        case Health.DEGRADED:
            broken = any(state in status.counts for state in BROKEN)
            return _Finding("JobsFailed" if broken else "JobsStuck", status.reason, stalled=True)
        case Health.SUSPENDED:
            word = "Suspended" if flow.suspended else _halted(status.counts)
            return _Finding(word, status.reason)
        case Health.PROGRESSING:
            return _Finding("Progressing", status.reason, moves=True)
    return None


def _halted(counts: Mapping[str, int]) -> str:
    return "JobsPaused" if JobState.PAUSED in counts else "JobsCancelled"


def _of_jobs_that_move(status: FlowStatus) -> _Finding | None:
    """Return that jobs still run in a flow that is not Healthy."""
    moving = sum(status.counts.get(state, 0) for state in (*ACTIVE, JobState.READY))
    if not moving or status.health is Health.PROGRESSING:
        return None
    return _Finding("Progressing", f"{many_jobs(moving)} on the way", moves=True)


def _of_sync(flow: FlowRecord, sync: Sync, why: str, config: AppliedConfig | None) -> _Finding | None:
    if flow.removed:
        return _Finding(
            "Removed", "it was removed from git, and its last jobs are being cancelled", moves=True
        )
    if sync is Sync.SYNCED:
        return None
    if config is not None and flow.name in config.out_of_sync:
        return _Finding("OutOfSync", why, stalled=True)
    return _Finding("ChangesDeferred", why, moves=True)


def _of_attempt(config: AppliedConfig | None, attempt: Attempt | None) -> _Finding | None:
    """Return that a newer revision, which may want the flow changed, could not be applied."""
    if (
        attempt is None
        or not attempt.revision
        or (config is not None and attempt.revision == config.revision)
    ):
        return None
    said = f"{attempt.revision}: {attempt.reason}"
    if attempt.result is AttemptResult.REFUSED:
        return _Finding("RevisionRefused", said, stalled=True)
    if attempt.result is AttemptResult.FAILED:
        return _Finding("RevisionFailed", said, moves=True)
    return None


# workers ----------------------------------------------------------------------------------------------


def worker_conditions(
    status: WorkerStatus | None, active: int, config: AppliedConfig | None, attempt: Attempt | None
) -> Conditions:
    """Return the conditions of a worker; ``active`` is how many jobs it has."""
    applied = config.revision if config is not None else None
    if status is None:
        unknown = _Finding("NotUsedYet", "it has had no job yet")
        made = _conditions([], unknown, config, attempt, applied)
        ready = Condition(ConditionType.READY, Truth.UNKNOWN, unknown.reason, unknown.message)
        return msgspec.structs.replace(made, conditions=(ready, *made.conditions[1:]))
    findings = [] if status.reachable else [_of_outage(status)]
    done = _Finding("Reachable", f"it answers, and has {many_jobs(active)}")
    return _conditions(findings, done, config, attempt, applied)


LASTING = 9
"""This many failures in a row take ten minutes. The worker is still tried again."""


def _of_outage(status: WorkerStatus) -> _Finding:
    """Return an outage; one that lasts needs your attention."""
    said = " - ".join(filter(None, (status.reason, status.fix)))
    return _Finding("Unreachable", said, moves=True, stalled=status.failures >= LASTING)


# both -------------------------------------------------------------------------------------------------


def _conditions(
    findings: list[_Finding],
    done: _Finding,
    config: AppliedConfig | None,
    attempt: Attempt | None,
    applied: str | None,
) -> Conditions:
    attempted = attempt.revision if attempt is not None and attempt.revision else None
    ready = (
        _stated(ConditionType.READY, findings[0], Truth.FALSE)
        if findings
        else _stated(ConditionType.READY, done, Truth.TRUE)
    )
    moves = next((found for found in findings if found.moves), None)
    stalled = next((found for found in findings if found.stalled), None)
    return Conditions(
        conditions=(
            ready,
            _if_any(ConditionType.RECONCILING, moves, "Idle", "nothing is left to do"),
            _if_any(ConditionType.STALLED, stalled, "NotStalled", "nothing waits for your help"),
            *_of_signature(config, attempt),
        ),
        last_attempted=attempted or (config.revision if config is not None else None),
        last_applied=applied,
    )


def _of_signature(config: AppliedConfig | None, attempt: Attempt | None) -> Iterator[Condition]:
    """Yield whether the newest revision is signed, if the policy asks for that."""
    if attempt is not None and attempt.unverified:
        yield Condition(ConditionType.SOURCE_VERIFIED, Truth.FALSE, "NotVerified", attempt.reason)
    elif config is not None and config.signer:
        message = f"{config.revision} is signed by {config.signer}"
        yield Condition(ConditionType.SOURCE_VERIFIED, Truth.TRUE, "Signed", message)


def _if_any(kind: ConditionType, found: _Finding | None, otherwise: str, message: str) -> Condition:
    if found is None:
        return Condition(kind, Truth.FALSE, otherwise, message)
    return _stated(kind, found, Truth.TRUE)


def _stated(kind: ConditionType, found: _Finding, status: Truth) -> Condition:
    return Condition(kind, status, found.reason, found.message)
