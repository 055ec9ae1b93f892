"""What there is to tell, read from the store.

Events only say which flows and jobs to look at. What is told is their condition now, so a job that failed
and already runs again is not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from reconciler.actual.view import View
from reconciler.jobs.flow_health import health_of
from reconciler.model.applied import AppliedConfig, AttemptResult
from reconciler.model.conditions import LASTING, Truth, flow_conditions
from reconciler.model.failures import error_line, fix_of
from reconciler.model.health import STUCK_FIX, flow_sync
from reconciler.model.notifications import Notice, NotifyRule, NotifyState
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import BROKEN, ON_WORKER, JobState

_EVENTS_AT_ONCE = 500


def new_notices(view: View, rule: NotifyRule, state: NotifyState) -> tuple[list[Notice], NotifyState]:
    """Return what a rule has to tell, and its state once that was told.

    Each condition of a flow or job is told once for each revision; one of a worker or the source once, until
    it has ended.
    """
    config = view.config()
    if config is None:
        return [], state
    known, is_new = set(state.told), config.revision != state.revision
    flows, jobs = _touched(view, state.cursor)
    if is_new:
        flows.update(config.out_of_sync)
    lasting = [*_of_workers(view, config, known), *_of_source(view)]
    found = [*lasting, *_of_flows(view, flows, config), *_of_jobs(view, jobs, config)]
    fresh = [notice for notice in found if rule.selects(notice) and notice.identity not in known]
    still = {notice.identity for notice in lasting}
    kept = {
        identity
        for identity in known
        if identity in still or (identity.startswith(("flow/", "job/")) and not is_new)
    }
    return fresh, msgspec.structs.replace(
        state,
        cursor=view.last_event(),
        revision=config.revision,
        told=sorted(kept | {notice.identity for notice in fresh}),
    )


def _touched(view: View, cursor: int) -> tuple[set[str], set[str]]:
    """Return the flows, and the ids of the jobs, that events after a number are about."""
    flows, jobs = set[str](), set[str]()
    for start in range(cursor, view.last_event(), _EVENTS_AT_ONCE):
        for _, event in view.events_after(start, _EVENTS_AT_ONCE):
            kind, _, name = event.about.partition("/")
            if kind in ("flow", "job"):
                flows.add(name.partition("/")[0])
            if event.job is not None:
                jobs.add(event.job)
    return flows, jobs


def _of_flows(view: View, names: Iterable[str], config: AppliedConfig) -> Iterator[Notice]:
    """Yield the condition of each flow: why it needs help or, if it does not, whether it is ready."""
    for name in sorted(names):
        flow = view.flow(name)
        if flow is None or flow.orphaned:
            if name in config.out_of_sync:
                entry = view.entry(name)
                yield Notice(
                    object=f"flow/{name}",
                    reason="NotSubmitted",
                    message=config.out_of_sync[name],
                    revision=config.revision,
                    flow=name,
                    labels=entry.labels if entry is not None else {},
                )
            continue
        if flow.removed:
            continue
        summary = view.summary(name)
        status = health_of(view, flow, summary)
        found = flow_conditions(flow, status, *flow_sync(flow, summary, config), config, None).conditions
        ready, _, stalled = found
        told = stalled if stalled.status is Truth.TRUE else ready
        yield Notice(
            object=f"flow/{name}",
            reason=told.reason,
            message=told.message,
            fix=status.fix,
            revision=config.revision,
            flow=name,
            labels=flow.labels,
        )


def _of_jobs(view: View, ids: Iterable[str], config: AppliedConfig) -> Iterator[Notice]:
    flows: dict[str, FlowRecord | None] = {}
    for job_id in sorted(ids):
        job = view.job(job_id)
        if job is None or not job.current:
            continue
        reason, message, fix = _state_of(job)
        if reason is None:
            continue
        if job.flow not in flows:
            flows[job.flow] = view.flow(job.flow)
        flow = flows[job.flow]
        yield Notice(
            object=f"job/{job.path}",
            reason=reason,
            message=message,
            fix=fix,
            revision=config.revision,
            flow=job.flow,
            labels=flow.labels if flow is not None else {},
        )


def _state_of(job: JobRecord) -> tuple[str | None, str, str]:
    """Return reason, message and fix of a job; no reason if its state is none of those that are told."""
    if job.state in BROKEN and job.ended:
        return "JobFailed", error_line(job.error), fix_of(job.cause)
    if job.attempt.stuck and job.state in ON_WORKER:
        return "JobStuck", job.attempt.stuck, STUCK_FIX
    if job.state is JobState.COMPLETED:
        seconds = f" after {job.attempt.seconds:.0f} s" if job.attempt.seconds is not None else ""
        return "JobCompleted", f"completed{seconds}", ""
    return None, "", ""


def _of_workers(view: View, config: AppliedConfig, known: set[str]) -> Iterator[Notice]:
    """Yield the outages that last, and for workers of which an outage was told, that it has ended."""
    for name in sorted(config.workers):
        status = view.worker_status(name)
        if status is None:
            continue
        outage = Notice(
            object=f"worker/{name}",
            reason="Unreachable",
            message=status.reason,
            fix=status.fix,
            revision=config.revision,
        )
        if not status.reachable and status.failures >= LASTING:
            yield outage
        elif status.reachable and outage.identity in known:
            yield msgspec.structs.replace(outage, reason="Reachable", message="it answers again", fix="")


def _of_source(view: View) -> Iterator[Notice]:
    """Yield what became of the newest revision; a failure only if it lasts."""
    attempt, last = view.counted_attempt(), view.last_revision()
    if attempt is not None:
        lasts = attempt.result is not AttemptResult.FAILED or attempt.failures >= LASTING
        if attempt.result is not AttemptResult.APPLIED and lasts:
            yield Notice(
                object="source",
                reason=f"Revision{attempt.result}",
                message=attempt.reason,
                fix=attempt.fix,
                revision=attempt.revision,
            )
    if last is not None:
        what = ", ".join(f"{number} {action}" for action, number in last.summary.items() if number)
        yield Notice(
            object="source",
            reason="RevisionApplied",
            message=f"{last.subject or last.commit[:7]} ({last.author or 'unknown'}): {what or 'no changes'}",
            revision=str(last),
        )
