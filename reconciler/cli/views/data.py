"""Records as plain data: the JSON contract of every listing (``schemas/output/``)."""

from __future__ import annotations

import fnmatch
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from reconciler.actual.view import View
from reconciler.cli.views.conditions import conditions_data
from reconciler.desired.makers import maker_references
from reconciler.jobs.flow_health import health_of
from reconciler.jobs.waiting import WhyWaiting, why_flow_waits
from reconciler.model.actions import Action, DryBuild, Plan, started
from reconciler.model.applied import AppliedConfig, Attempt
from reconciler.model.conditions import flow_conditions, never_submitted_conditions, worker_conditions
from reconciler.model.desired import DesiredState
from reconciler.model.failures import failure_id, failure_pattern, fix_of
from reconciler.model.flows import job_id
from reconciler.model.health import Progress, flow_progress, flow_sync
from reconciler.model.manifests import Kind, Manifest, RuleSpec, WorkerSpec
from reconciler.model.records import Allocation, Event, FlowRecord, JobRecord, WorkerStatus
from reconciler.model.run_config import Rule
from reconciler.model.states import ACTIVE, Health, JobState, Sync
from reconciler.plan.cost import Cost

PLAN_SCHEMA_VERSION = 1

Data = dict[str, Any]


def job_keys(jobs: Iterable[JobRecord]) -> dict[str, str]:
    """Return ``flow/job`` by ``<uuid>_<index>``, and that of the first generation by uuid alone."""
    keys: dict[str, str] = {}
    for job in jobs:
        keys.setdefault(job.uuid, job.path)
        keys[job.id] = job.path
    return keys


def ordered_jobs(view: View, flow: str) -> list[JobRecord]:
    """Return the jobs of a flow, history included, in the order of its definition.

    A job keeps its place when it runs again or is replaced; generated jobs follow their generator by age.
    """
    jobs = view.jobs_of(flow)
    record = view.flow(flow)
    build = view.build(record.build_key) if record is not None else None
    place = {job.key: number for number, job in enumerate(build.jobs)} if build is not None else {}
    places: dict[str, int] = {}
    for job in jobs:  # a generator is older than the jobs that it generates
        own = place.get(job.key, len(place)) if job.generator is None else places.get(job.generator)
        places[job.id] = len(place) if own is None else own
    return sorted(jobs, key=lambda job: (places[job.id], job.generator is not None, job.sequence))


def job_data(job: JobRecord, keys: Mapping[str, str], why: WhyWaiting) -> Data:
    """Return a job; ``keys`` is :func:`job_keys` of its flow, ``why`` tells why it waits."""
    resources = job.asked
    by = job.generated_by
    generator = keys.get(job_id(by.uuid, by.index), by.uuid) if by is not None else None
    deferred = {change.field: change.new for change in job.deferred_changes} if job.deferred else None
    return {
        "key": job.path,
        "flow": job.flow,
        "name": job.name,
        "uuid": job.uuid,
        "index": job.index,
        "state": str(job.state),
        "editable": job.editable,
        "worker": job.config.value("worker"),
        "exec_config": job.config.value("exec_config"),
        "resources": resources.values if resources is not None and not resources.generic else None,
        "qresources": resources.values if resources is not None and resources.generic else None,
        "priority": job.config.priority_value,
        "deferred": deferred,
        "generated_by": generator,
        "run_dir": job.attempt.run_dir,
        "run_worker": job.attempt.worker,
        "error": job.error,
        "cause": job.cause,
        "stuck": job.attempt.stuck,
        "waiting": why.job(job),
        "expected_start": job.attempt.expected_start,
        "retries": job.config.value("retries"),
        "retried": job.retry.causes,
        "retry_at": job.retry.at,
        "attempt": job.attempt.number,
        "submitted": job.attempt.submitted,
        "started": job.attempt.started,
        "ended": job.attempt.ended,
        "seconds": job.attempt.seconds,
        "cpu": job.attempt.cpu,
        "memory": job.attempt.memory,
        "function": job.function,
        "current": job.current,
        "queue_id": job.attempt.queue_id,
        "parents": [keys.get(parent, parent) for parent in job.parents],
    }


