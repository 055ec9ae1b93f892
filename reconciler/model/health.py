"""The health of a flow, from the states of its jobs."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from reconciler.model.applied import AppliedConfig
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import BROKEN, Health, JobState, Sync
from reconciler.model.summaries import FlowSummary, JobGroup


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


def flow_status(flow: FlowRecord, summary: FlowSummary) -> FlowStatus:
    """Return the health of a flow. The first jobs with troubles must be known to the summary."""
    health, reason, fix = _judge(flow, summary)
    return FlowStatus(health, reason, summary.states, fix)


class Progress(StrEnum):
    """How far a flow is: each of its jobs has a result, one has failed, or neither."""

    COMPLETED = "completed"
    FAILED = "failed"
    OPEN = "open"


def flow_progress(summary: FlowSummary) -> Progress:
    """Return how far a flow is. A job that is going to be retried is open."""
    if summary.broken is not None:
        return Progress.FAILED
    completed = summary.states.keys() == {JobState.COMPLETED}
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


def flow_sync(flow: FlowRecord, summary: FlowSummary, config: AppliedConfig | None) -> tuple[Sync, str]:
    """Return whether a flow is as the last applied revision wants it, and why not."""
    if config is not None and flow.name in config.out_of_sync:
        return Sync.OUT_OF_SYNC, config.out_of_sync[flow.name]
    # A job that was stopped is as the revision left it: its change waits for a rerun that may never come.
    deferred = summary.deferred
    if deferred:
        return Sync.OUT_OF_SYNC, f"{deferred} deferred change" + ("s" if deferred > 1 else "")
    return Sync.SYNCED, ""


def _judge(flow: FlowRecord, jobs: FlowSummary) -> tuple[Health, str, str]:
    counts = {state: jobs.states.get(state, 0) for state in _TOLD}
    waiting = f"; {many_jobs(counts[JobState.WAITING])} waiting" if counts[JobState.WAITING] else ""
    if jobs.broken is not None:
        return Health.DEGRADED, _first(jobs.broken, "") + waiting, _retry(flow.name)
    if jobs.stuck is not None:
        return Health.DEGRADED, _first(jobs.stuck, "is stuck: "), STUCK_FIX
    if jobs.ended == jobs.jobs:
        cancelled = counts[JobState.USER_STOPPED]
        if cancelled:
            return Health.SUSPENDED, f"{many_jobs(cancelled)} cancelled", _rerun(flow.name)
        return Health.HEALTHY, f"{counts[JobState.COMPLETED]} of {many_jobs(jobs.jobs)} completed", ""
    if flow.suspended:
        why = f"suspended: {flow.suspend_reason}" if flow.suspend_reason else "spec.suspend is true"
        return Health.SUSPENDED, why, _unsuspend(flow.name)
    halted = {"cancelled": counts[JobState.USER_STOPPED], "paused": counts[JobState.PAUSED]}
    if any(halted.values()) and jobs.ended + counts[JobState.PAUSED] + counts[JobState.WAITING] == jobs.jobs:
        parts = [f"{many_jobs(number)} {what}" for what, number in halted.items() if number]
        ways = {"cancelled": _rerun(flow.name), "paused": f"`reconcile resume {flow.name}`"}
        fix = ", ".join(ways[what] for what, number in halted.items() if number)
        return Health.SUSPENDED, ", ".join(parts) + waiting, fix
    again = sum(jobs.retries.values())
    more = f"; {many_jobs(again)} to be retried" if again else ""
    return Health.PROGRESSING, f"{counts[JobState.COMPLETED]} of {many_jobs(jobs.jobs)} completed{more}", ""


_TOLD = (JobState.COMPLETED, JobState.WAITING, JobState.PAUSED, JobState.USER_STOPPED)


def _first(group: JobGroup, what: str) -> str:
    """Return what is wrong with the first job of a group, and how many more there are."""
    assert group.first is not None
    more = f" (and {group.number - 1} more)" if group.number > 1 else ""
    return f"{group.first.key} {what}{group.first.text}{more}"


STUCK_FIX = "commit a run config with which it can start: then it is submitted anew"


def _retry(flow: str) -> str:
    states = ",".join(sorted(BROKEN))
    return f"once the cause is gone: `reconcile retry {flow} state:{states}`; or commit a change of the job"


def _unsuspend(flow: str) -> str:
    return f"`reconcile set suspend {flow} off`"


def _rerun(flow: str) -> str:
    return f"`reconcile rerun {flow} state:{JobState.USER_STOPPED}`"


def many_jobs(number: int) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} job" if number == 1 else f"{number} jobs"
