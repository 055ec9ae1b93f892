"""Small desired and actual states in memory, and a model of what applying a plan does to the jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow, DesiredState, PreviewJob, Revision
from reconciler.model.flows import BuiltFlow, BuiltJob
from reconciler.model.manifests import (
    Document,
    ExecConfigSpec,
    FlowSpec,
    Kind,
    Manifest,
    OnChange,
    ProjectSpec,
    Prune,
    WorkerSpec,
)
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Cancellation, DeferredPatch, FlowRecord, JobRecord
from reconciler.model.run_config import Rule, RunConfig, layer_of
from reconciler.model.settings import Layer, Level, Origin
from reconciler.model.states import ACTIVE, PENDING, JobState

SHELL = WorkerSpec(type="local", scheduler_type="shell", work_dir="/work")


def worker(**spec: Any) -> WorkerSpec:
    """Return a local shell worker with some fields changed."""
    return msgspec.structs.replace(SHELL, **spec)


def manifest(kind: Kind, name: str) -> Manifest:
    """Return a manifest that knows no places but its first line."""
    content = {"kind": kind, "metadata": {"name": name}, "spec": {}}
    return Manifest(f"{kind.lower()}s/{name}.yaml", Document(kind, name, content, {}, True, 1, [name]))


def rule(name: str, values: Mapping[str, Any], **selector: Any) -> Rule:
    """Return a rule that sets ``values``; without a selector it matches every job."""
    origin = Origin(Level.RULE, Kind.OVERRIDE_RULE, name, "")
    fields: dict[str, Any] = {
        "flows": [],
        "labels": {},
        "name_filter": None,
        "name_glob": None,
        "function_filter": None,
        "dynamic": True,
    }
    return Rule(name=name, layer=layer_of(values, origin, "/spec/set"), **(fields | selector))


def flow(
    name: str = "f",
    jobs: Sequence[str] = ("a", "b"),
    *,
    values: Mapping[str, Any] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> DesiredFlow:
    """Return a flow in the ``jobs:`` form; each job's function is ``m.<id>``, its name its id.

    ``values`` are the flow's own run config, ``own`` that of its jobs.
    """
    origin = Origin(Level.FLOW, Kind.FLOW, name, "")
    spec = fields.pop("spec", FlowSpec(jobs=[]))
    needs = fields.pop("needs", {})
    preview = [_preview(name, job, (own or {}).get(job, {}), needs.get(job, [])) for job in jobs]
    given: dict[str, Any] = {
        "labels": {},
        "inputs": name,
        "code": [],
        "files": [],
        "externals": [],
        "on_change": OnChange.RECOMPUTE,
        "prune": Prune.CANCEL,
        "identity": f"identity of {name}",
    }
    return DesiredFlow(
        name=name,
        manifest=manifest(Kind.FLOW, name),
        spec=spec,
        layer=layer_of(values or {}, origin, "/spec"),
        preview=preview,
        **(given | fields),
    )


def _preview(name: str, job: str, own: Mapping[str, Any], needs: list[str]) -> PreviewJob:
    return PreviewJob(job, job, f"m.{job}", own_layer(name, own), f"digest of {job}", needs)


def own_layer(name: str, values: Mapping[str, Any]) -> Layer:
    """Return the layer of a job of the flow ``name``."""
    return layer_of(values, Origin(Level.JOB, Kind.FLOW, name, ""), "/spec/jobs/0")


def desired(*flows: DesiredFlow, **fields: Any) -> DesiredState:
    """Return a desired state with the workers ``w1`` (the default) and ``w2`` unless given otherwise."""
    workers = fields.pop("workers", {"w1": SHELL, "w2": SHELL})
    exec_configs = fields.pop("exec_configs", {"ec1": ExecConfigSpec(), "ec2": ExecConfigSpec()})
    rules = fields.pop("rules", [])
    origin = Origin(Level.PROJECT, Kind.PROJECT, "p", "")
    defaults = fields.pop("defaults", {"worker": "w1"})
    documents = [manifest(Kind.PROJECT, "p"), *(one.manifest for one in flows)]
    documents += [manifest(Kind.WORKER, name) for name in workers]
    documents += [manifest(Kind.EXEC_CONFIG, name) for name in exec_configs]
    documents += [manifest(Kind.OVERRIDE_RULE, one.name) for one in rules]
    return DesiredState(
        revision=Revision("main", "1234567890", "", "tree"),
        project_name="p",
        project=fields.pop("project", ProjectSpec()),
        project_layer=layer_of(defaults, origin, "/spec/defaults"),
        workers=workers,
        exec_configs=exec_configs,
        rules=rules,
        flows={one.name: one for one in flows},
        manifests={f"{one.kind}/{one.name}": one for one in documents},
        **fields,
    )


def built(one: DesiredFlow, **contents: str) -> BuiltFlow:
    """Return the built form of a flow; ``contents`` gives some jobs another content than their id."""
    jobs = [built_job(job.key, contents.get(job.key, job.key), one.name) for job in one.preview]
    version = "".join(sorted(f"{key}={content}" for key, content in contents.items()))
    return BuiltFlow(build_key=f"build of {one.name} {version}", jobs=jobs, jobflow_version="0")


def built_job(key: str, content: str, name: str = "f", **fields: Any) -> BuiltJob:
    """Return one built job; its uuid follows from flow and content."""
    given: dict[str, Any] = {"name": key, "function": f"m.{key}", "parents": [], "own": {}}
    return BuiltJob(
        key=key,
        uuid=f"{name}-{content}",
        index=1,
        content=content,
        on_missing="error",
        files=[],
        hosts=[],
        payload=b"",
        **(given | fields),
    )


def before(*builds: tuple[DesiredFlow, BuiltFlow]) -> ActualState:
    """Return an empty store in which these flows are built."""
    return ActualState(built={one.name: form for one, form in builds})


# a model of what applying does ----------------------------------------------------------------------------


def applied(plan: Plan, actual: ActualState) -> ActualState:
    """Return the actual state after a plan was applied; new jobs are READY."""
    flows = dict(actual.flows)
    jobs = {name: {job.id: job for job in found} for name, found in actual.jobs.items()}
    for action in plan.effective:
        if action.subject is Subject.FLOW:
            _apply_to_flow(flows, jobs, action)
        else:
            _apply_to_job(jobs.setdefault(action.key.partition("/")[0], {}), action)
    lists = {name: list(found.values()) for name, found in jobs.items()}
    return msgspec.structs.replace(actual, base=plan.revision, flows=flows, jobs=lists)


def _apply_to_flow(
    flows: dict[str, FlowRecord], jobs: dict[str, dict[str, JobRecord]], action: Action
) -> None:
    old = flows.get(action.key)
    if action.type in (ActionType.SUBMIT, ActionType.PATCH):
        assert action.flow is not None and action.build_key is not None
        flows[action.key] = FlowRecord(
            name=action.key,
            identity=action.flow.identity,
            build_key=action.build_key,
            labels=action.flow.labels,
            layer=action.flow.layer,
            suspended=action.flow.spec.suspend,
            suspend_reason=action.flow.spec.suspend_reason,
            prune=action.flow.prune,
            protected=action.flow.is_protected(old is not None and old.protected),
        )
    elif old is not None and action.type is ActionType.CANCEL:
        flows[action.key] = msgspec.structs.replace(old, removed=True)
    elif old is not None and old.prune is Prune.ORPHAN:
        flows[action.key] = msgspec.structs.replace(old, removed=True, orphaned=True)
    else:
        del flows[action.key], jobs[action.key]


def _apply_to_job(jobs: dict[str, JobRecord], action: Action) -> None:
    if action.record is not None and action.type not in (ActionType.PATCH, ActionType.DEFER):
        jobs[action.record.id] = _left(action.record)
    if action.wanted is None:
        return
    job, config = action.wanted.job, action.wanted.config
    if action.type in (ActionType.SUBMIT, ActionType.REPLACE):
        fresh = record(job, action.key.partition("/")[0], config=config, own=action.wanted.own)
        old = jobs.get(fresh.id)
        state = old.state if old is not None and old.state is JobState.COMPLETED else JobState.READY
        if old is not None and old.generated_by is not None:
            fresh = msgspec.structs.replace(old, current=True, key=job.key, config=config)
            jobs[fresh.id] = msgspec.structs.replace(fresh, state=state)
        else:
            jobs[fresh.id] = msgspec.structs.replace(fresh, state=state, sequence=len(jobs))
    elif action.record is not None and action.record.editable:
        jobs[action.record.id] = msgspec.structs.replace(
            action.record, config=config, key=job.key, name=job.name, own=action.wanted.own, deferred=None
        )
    elif action.record is not None:
        same = action.record.config.same_values(config)
        deferred = None if same else DeferredPatch(config=config)
        jobs[action.record.id] = msgspec.structs.replace(action.record, deferred=deferred)


def _left(job: JobRecord) -> JobRecord:
    left = msgspec.structs.replace(job, current=False, deferred=None)
    if job.state in PENDING:
        return msgspec.structs.replace(left, state=JobState.USER_STOPPED)
    return (
        msgspec.structs.replace(left, cancellation=Cancellation(reason="left"))
        if job.state in ACTIVE
        else left
    )


def record(job: BuiltJob, name: str = "f", **fields: Any) -> JobRecord:
    """Return the record of a built job."""
    given: dict[str, Any] = {"state": JobState.READY, "config": RunConfig()}
    return JobRecord(
        uuid=job.uuid,
        index=job.index,
        flow=name,
        key=job.key,
        name=job.name,
        function=job.function,
        content=job.content,
        **(given | fields),
    )


def with_jobs(actual: ActualState, name: str, **states: Any) -> ActualState:
    """Return the state with fields of some jobs changed: ``a={"state": ...}``."""
    jobs = [
        msgspec.structs.replace(job, **states[job.key]) if job.key in states else job
        for job in actual.jobs.get(name, [])
    ]
    return msgspec.structs.replace(actual, jobs=actual.jobs | {name: jobs})


def waits(why: str) -> Reason:
    """Return the reason of a flow that waits."""
    return Reason(ReasonCode.WAITS, {"why": why})


def shown(plan: Plan) -> list[str]:
    """Return a plan as short lines: verb and key."""
    return [f"{action.type} {action.key}" for action in plan.actions]
