"""What applying a revision leaves in the store: configuration, history, outcome, and who made each change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.desired.source.git import Source
from reconciler.desired.source.history import Causes, CommitInfo
from reconciler.diagnostics import Diagnostic
from reconciler.jobs.flow_health import health_of
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.desired import DesiredState, Revision
from reconciler.model.manifests import ExecConfigSpec, GoodManifest, Prune, WorkerSpec
from reconciler.model.records import AppliedConfig, AppliedRevision, Change, FlowActions, Outcome
from reconciler.model.run_config import FIELDS, RunConfig
from reconciler.model.settings import Origin
from reconciler.model.states import ACTIVE, BROKEN, PENDING, Health, JobState
from reconciler.plan.checks import worker_defaults
from reconciler.plan.configs import content_origin

# What a reconcile leaves in the store beside jobs: applied configuration, last good manifests, outcome.


def followed_branch(view: View, source: Source) -> str | None:
    """Return the branch that a state follows; None if it follows none yet.

    A store of an earlier version has no record of it: then it is the branch that was applied last.
    """
    recorded = view.followed()
    if recorded is not None:
        return recorded or None
    last = view.last_revision()
    return last.branch if last is not None and source.tip(last.branch) is not None else None


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
    kept = {
        a.key: str(a.reason) for a in plan.actions if a.type is ActionType.KEEP and a.subject is Subject.FLOW
    }
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


# What goes down in history of a revision that was applied.


def note_revision(
    writer: Writer, revision: Revision, commit: CommitInfo | None, plan: Plan, now: float
) -> None:
    """Append a revision that was just applied; not if it was the last one already and nothing changed."""
    new = applied_revision(revision, commit, plan, now)
    last = writer.last_revision()
    if new.flows or last is None or _facts(new) != _facts(last):
        writer.add_revision(new)


def _facts(applied: AppliedRevision) -> tuple[object, ...]:
    return (applied.branch, applied.commit, applied.path, applied.errors)


def applied_revision(
    revision: Revision, commit: CommitInfo | None, plan: Plan, now: float
) -> AppliedRevision:
    """Return a revision with what its plan did, and who made it."""
    return AppliedRevision(
        time=now,
        branch=revision.branch,
        commit=revision.commit,
        path=revision.path,
        summary=plan.summary(),
        author=commit.author if commit is not None else None,
        subject=commit.summary if commit is not None else None,
        flows=flow_actions(plan),
        errors=sum(1 for diagnostic in plan.diagnostics if diagnostic.is_error),
    )


def flow_actions(plan: Plan) -> dict[str, FlowActions]:
    """Return what a plan does to each flow that it changes, by name."""
    was = {new: old for old, new in plan.renames.items()}
    actions: dict[str, str] = {}
    jobs: dict[str, Counter[str]] = {}
    for action in plan.effective:
        flow = action.key.partition("/")[0]
        if action.subject is Subject.FLOW:
            actions[flow] = str(action.type)
        else:
            jobs.setdefault(flow, Counter())[str(action.type)] += 1
    names = sorted({*actions, *jobs, *was})
    return {
        name: FlowActions(action=actions.get(name), jobs=dict(jobs.get(name, {})), was=was.get(name))
        for name in names
    }


# Writes into a plan who made each run config change, so that the events of its jobs can tell for ever.


def attributed(plan: Plan, causes: Causes) -> Plan:
    """Return the plan with commit, author and time in the changes of jobs that exist."""
    actions = tuple(_attributed(action, causes) for action in plan.actions)
    return msgspec.structs.replace(plan, actions=actions)


def has_cause(action: Action) -> bool:
    """Whether an action changes a job that exists, so that somebody made it change."""
    return action.record is not None and action.wanted is not None and bool(action.changes)


def _attributed(action: Action, causes: Causes) -> Action:
    if not has_cause(action):
        return action
    assert action.record is not None and action.wanted is not None
    old, new = action.record.config, action.wanted.config
    changes = tuple(_with_cause(change, causes, old, new) for change in action.changes)
    return msgspec.structs.replace(action, changes=changes)


def _with_cause(change: Change, causes: Causes, old: RunConfig, new: RunConfig) -> Change:
    if change.field not in FIELDS:
        return change
    found = causes.of(*_origins(change.field, old, new))
    if found is None:
        return change
    return msgspec.structs.replace(change, commit=found.commit, author=found.author, time=found.time)


def _origins(field: str, old: RunConfig, new: RunConfig) -> tuple[Origin | None, Origin | None]:
    """Return where the value came from before and now; the content of an ExecConfig has its own place."""
    before, after = old.setting(field), new.setting(field)
    if field == "exec_config" and after is not None and old.value(field) == new.value(field):
        place = content_origin(after)
        return place, place
    return before.origin if before is not None else None, after.origin if after is not None else None
