"""Records as the JSON contract shows them (``schemas/output/``): plain data for every listing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from reconciler.actual.store import View
from reconciler.model.actions import Plan
from reconciler.model.desired import DesiredState
from reconciler.model.health import flow_status
from reconciler.model.manifests import Kind, RuleSpec, WorkerSpec
from reconciler.model.records import AppliedConfig, Event, FlowRecord, JobRecord
from reconciler.model.rules import Rule
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Resources
from reconciler.model.states import ACTIVE, Health, JobState, Sync

PLAN_SCHEMA_VERSION = 1

Data = dict[str, Any]


def job_data(job: JobRecord, keys: Mapping[str, str]) -> Data:
    """Return a job; ``keys`` maps uuids to ``flow/job``, for the generator."""
    resources = job.config.resources_value
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
        "deferred": _deferred(job),
        "generated_by": keys.get(job.generated_by, job.generated_by) if job.generated_by else None,
        "run_dir": job.run_dir,
        "error": job.error,
        "attempt": job.attempt,
        "function": job.function,
        "current": job.current,
        "queue_id": job.queue_id,
        "parents": [keys.get(parent, parent) for parent in job.parents],
    }


def _deferred(job: JobRecord) -> Data | None:
    if job.wanted is None:
        return None
    old, new = run_config_data(job.config), run_config_data(job.wanted)
    return {field: new[field] for field in new if new[field] != old[field]}


def run_config_data(config: RunConfig) -> Data:
    """Return the values of a run config."""
    found = {field: config.value(field) for field in ("worker", "exec_config", "priority")}
    resources = config.resources_value
    return found | {"resources": resource_data(resources)}


def resource_data(resources: Resources | None) -> Any:
    """Return resources as they are written: keywords, or ``{"qresources": fields}``."""
    if resources is None:
        return None
    return {"qresources": resources.values} if resources.generic else resources.values


def flow_data(flow: FlowRecord, jobs: list[JobRecord], config: AppliedConfig | None) -> Data:
    """Return a flow."""
    status = flow_status(flow, jobs)
    sync, why = _sync(flow, jobs, config)
    return {
        "name": flow.name,
        "sync": str(sync),
        "health": str(status.health),
        "reason": status.reason if sync is Sync.SYNCED else f"{status.reason}; {why}",
        "revision": flow.revision,
        "jobs": status.counts,
        "labels": flow.labels,
        "suspended": flow.suspended,
        "removed": flow.removed,
    }


def _sync(flow: FlowRecord, jobs: list[JobRecord], config: AppliedConfig | None) -> tuple[Sync, str]:
    if config is not None and flow.name in config.out_of_sync:
        return Sync.OUT_OF_SYNC, config.out_of_sync[flow.name]
    deferred = sum(1 for job in jobs if job.wanted is not None)
    if deferred:
        return Sync.OUT_OF_SYNC, f"{deferred} deferred changes"
    return Sync.SYNCED, ""


def flows_data(view: View) -> list[Data]:
    """Return all flows that are wanted, with those that were never submitted because they cannot be."""
    config = view.config()
    known = [flow for flow in view.flows() if not flow.orphaned]
    found = [flow_data(flow, view.jobs_of(flow.name), config) for flow in known if not _gone(view, flow)]
    names = {flow.name for flow in known}
    for name, reason in (config.out_of_sync if config is not None else {}).items():
        if name not in names:
            found.append(_never_submitted(name, reason, config.revision if config else ""))
    return sorted(found, key=lambda flow: str(flow["name"]))


def _gone(view: View, flow: FlowRecord) -> bool:
    """A removed flow is shown until its last job has ended."""
    return flow.removed and not any(job.state in ACTIVE for job in view.jobs_of(flow.name))


def _never_submitted(name: str, reason: str, revision: str) -> Data:
    return {
        "name": name, "sync": str(Sync.UNKNOWN), "health": str(Health.DEGRADED), "reason": reason,
        "revision": revision, "jobs": {}, "labels": {}, "suspended": False, "removed": False,
    }  # fmt: skip


def worker_data(view: View, name: str, spec: WorkerSpec) -> Data:
    """Return a worker with how many jobs it has."""
    status = view.worker_status(name)
    return {
        "name": name,
        "type": spec.type,
        "scheduler_type": spec.scheduler_type,
        "work_dir": spec.work_dir,
        "max_jobs": spec.max_jobs,
        "active": sum(view.count_in_state(state, name) for state in ACTIVE),
        "ready": view.count_in_state(JobState.READY, name),
        "reachable": status.reachable if status is not None else None,
        "reason": status.reason if status is not None else "",
        "next_try": status.next_try or None if status is not None else None,
    }


def rule_data(state: DesiredState, rule: Rule) -> Data:
    """Return an override rule, with the values that it sets as they are written."""
    spec = state.manifests[f"{Kind.OVERRIDE_RULE}/{rule.name}"].spec
    return {
        "name": rule.name,
        "order": spec.get("order", RuleSpec(set={}).order),
        "flows": rule.flows,
        "labels": rule.labels,
        "name_filter": rule.name_filter,
        "function_filter": rule.function_filter,
        "dynamic": rule.dynamic,
        "sets": spec["set"],
    }


def event_data(event: Event) -> Data:
    """Return an event, fields that say nothing included."""
    return msgspec.structs.asdict(event) | {
        "changes": [msgspec.to_builtins(change) for change in event.changes]
    }


def plan_data(plan: Plan) -> Data:
    """Return a plan; the contract of ``plan -o json``."""
    return {
        "schema_version": PLAN_SCHEMA_VERSION,
        "revision": plan.revision,
        "base": plan.base,
        "actions": [
            {
                "action": str(action.verb),
                "kind": str(action.subject),
                "key": action.key,
                "reason": action.reason,
                "build": action.build,
                "changes": [msgspec.to_builtins(change) for change in action.changes],
            }
            for action in plan.actions
        ],
        "summary": plan.summary(),
        "refusals": list(plan.refusals),
        "diagnostics": [msgspec.to_builtins(diagnostic) for diagnostic in plan.diagnostics],
    }