def flow_data(
    view: View, flow: FlowRecord, config: AppliedConfig | None, attempt: Attempt | None, why_of: WhyWaiting
) -> Data:
    """Return a flow; ``attempt`` is :meth:`View.counted_attempt`, ``why_of`` tells why a job waits."""
    summary = view.summary(flow.name)
    status = health_of(view, flow, summary)
    waits = None
    if status.health is Health.PROGRESSING:
        waits = why_flow_waits(summary, lambda: view.jobs_of(flow.name), why_of)
    if waits is not None:
        status = msgspec.structs.replace(status, reason=f"{status.reason}; {waits}")
    sync, why = flow_sync(flow, summary, config)
    return {
        "name": flow.name,
        "sync": str(sync),
        "health": str(status.health),
        "reason": status.reason if sync is Sync.SYNCED else f"{status.reason}; {why}",
        "fix": status.fix,
        "revision": flow.revision,
        "jobs": status.counts,
        "labels": flow.labels,
        "flowset": flow.flowset,
        "item": flow.item,
        "suspended": flow.suspended,
        "removed": flow.removed,
        **conditions_data(flow_conditions(flow, status, sync, why, config, attempt)),
    }


def flows_data(view: View) -> list[Data]:
    """Return all flows by name: those of the store that are not gone, and those that cannot be submitted."""
    config, attempt, why = view.config(), view.counted_attempt(), WhyWaiting(view)
    flows = [flow for flow in view.flows() if not flow.orphaned]
    rows = [flow_data(view, flow, config, attempt, why) for flow in flows if not is_gone(view, flow)]
    submitted = {flow.name for flow in flows}
    if config is not None:
        for name, reason in config.out_of_sync.items():
            if name not in submitted:
                rows.append(_never_submitted(name, reason, config, attempt))
    return sorted(rows, key=lambda row: str(row["name"]))


def flowsets_data(view: View) -> list[Data]:
    """Return the FlowSets of the last applied revision by name, and those that only have flows left."""
    config = view.config()
    found: dict[str, Data] = {
        name: {"items": known.items, "frozen": known.frozen}
        for name, known in (config.flowsets.items() if config is not None else ())
    }
    counts: dict[str, Counter[str]] = {}
    jobs: dict[str, Counter[str]] = {}
    for flow in view.flows():
        if flow.flowset is None or flow.removed:
            continue
        found.setdefault(flow.flowset, {"items": 0, "frozen": None})
        summary = view.summary(flow.name)
        counts.setdefault(flow.flowset, Counter()).update(("flows", flow_progress(summary)))
        jobs.setdefault(flow.flowset, Counter()).update(summary.states)
    return [
        {
            "name": name,
            "items": found[name]["items"],
            "flows": counts.get(name, Counter())["flows"],
            "completed": counts.get(name, Counter())[Progress.COMPLETED],
            "failed": counts.get(name, Counter())[Progress.FAILED],
            "jobs": {str(s): jobs[name][s] for s in JobState if jobs.get(name, Counter())[s]},
            "frozen": found[name]["frozen"],
        }
        for name in sorted(found)
    ]


def is_gone(view: View, flow: FlowRecord) -> bool:
    """Return whether a flow was removed and its last job has ended. Listings leave it out."""
    return flow.removed and not view.summary(flow.name).active


def _never_submitted(name: str, reason: str, config: AppliedConfig, attempt: Attempt | None) -> Data:
    """Return a flow without a record: its document or its build was never valid."""
    reason = reason.removeprefix("last good version kept: ")
    return {
        "name": name, "sync": str(Sync.UNKNOWN), "health": str(Health.DEGRADED), "reason": reason,
        "fix": "", "revision": config.revision, "jobs": {}, "labels": {}, "flowset": None,
        "item": {}, "suspended": False, "removed": False,
        **conditions_data(never_submitted_conditions(reason, config, attempt)),
    }  # fmt: skip


