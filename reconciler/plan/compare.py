"""What one revision would change against another: the actual state as if BASE were fully applied. Pure.

Jobs that the store has keep their state, so that what cannot be edited shows as deferred. Where a flow was
never built with what BASE wants, its manifest shows the jobs; those that only code knows stay unknown.
"""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.desired import DesiredFlow, DesiredState, PreviewJob
from reconciler.model.flows import BuiltFlow, BuiltJob, digest
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import ActualState, JobRecord
from reconciler.model.run_config import Rule
from reconciler.model.settings import Layer
from reconciler.plan.checks import worker_defaults
from reconciler.plan.flow_plan import affected_jobs
from reconciler.plan.interpreter import carried_out, configured
from reconciler.plan.job_plan import as_built
from reconciler.plan.planner import make_plan

Builds = Mapping[str, BuiltFlow]


class Comparison(msgspec.Struct, frozen=True):
    """The plan from one revision to another, and the actual state that it starts from."""

    plan: Plan
    actual: ActualState


def compare(
    base: DesiredState,
    head: DesiredState,
    store: ActualState,
    head_built: Builds,
    *,
    allow_prune: bool = False,
) -> Comparison:
    """Return what ``head`` changes once ``base`` is fully applied.

    ``store`` is the store as the planner sees it for ``base``; ``head_built`` are the flows of ``head`` that
    were built before. The build of every other flow is made of what its manifest shows.
    """
    builds = _base_builds(base, store)
    start = msgspec.structs.replace(store, built=builds, previous={}, rewritten=False)
    actual = _settled(carried_out(make_plan(base, start, allow_prune=True), start))
    actual.base = str(base.revision)
    _add_head(actual, head, builds, store.built, head_built)
    plan = make_plan(head, actual, allow_prune=allow_prune)
    touched = {name for name in actual.unseen if _sources(base, name) != _sources(head, name)}
    return Comparison(_with_notes(plan, touched), actual)


def _settled(state: ActualState) -> ActualState:
    """Return the state in which every deferred patch has been applied, whatever its job does."""
    jobs = {
        name: [configured(job, job.wanted, job.updated) if job.wanted else job for job in found]
        for name, found in state.jobs.items()
    }
    return msgspec.structs.replace(state, jobs=jobs)


# the flows of base ----------------------------------------------------------------------------------------


def _base_builds(base: DesiredState, store: ActualState) -> dict[str, BuiltFlow]:
    """Return a build of every flow: the real one, else one made of what the manifest shows."""
    keys = _build_keys(base, store.built)
    affected = affected_jobs(base, store)
    found = {}
    for name, flow in base.flows.items():
        known = store.built.get(name)
        found[name] = known if known is not None else _shown_build(flow, keys[name], store, affected)
    return found


def _build_keys(desired: DesiredState, built: Builds) -> dict[str, str]:
    """Return the key of each flow's build; without a build a digest of all that it depends on."""
    graph = {
        name: {ref.partition("/")[0] for ref in flow.externals} & desired.flows.keys()
        for name, flow in desired.flows.items()
    }
    keys: dict[str, str] = {}
    for name in graphlib.TopologicalSorter(graph).static_order():
        flow, known = desired.flows[name], built.get(name)
        needs = [(ref, keys.get(ref.partition("/")[0])) for ref in flow.externals]
        keys[name] = known.build_key if known is not None else digest(["shown", flow.inputs, needs])
    return keys


def _shown_build(flow: DesiredFlow, key: str, store: ActualState, affected: Collection[str]) -> BuiltFlow:
    """Return a build made of the manifest; a job whose content is that of a record keeps its uuid."""
    records = {job.key: job for job in store.jobs.get(flow.name, ()) if job.current and not job.generated_by}
    if not flow.preview:
        jobs = [as_built(record) for record in records.values()]
    else:
        known = records if flow.name in store.previous else {}
        jobs = [
            _shown_job(flow.name, job, None if f"{flow.name}/{job.key}" in affected else known.get(job.key))
            for job in flow.preview
        ]
    digests = {job.key: job.digest for job in flow.preview}
    return BuiltFlow(build_key=key, jobs=jobs, jobflow_version="", preview=digests)


def _shown_job(flow: str, job: PreviewJob, record: JobRecord | None) -> BuiltJob:
    if record is not None:
        return msgspec.structs.replace(as_built(record), name=job.name, function=job.function)
    return BuiltJob(
        key=job.key, uuid=digest(["shown", flow, job.key]), index=1, name=job.name, function=job.function,
        content=job.digest, parents=[], on_missing="error", own={}, files=[], hosts=[], payload=b"",
    )  # fmt: skip


# the flows of head ----------------------------------------------------------------------------------------


def _add_head(
    actual: ActualState, head: DesiredState, base_builds: Builds, base_real: Builds, head_built: Builds
) -> None:
    """Tell the state which builds the head has.

    A flow that depends on the same as in base has the same build. A real build counts only where base has a
    real one too, or nothing: made-up uuids are never compared with real ones.
    """
    keys = _build_keys(head, head_built)
    actual.built, actual.previous, actual.unseen = {}, {}, set()
    for name in head.flows:
        before, live = base_builds.get(name), name in actual.flows and not actual.flows[name].removed
        if before is not None and before.build_key == keys[name]:
            actual.built[name] = before
            if name not in base_real and not head.flows[name].preview:
                actual.unseen.add(name)
        elif name in head_built and (name in base_real or before is None or not live):
            actual.built[name] = head_built[name]
        elif before is not None and live:
            actual.previous[name] = before.preview


# what cannot be known -------------------------------------------------------------------------------------

NOTE = Reason(ReasonCode.JOBS_UNKNOWN)


def _sources(desired: DesiredState, name: str) -> list[Any]:
    """Return all that the run config of a flow's jobs may come from, as plain data."""
    flow = desired.flows[name]
    rules = [_plain_rule(rule) for rule in desired.rules if rule.matches_flow(flow.name, flow.labels)]
    defaults = {name: setting.value for name, setting in worker_defaults(desired).items()}
    return [rules, _values(flow.layer), _values(desired.project_layer), defaults, desired.exec_configs]


def _plain_rule(rule: Rule) -> dict[str, Any]:
    return msgspec.structs.asdict(rule) | {"layer": _values(rule.layer), "name": None}


def _values(layer: Layer) -> dict[str, Any]:
    return {field: setting.value for field, setting in layer.items()}


def _with_notes(plan: Plan, flows: Collection[str]) -> Plan:
    """Say of each of these flows that its jobs are not known, and that something changes for them."""
    left = set(flows)
    actions = []
    for action in plan.actions:
        if action.subject is Subject.FLOW and action.key in left:
            left.remove(action.key)
            action = msgspec.structs.replace(
                action, reason=msgspec.structs.replace(action.reason, also=(NOTE,))
            )
        actions.append(action)
    notes = [
        Action(type=ActionType.KEEP, subject=Subject.FLOW, key=name, reason=NOTE) for name in sorted(left)
    ]
    return msgspec.structs.replace(plan, actions=(*actions, *notes))
