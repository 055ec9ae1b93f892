"""Goals of `reconcile wait`: whether one holds, may still hold, or cannot hold without your help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from reconciler.model.health import FlowStatus, many_jobs
from reconciler.model.records import JobRecord, WorkerStatus
from reconciler.model.states import ACTIVE, FINISHED, Health, JobState, Sync
from reconciler.model.summaries import FlowSummary


class GoalKind(StrEnum):
    """What `reconcile wait` waits for."""

    HEALTHY = "healthy"
    COMPLETED = "completed"
    SYNCED = "synced"
    IDLE = "idle"
    REACHABLE = "reachable"
    STATE = "state"
    REVISION = "revision"
    DELETED = "deleted"


class Goal(msgspec.Struct, frozen=True):
    """What `reconcile wait` waits for; ``states`` is for ``STATE``, ``revision`` for ``REVISION``."""

    kind: GoalKind
    states: frozenset[JobState] = frozenset()
    revision: str = ""

    @property
    def wanted_states(self) -> frozenset[JobState]:
        """The states in which a job has reached ``STATE`` or ``COMPLETED``."""
        return self.states if self.kind is GoalKind.STATE else frozenset({JobState.COMPLETED})

    def __str__(self) -> str:
        match self.kind:
            case GoalKind.STATE:
                return f"state={','.join(sorted(self.states))}"
            case GoalKind.REVISION:
                return f"revision={self.revision}"
        return str(self.kind)


class Prospect(StrEnum):
    """Whether a goal holds. ``NEVER``: it cannot hold without your help."""

    HOLDS = "holds"
    PENDING = "pending"
    NEVER = "never"


class GoalVerdict(msgspec.Struct, frozen=True):
    """How far a target is; ``target`` is ``flow/x``, ``job/x/y``, ``worker/x`` or ``source``."""

    target: str
    prospect: Prospect
    message: str


Doom = Callable[[JobRecord], str | None]
"""Returns why a waiting job never gets what it needs; None if it may."""

_ENDED_BADLY = FINISHED - {JobState.COMPLETED}


def flow_verdict(
    goal: Goal,
    name: str,
    status: FlowStatus,
    sync: tuple[Sync, str],
    summary: FlowSummary,
    read_jobs: Callable[[], Sequence[JobRecord]],
    doom: Doom,
) -> GoalVerdict:
    """Return how far a flow is from a goal.

    ``read_jobs`` returns its current jobs; it is called only if the summary is not enough.
    """
    target = f"flow/{name}"
    match goal.kind:
        case GoalKind.HEALTHY:
            return _healthy(target, status)
        case GoalKind.SYNCED:
            missing = sync[0] is not Sync.SYNCED
            deferred = missing and any(job.wanted is not None for job in read_jobs())
            return _synced(target, *sync, deferred=deferred)
        case GoalKind.IDLE if not summary.moves:
            return _together(target, goal, summary.jobs, ())
    if goal.kind in (GoalKind.COMPLETED, GoalKind.STATE) and summary.states.keys() <= goal.wanted_states:
        return _together(target, goal, summary.jobs, ())
    found = [job_verdict(goal, job, doom) for job in read_jobs()]
    return _together(target, goal, len(found), [one for one in found if one.prospect is not Prospect.HOLDS])


def _healthy(target: str, status: FlowStatus) -> GoalVerdict:
    message = f"{status.health}: {status.reason}"
    match status.health:
        case Health.HEALTHY:
            return GoalVerdict(target, Prospect.HOLDS, message)
        case Health.DEGRADED | Health.SUSPENDED:
            return GoalVerdict(target, Prospect.NEVER, message)
    return GoalVerdict(target, Prospect.PENDING, message)


def _synced(target: str, sync: Sync, why: str, *, deferred: bool) -> GoalVerdict:
    message = f"{sync}: {why}" if why else str(sync)
    if sync is Sync.SYNCED:
        return GoalVerdict(target, Prospect.HOLDS, message)
    return GoalVerdict(target, Prospect.PENDING if deferred else Prospect.NEVER, message)


def job_verdict(goal: Goal, job: JobRecord, doom: Doom) -> GoalVerdict:
    """Return how far a job is from a goal."""
    target, message = f"job/{job.path}", _said(job)
    if goal.kind is GoalKind.DELETED:
        return GoalVerdict(target, Prospect.PENDING if job.current else Prospect.HOLDS, message)
    if goal.kind is GoalKind.IDLE:
        return GoalVerdict(target, Prospect.PENDING if moves(job) else Prospect.HOLDS, message)
    if job.state in goal.wanted_states:
        return GoalVerdict(target, Prospect.HOLDS, message)
    if job.ended or job.state is JobState.PAUSED or job.attempt.stuck:
        return GoalVerdict(target, Prospect.NEVER, message)
    why = doom(job) if job.state is JobState.WAITING else None
    if why is not None:
        return GoalVerdict(target, Prospect.NEVER, f"{message}; {why}")
    return GoalVerdict(target, Prospect.PENDING, message)


def moves(job: JobRecord) -> bool:
    """Return whether a job is active, or becomes active without help."""
    return job.state in ACTIVE or job.state is JobState.READY or job.retry.at is not None


def _said(job: JobRecord) -> str:
    why = (
        f"stuck: {job.attempt.stuck}" if job.attempt.stuck else (job.error or "").strip().rpartition("\n")[2]
    )
    return f"{job.state}: {why}" if why else str(job.state)


def _together(target: str, goal: Goal, jobs: int, missing: Sequence[GoalVerdict]) -> GoalVerdict:
    """Return how far all jobs of a flow are from a goal; ``missing`` are those that have not reached it."""
    text = f"{jobs - len(missing)} of {many_jobs(jobs)} {goal}"
    for prospect in (Prospect.NEVER, Prospect.PENDING):
        first = next((verdict for verdict in missing if verdict.prospect is prospect), None)
        if first is not None:
            return GoalVerdict(
                target, prospect, f"{text}; {first.target.removeprefix('job/')} {first.message}"
            )
    return GoalVerdict(target, Prospect.HOLDS, text)


def waits_in_vain(parent: JobRecord, on_missing: str) -> bool:
    """Return whether a job that needs ``parent`` waits until a person acts on that."""
    if on_missing != "error":
        return parent.state is JobState.PAUSED
    return (parent.ended and parent.state in _ENDED_BADLY) or parent.state is JobState.PAUSED


def worker_verdict(name: str, status: WorkerStatus | None) -> GoalVerdict:
    """Return whether a worker answers. Until it does, it is tried again and again."""
    target = f"worker/{name}"
    if status is None:
        return GoalVerdict(target, Prospect.PENDING, "it has not been used yet")
    if status.reachable:
        return GoalVerdict(target, Prospect.HOLDS, "Reachable")
    return GoalVerdict(target, Prospect.PENDING, f"Unreachable: {status.reason}")