def worker_data(view: View, name: str, spec: WorkerSpec) -> Data:
    """Return a worker with its number of jobs and the result of its last poll."""
    status = view.worker_status(name)
    known = status or WorkerStatus(reachable=True)
    active = sum(view.count_in_state(state, name) for state in ACTIVE)
    conditions = worker_conditions(status, active, view.config(), view.counted_attempt())
    return {
        "name": name,
        "type": spec.type,
        "scheduler_type": spec.scheduler_type,
        "work_dir": spec.work_dir,
        "max_jobs": spec.max_jobs,
        "active": active,
        "ready": view.count_in_state(JobState.READY, name),
        "reachable": known.reachable if status is not None else None,
        "reason": known.reason,
        "fix": known.fix,
        "failures": known.failures,
        "next_try": known.next_try or None,
        "last_seen": known.last_seen,
        "python": known.python or None,
        "jobflow": known.jobflow or None,
        **conditions_data(conditions),
    }


def batches_data(view: View, worker: str, now: float) -> list[Data]:
    """Return the allocations of a worker, oldest first."""
    status = view.worker_status(worker)
    return [allocation_data(worker, one, now) for one in (status.allocations if status is not None else [])]


def allocation_data(worker: str, one: Allocation, now: float) -> Data:
    """Return one allocation. ``remaining`` are the seconds that it still lasts, as far as that is known."""
    if one.ended is not None:
        state = "ended"
    elif one.running:
        state = "running"
    else:
        state = "pending" if one.queue_id is not None else "submitting"
    remaining = max(0.0, one.until - now) if one.until is not None and state == "running" else None
    return {
        "worker": worker, "allocation": one.name, "queue_id": one.queue_id, "state": state,
        "node": one.node or None, "slots": one.slots, "busy": one.busy, "done": one.done,
        "remaining": remaining, "closed": one.closed, "submitted": one.submitted or None,
        "ended": one.ended, "reason": one.waiting,
    }  # fmt: skip


def worker_facts(view: View, name: str, spec: WorkerSpec, limit: int) -> Data:
    """Return a worker with its jobs by state and its last ``limit`` events."""
    counts = {str(state): view.count_in_state(state, name) for state in JobState}
    return worker_data(view, name, spec) | {
        "host": spec.connection.name if spec.connection is not None else None,
        "jobs": {state: count for state, count in counts.items() if count},
        "events": [event_data(event) for event in view.events(f"worker/{name}", limit=limit)],
        "allocations": batches_data(view, name, time.time()),
    }


def _failure_data(group: str, jobs: Sequence[JobRecord]) -> Data:
    """Return jobs that failed alike; ``group`` is their :func:`failure_id`. ``error`` is what they share."""
    first = jobs[0]
    return {
        "failure": group,
        "jobs": len(jobs),
        "flows": len({job.flow for job in jobs}),
        "state": str(first.state),
        "cause": first.cause,
        "error": failure_pattern(first),
        "example": first.path,
        "workers": sorted({job.attempt.worker or job.config.worker_name for job in jobs}),
        "fix": fix_of(first.cause),
        "retry": f"reconcile retry failure:{group}",
    }


def failure_groups(jobs: Iterable[JobRecord]) -> list[Data]:
    """Return the groups of failed jobs that failed alike, the largest first; other jobs are left out."""
    groups: dict[str, list[JobRecord]] = {}
    for job in jobs:
        group = failure_id(job) if job.current else None
        if group is not None:
            groups.setdefault(group, []).append(job)
    found = [_failure_data(group, members) for group, members in groups.items()]
    return sorted(found, key=lambda row: (-row["jobs"], row["failure"]))


def rule_data(state: DesiredState, rule: Rule) -> Data:
    """Return an override rule. ``sets`` has the values as the manifest writes them."""
    spec = state.manifests[f"{Kind.OVERRIDE_RULE}/{rule.name}"].spec
    return {
        "name": rule.name,
        "order": spec.get("order", RuleSpec(set={}).order),
        "flows": rule.flows,
        "labels": rule.labels,
        "name_filter": rule.name_filter,
        "name_glob": rule.name_glob,
        "function_filter": rule.function_filter,
        "makers": rule.makers,
        "dynamic": rule.dynamic,
        "sets": spec["set"],
    }


