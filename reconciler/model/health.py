"""The health of a flow, from the states of its jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from reconciler.model.failures import error_line
from reconciler.model.records import AppliedConfig, FlowRecord, JobGlance, JobRecord
from reconciler.model.states import ACTIVE, BROKEN, ON_WORKER, Health, JobState, Sync


class FlowStatus(msgspec.Struct, frozen=True):
    """The health of a flow, the reason, and the number of its current jobs in each state.

    ``fix`` is what you can do so that it goes on; empty if there is nothing to do. ``blocked``: its jobs wait
    for a job of another flow, which does not go on either.
    """

    health: Health
    reason: str
    counts: dict[str, int]
    fix: str = ""
    blocked: bool = False


def flow_status(flow: FlowRecord, jobs: Sequence[JobRecord | JobGlance]) -> FlowStatus:
    """Return the health of a flow; ``jobs`` are all its records, including superseded ones."""
    current = [job for job in jobs if job.current]
    counts = Counter(str(job.state) for job in current)
    health, reason, fix = _judge(flow, current, counts)
    return FlowStatus(health, reason, dict(sorted(counts.items())), fix)


class Progress(StrEnum):
    """How far a flow is: each of its jobs has a result, one has failed, or neither."""

    COMPLETED = "completed"
    FAILED = "failed"
    OPEN = "open"


def flow_progress(jobs: Sequence[JobRecord | JobGlance]) -> Progress:
    """Return how far a flow is; ``jobs`` are its current jobs. A job that is going to be retried is open."""
    if any(job.state in BROKEN and job.ended for job in jobs):
        return Progress.FAILED
    completed = bool(jobs) and all(job.state is JobState.COMPLETED for job in jobs)
    return Progress.COMPLETED if completed else Progress.OPEN


def blocked_status(status: FlowStatus, why: str, parent: JobRecord, fix: str) -> FlowStatus:
    """Return the status of a flow whose jobs all wait for a job of another flow that does not go on."""
    halted = parent.state in (JobState.PAUSED, JobState.USER_STOPPED)
    health = Health.SUSPENDED if halted else Health.DEGRADED
    return FlowStatus(health, why, status.counts, fix, blocked=True)


def way_on(job: JobRecord, flow: FlowRecord | None) -> str:
    """Return what you can do so that a job goes on; ``flow`` is the record of its flow."""
    if flow is None or flow.removed:
        return f"flow {job.flow} was removed from git: bring its manifest back"
    if not job.current:
        return f"{job.path} is superseded: bring its manifest back as it was, for example with `git revert`"
    match job.state:
        case JobState.STOPPED | JobState.USER_STOPPED:
            return f"`reconcile rerun {job.path}`"
        case JobState.PAUSED if flow.suspended:
            return _unsuspend(flow.name)
        case JobState.PAUSED:
            return f"`reconcile resume {job.path}`"
        case JobState.FAILED | JobState.REMOTE_ERROR:
            return f"once the cause is gone: `reconcile retry {job.path}`"
    return ""


def flow_sync(flow: FlowRecord, jobs: Sequence[JobRecord], config: AppliedConfig | None) -> tuple[Sync, str]:
    """Return whether a flow is as the last applied revision wants it, and why not."""
    if config is not None and flow.name in config.out_of_sync:
        return Sync.OUT_OF_SYNC, config.out_of_sync[flow.name]
    # A job that was stopped is as the revision left it: its change waits for a rerun that may never come.
    deferred = sum(1 for job in jobs if job.wanted is not None and job.state in ACTIVE)
    if deferred:
        return Sync.OUT_OF_SYNC, f"{deferred} deferred change" + ("s" if deferred > 1 else "")
    return Sync.SYNCED, ""


def _judge(
    flow: FlowRecord, jobs: Sequence[JobRecord | JobGlance], counts: Counter[str]
) -> tuple[Health, str, str]:
    broken = [job for job in jobs if job.state in BROKEN and job.ended]
    if broken:
        return Health.DEGRADED, _explain_broken(broken, counts[JobState.WAITING]), _retry(flow.name)
    stuck = [job for job in jobs if job.attempt.stuck and job.state in ON_WORKER]
    if stuck:
        return Health.DEGRADED, f"{stuck[0].key} is stuck: {stuck[0].attempt.stuck}{_more(stuck)}", STUCK_FIX
    if all(job.ended for job in jobs):
        cancelled = counts[JobState.USER_STOPPED]
        if cancelled:
            return Health.SUSPENDED, f"{many_jobs(cancelled)} cancelled", _rerun(flow.name)
        return Health.HEALTHY, f"{counts[JobState.COMPLETED]} of {many_jobs(len(jobs))} completed", ""
    if flow.suspended:
        why = f"suspended: {flow.suspend_reason}" if flow.suspend_reason else "spec.suspend is true"
        return Health.SUSPENDED, why, _unsuspend(flow.name)
    halted = {"cancelled": counts[JobState.USER_STOPPED], "paused": counts[JobState.PAUSED]}
    if any(halted.values()) and all(job.ended or job.state in _STILL for job in jobs):
        waiting = f"; {many_jobs(counts[JobState.WAITING])} waiting" if counts[JobState.WAITING] else ""
        parts = [f"{many_jobs(number)} {what}" for what, number in halted.items() if number]
        ways = {"cancelled": _rerun(flow.name), "paused": f"`reconcile resume {flow.name}`"}
        fix = ", ".join(ways[what] for what, number in halted.items() if number)
        return Health.SUSPENDED, ", ".join(parts) + waiting, fix
    again = sum(job.retry.at is not None for job in jobs)
    more = f"; {many_jobs(again)} to be retried" if again else ""
    return Health.PROGRESSING, f"{counts[JobState.COMPLETED]} of {many_jobs(len(jobs))} completed{more}", ""


_STILL = frozenset({JobState.PAUSED, JobState.WAITING})
"""States, besides ended ones, in which a job goes on only if a person or another flow acts."""


def _explain_broken(broken: Sequence[JobRecord | JobGlance], waiting: int) -> str:
    first = broken[0]
    text = f"{first.key} {first.state}"
    if first.error:
        text += f": {error_line(first.error)}"
    text += _more(broken)
    if waiting:
        text += f"; {many_jobs(waiting)} waiting"
    return text


STUCK_FIX = "commit a run config with which it can start: then it is submitted anew"


def _retry(flow: str) -> str:
    states = ",".join(sorted(BROKEN))
    return f"once the cause is gone: `reconcile retry {flow} state:{states}`; or commit a change of the job"


def _unsuspend(flow: str) -> str:
    return f"`reconcile set suspend {flow} off`"


def _rerun(flow: str) -> str:
    return f"`reconcile rerun {flow} state:{JobState.USER_STOPPED}`"


def _more(jobs: Sequence[JobRecord | JobGlance]) -> str:
    return f" (and {len(jobs) - 1} more)" if len(jobs) > 1 else ""


def many_jobs(number: int) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} job" if number == 1 else f"{number} jobs"
