"""What one revision changes against another, as if the store held all of BASE. Pure.

Jobs of the store keep their state, so that a patch of an active job shows as deferred. Where a flow was never
built as BASE wants it, its manifest shows the jobs; jobs that only code knows stay unknown.
"""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState
from reconciler.model.flows import BuiltFlow, BuiltJob, digest
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.settings import Layer
from reconciler.plan.checks import worker_defaults
from reconciler.plan.flow_plan import affected_jobs
from reconciler.plan.interpreter import carried_out, configured
from reconciler.plan.job_plan import as_built
from reconciler.plan.planner import make_plan

Builds = Mapping[str, BuiltFlow]

NOTE = Reason(ReasonCode.JOBS_UNKNOWN)


class ComparedRevisions(msgspec.Struct, frozen=True):
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
) -> ComparedRevisions:
    """Return what ``head`` changes once ``base`` is fully applied.

    ``store`` is the store as the planner sees it for ``base``; ``head_built`` are the flows of ``head`` that
    were built before. The build of every other flow is made of what its manifest shows.
    """
    builds = _base_builds(base, store)
    start = msgspec.structs.replace(store, built=builds, previous={}, rewritten=False)
    applied = carried_out(make_plan(base, start, allow_prune=True), start)
    jobs = {  # a deferred patch has been applied, whatever its job does
        name: [configured(job, job.wanted, job.updated) if job.wanted else job for job in found]
        for name, found in applied.jobs.items()
    }
    settled = msgspec.structs.replace(applied, jobs=jobs, base=str(base.revision))
    actual = _with_head(settled, head, builds, store.built, head_built)
    plan = make_plan(head, actual, allow_prune=allow_prune)
    touched = {name for name in actual.unseen if _sources(base, name) != _sources(head, name)}
    return ComparedRevisions(_with_notes(plan, touched), actual)


# the flows of base ----------------------------------------------------------------------------------------


def _base_builds(base: DesiredState, store: ActualState) -> dict[str, BuiltFlow]:
    """Return a build of every flow: the real one, else one made of what the manifest shows.

    A job of such a build that has the content of a record gets the uuid of that record.
    """
    keys = _build_keys(base, store.built)
    affected = affected_jobs(base, store)
    found = dict(store.built)
    for name, flow in base.flows.items():
        if name in found:
            continue
        records = [job for job in store.jobs.get(name, ()) if job.current and not job.generated_by]
        known = {job.key: job for job in records} if name in store.previous else {}
        jobs = []
        for job in flow.preview:
            record = known.get(job.key)
            if record is not None and f"{name}/{job.key}" not in affected:
                jobs.append(msgspec.structs.replace(as_built(record), name=job.name, function=job.function))
            else:
                shown = digest(["shown", name, job.key])
                jobs.append(
                    BuiltJob(
                        key=job.key, uuid=shown, index=1, name=job.name, function=job.function,
                        content=job.digest, parents=[], on_missing="error", own={}, files=[], hosts=[],
                        payload=b"",
                    )
                )  # fmt: skip
        found[name] = BuiltFlow(
            build_key=keys[name],
            jobs=jobs if flow.preview else list(map(as_built, records)),
            jobflow_version="",
            preview={job.key: job.digest for job in flow.preview},
            form=flow.content,
            code=flow.code,
            python_path=flow.python_path,
            files=flow.files,
        )
    return {name: found[name] for name in base.flows}


def _build_keys(desired: DesiredState, built: Builds) -> dict[str, str]:
    """Return the key of each flow's build; without a build a digest of everything that it depends on."""
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


# the flows of head ----------------------------------------------------------------------------------------


def _with_head(
    state: ActualState, head: DesiredState, base_builds: Builds, base_real: Builds, head_built: Builds
) -> ActualState:
    """Return the state with the builds of ``head`` instead of those of base.

    ``base_real`` are the real ones of ``base_builds``. For each flow of ``head``:

    - It depends on the same as in base: it has the build of base. If that is made up of records, since the
      manifest shows no jobs, its jobs are unknown: it is ``unseen``.
    - It was built, and base has a real build or no such flow: its own build counts.
    - Otherwise the uuids of a real build would be compared with made-up ones, so the manifests are compared
      instead (``previous``).
    """
    keys = _build_keys(head, head_built)
    built: dict[str, BuiltFlow] = {}
    previous: dict[str, dict[str, str]] = {}
    unseen: set[str] = set()
    for name, flow in head.flows.items():
        before, live = base_builds.get(name), name in state.flows and not state.flows[name].removed
        if before is not None and before.build_key == keys[name]:
            built[name] = before
            if name not in base_real and not flow.preview:
                unseen.add(name)
        elif name in head_built and (name in base_real or before is None or not live):
            built[name] = head_built[name]
        elif before is not None and live:
            previous[name] = before.preview
    return msgspec.structs.replace(
        state, built=built, previous=previous, unseen=unseen, former=dict(base_builds)
    )


# jobs that are not known ----------------------------------------------------------------------------------


def _sources(desired: DesiredState, name: str) -> list[Any]:
    """Return everything that the run config of a flow's jobs may come from, as plain data."""

    def values(layer: Layer) -> dict[str, Any]:
        return {field: setting.value for field, setting in layer.items()}

    flow = desired.flows[name]
    rules = [
        msgspec.structs.asdict(rule) | {"layer": values(rule.layer), "name": None}
        for rule in desired.rules
        if rule.matches_flow(flow.name, flow.labels)
    ]
    defaults = {name: setting.value for name, setting in worker_defaults(desired).items()}
    return [rules, values(flow.layer), values(desired.project_layer), defaults, desired.exec_configs]


def _with_notes(plan: Plan, flows: Collection[str]) -> Plan:
    """Note on each of these flows that its jobs are not known although something changes for them."""
    actions, left = [], set(flows)
    for action in plan.actions:
        if action.subject is Subject.FLOW and action.key in left:
            left.remove(action.key)
            reason = msgspec.structs.replace(action.reason, also=(*action.reason.also, NOTE))
            action = msgspec.structs.replace(action, reason=reason)
        actions.append(action)
    actions += [
        Action(type=ActionType.KEEP, subject=Subject.FLOW, key=name, reason=NOTE) for name in sorted(left)
    ]
    return msgspec.structs.replace(plan, actions=tuple(actions))