def maker_data(state: DesiredState, manifest: Manifest) -> Data:
    """Return a Maker, and the flows that use it, directly or through another Maker."""
    name, place = manifest.name or "", manifest.location("/metadata/name")
    return {
        "name": name,
        "class": manifest.spec["class"],
        "kwargs": manifest.spec.get("kwargs", {}),
        "flows": sorted(flow.name for flow in state.flows.values() if name in flow.makers),
        "valid": f"{Kind.MAKER}/{name}" not in state.stale,
        "file": place.file,
        "line": place.line,
    }


def maker_facts(state: DesiredState, manifest: Manifest) -> Data:
    """Return a Maker with what it uses and what uses it, and the rules that select jobs by it."""
    name = manifest.name or ""
    prefix = f"{Kind.MAKER}/"
    others = {key.removeprefix(prefix): one for key, one in state.manifests.items() if key.startswith(prefix)}
    named = {other: {ref for _, ref in maker_references(one.spec)} for other, one in others.items()}
    data = maker_data(state, manifest)
    entries = {
        flow: sorted(entry for entry, used in state.flows[flow].makers_of.items() if entry and name in used)
        for flow in data["flows"]
    }
    rules = [rule for rule in state.rules if any(fnmatch.fnmatchcase(name, glob) for glob in rule.makers)]
    return data | {
        "uses": sorted(named[name]),
        "used_by": sorted(other for other, refs in named.items() if name in refs),
        "entries": entries,
        "rules": [{"name": rule.name, "sets": rule_data(state, rule)["sets"]} for rule in rules],
    }


def event_data(event: Event) -> Data:
    """Return an event with all fields, empty ones too."""
    return msgspec.structs.asdict(event) | {
        "changes": [msgspec.to_builtins(change) for change in event.changes]
    }


def plan_data(plan: Plan, cost: Cost, build: DryBuild | None = None) -> Data:
    """Return a plan; the contract of ``plan -o json``. Hours are core-hours and GPU-hours, at most.

    ``build`` is what was built for it.
    """
    return {
        "schema_version": PLAN_SCHEMA_VERSION,
        "revision": plan.revision,
        "base": plan.base,
        "actions": [
            {
                "action": str(action.type),
                "kind": str(action.subject),
                "key": action.key,
                "reason": str(action.reason),
                "code": str(action.reason.code),
                "build": action.build,
                "ends": _ends_data(action),
                "changes": [msgspec.to_builtins(change) for change in action.changes],
            }
            for action in plan.actions
        ],
        "summary": plan.summary(),
        "ends_running": plan.ends_running,
        "cost": _cost_data(cost),
        "build": None
        if build is None
        else {"flows": build.flows, "built": build.built, "failed": build.failed, "blocked": build.blocked},
        "refusals": list(plan.refusals),
        "diagnostics": [msgspec.to_builtins(diagnostic) for diagnostic in plan.diagnostics],
    }


def _ends_data(action: Action) -> Data | None:
    job = action.ends
    if job is None:
        return None
    worker = job.attempt.worker or job.config.worker_name
    return {"state": str(job.state), "running": action.ends_running, "worker": worker, "since": started(job)}


def _cost_data(cost: Cost) -> Data:
    return {
        "core_hours": round(cost.core_hours, 6),
        "gpu_hours": round(cost.gpu_hours, 6),
        "jobs": cost.jobs,
        "unknown_jobs": cost.unknown,
        "groups": [
            {
                "worker": group.worker,
                "resources": group.resources,
                "jobs": group.jobs,
                "cores": group.request.cores,
                "gpus": group.request.gpus,
                "walltime": group.request.seconds,
                "core_hours": round(group.core_hours, 6) if group.core_hours is not None else None,
            }
            for group in cost.groups
        ],
        "patched": {
            "jobs": cost.patched,
            "unknown_jobs": cost.patched_unknown,
            "core_hours_before": round(cost.before, 6),
            "core_hours_after": round(cost.after, 6),
        },
    }
