"""What a reconcile leaves in the store beside jobs: applied configuration, last good manifests, outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.diagnostics import Diagnostic
from reconciler.execution.flow_health import health_of
from reconciler.model.actions import Plan, Subject, Verb
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import ExecConfigSpec, GoodManifest, Prune, WorkerSpec
from reconciler.model.records import AppliedConfig, Outcome
from reconciler.model.states import ACTIVE, BROKEN, PENDING, Health, JobState
from reconciler.plan.checks import worker_defaults


def applied_config(view: View, desired: DesiredState, plan: Plan) -> AppliedConfig:
    """Return what the executor needs of a revision that was just applied."""
    old = view.config()
    kept = _workers_in_use(view, old.workers if old is not None else {}, desired)
    return AppliedConfig(
        revision=str(desired.revision),
        commit=desired.revision.commit,
        project_name=desired.project_name,
        jobstore=desired.project.jobstore,
        workers=kept | desired.workers,
        exec_configs=desired.exec_configs,
        commands=_commands(view, old.commands if old is not None else {}, desired),
        rules=desired.rules,
        project_layer=desired.project_layer,
        worker_defaults=worker_defaults(desired),
        out_of_sync=_out_of_sync(desired, plan),
    )


def _out_of_sync(desired: DesiredState, plan: Plan) -> dict[str, str]:
    """Return why flows are not what the revision wants."""
    kept = {a.key: a.reason for a in plan.actions if a.verb is Verb.KEEP and a.subject is Subject.FLOW}
    return kept | {name: f"last good version kept: {reason}" for name, reason in desired.invalid.items()}


def _workers_in_use(
    view: View, old: Mapping[str, WorkerSpec], desired: DesiredState
) -> dict[str, WorkerSpec]:
    """A worker that was removed from git serves on until its last job has ended."""
    unfinished = (*ACTIVE, *PENDING)
    retried = {job.config.worker_name for job in view.waiting_for_retry()}
    return {
        name: spec
        for name, spec in old.items()
        if name not in desired.workers and (name in retried or view.any_in_state(unfinished, name))
    }


def _commands(
    view: View, old: Mapping[str, ExecConfigSpec], desired: DesiredState
) -> dict[str, ExecConfigSpec]:
    """A job runs with the ExecConfig that it was given, also if that was edited or removed meanwhile."""
    new = {spec.digest: spec for spec in desired.exec_configs.values()}
    gone = old.keys() - new.keys()
    unfinished = (*ACTIVE, *PENDING, *BROKEN) if gone else ()
    used = {job.config.commands for state in unfinished for job in view.in_state(state)}
    return {digest: old[digest] for digest in gone & used} | new


def remember_good(writer: Writer, good: Mapping[str, GoodManifest]) -> None:
    """Remember where the last good version of every manifest stands; forget those that are gone."""
    known = writer.good_manifests()
    for key, pointer in good.items():
        if known.get(key) != pointer:
            writer.put_good(key, pointer)
    for key in known.keys() - good.keys():
        writer.delete_good(key)


def summarise(view: View, key: str, revision: str, warnings: Sequence[Diagnostic], *, clean: bool) -> Outcome:
    """Return how things stand. Not ``clean``: the same revision must be planned again next time."""
    degraded, flows, jobs = [], 0, 0
    for flow in view.flows():
        if flow.removed:
            # Deleted by the first plan that finds all of its jobs ended: so there must be one.
            clean = clean and (flow.orphaned or flow.prune is not Prune.DELETE)
            continue
        status = health_of(view, flow, view.glances_of(flow.name))
        flows += 1
        jobs += sum(status.counts.values())
        if status.health is Health.DEGRADED:
            degraded.append(flow.name)
    idle = not view.any_in_state((*ACTIVE, JobState.READY))
    return Outcome(
        key=key,
        change_counter=view.change_counter(),
        idle=idle,
        clean=clean,
        degraded=degraded,
        revision=revision,
        flows=flows,
        jobs=jobs,
        warnings=list(warnings),
        cleanup_at=_next_cleanup(view),
        retry_at=view.next_retry(),
    )


def _next_cleanup(view: View) -> float | None:
    config = view.config()
    times = [view.next_cleanup(worker) for worker in config.workers] if config is not None else []
    return min((time for time in times if time is not None), default=None)
