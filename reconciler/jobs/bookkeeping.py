"""What an applied revision leaves in the store beside flows and jobs.

The configuration that the executor needs, where the last good manifests are, an entry of the history, the
outcome, and the authors of the changes in a plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from reconciler import __version__
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.desired.documents import PROJECT_FILES
from reconciler.desired.source.git import Source
from reconciler.desired.source.history import Causes, CommitInfo
from reconciler.desired.state import Loaded
from reconciler.diagnostics import Diagnostic
from reconciler.jobs.flow_health import health_of
from reconciler.jobs.transitions import note_flow
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.applied import AppliedConfig, AppliedFlowSet, AppliedRevision, FlowActions, Outcome
from reconciler.model.baseline import Baseline, FlowEntry
from reconciler.model.desired import DesiredState, Revision
from reconciler.model.manifests import Kind, Prune
from reconciler.model.notifications import NotifyRule, NotifyState
from reconciler.model.records import Change
from reconciler.model.run_config import FIELDS
from reconciler.model.states import ACTIVE, BROKEN, PENDING, Health
from reconciler.plan.checks import worker_defaults
from reconciler.plan.configs import content_origin

# configuration --------------------------------------------------------------------------------------------


def followed_branch(view: View, source: Source) -> str | None:
    """Return the branch that a state follows; None if it follows none yet.

    A store of an earlier version has no record of it: then it is the branch that was applied last.
    """
    recorded = view.followed()
    if recorded is not None:
        return recorded or None
    last = view.last_revision()
    return last.branch if last is not None and source.tip(last.branch) is not None else None


def applied_config(view: View, desired: DesiredState, plan: Plan, committed: float = 0.0) -> AppliedConfig:
    """Return what the executor needs of a revision that was just applied.

    A worker that was removed from git stays until its last job has ended, and until the claims of attempts
    that jobs have left there are withdrawn, but no job starts on it. The same holds for a worker whose
    document is invalid, so that its last good version is in use. An ExecConfig that was edited or removed
    stays under its digest: a job runs with the content that it was given.
    """
    old = view.config()
    unfinished = (*ACTIVE, *PENDING)
    retried = {job.config.worker_name for job in view.waiting_for_retry()}
    workers = {
        name: spec
        for name, spec in (old.workers if old is not None else {}).items()
        if name not in desired.workers
        and (
            name in retried
            or view.any_in_state(unfinished, name)
            or any(job.current for job in view.left_on(name))
        )
    }
    closed = {
        name: f"Worker '{name}' cannot be used: {desired.unusable[f'{Kind.WORKER}/{name}']}"
        if f"{Kind.WORKER}/{name}" in desired.unusable
        else f"Worker '{name}' was removed from git"
        for name in workers
    }
    closed |= {
        name: f"Worker '{name}' is invalid in {desired.revision}"
        for name in desired.workers
        if f"Worker/{name}" in desired.stale
    }
    commands = {spec.digest: spec for spec in desired.exec_configs.values()}
    gone = {digest: old.commands[digest] for digest in old.commands.keys() - commands.keys()} if old else {}
    if gone:
        used = {job.config.commands for state in (*unfinished, *BROKEN) for job in view.in_state(state)}
        commands = {digest: spec for digest, spec in gone.items() if digest in used} | commands
    out_of_sync = {
        action.key: str(action.reason)
        for action in plan.actions
        if action.type is ActionType.KEEP and action.subject is Subject.FLOW
    }
    out_of_sync |= {name: f"last good version kept: {reason}" for name, reason in desired.invalid.items()}
    return AppliedConfig(
        revision=str(desired.revision),
        commit=desired.revision.commit,
        project_name=desired.project_name,
        jobstore=desired.project.jobstore,
        workers=workers | desired.workers,
        closed_workers=closed,
        exec_configs=desired.exec_configs,
        commands=commands,
        rules=desired.rules,
        project_layer=desired.project_layer,
        worker_defaults=worker_defaults(desired),
        out_of_sync=out_of_sync,
        flowsets={
            name: AppliedFlowSet(
                items=desired.flowsets[name].items if name in desired.flowsets else 0,
                frozen=plan.frozen.get(name),
            )
            for name in sorted(desired.flowsets.keys() | desired.frozen.keys())
        },
        notify=desired.project.notify,
        policy=desired.policy,
        signer=desired.signer,
        committed=committed,
    )


def remember_good(writer: Writer, loaded: Loaded) -> None:
    """Record where the last good version of every manifest is; forget manifests that are gone."""
    good = loaded.good
    if loaded.scope is not None:
        known = {key: pointer for key in good if (pointer := writer.good_manifest(key)) is not None}
        gone = set(loaded.gone)
    else:
        known = writer.good_manifests()
        gone = known.keys() - good.keys()
    for key, pointer in good.items():
        if known.get(key) != pointer:
            writer.put_good(key, pointer)
    for key in gone:
        writer.delete_good(key)


def note_notify_rules(writer: Writer, rules: Sequence[NotifyRule], since: int) -> None:
    """Let new notify rules tell what happens after the event number ``since``; forget removed ones."""
    names = {rule.name for rule in rules}
    known = set(writer.notify_rules())
    for name in known - names:
        writer.put_notify_state(name, None)
    for name in names - known:
        writer.put_notify_state(name, NotifyState(cursor=since))


# the revision to compare with -----------------------------------------------------------------------------


def note_baseline(writer: Writer, loaded: Loaded, plan: Plan, planned: int) -> None:
    """Record what a later pass compares with, after a plan was carried out in this transaction.

    ``planned`` is the change counter of the store when the plan was made. Flows for which a later plan may
    have something to do, although no file has changed by then, remain unsettled.
    """
    desired, scope = loaded.state, loaded.scope
    overtaken = writer.change_counter() != planned
    waiting = {
        action.key.partition("/")[0]
        for action in plan.actions
        if action.build or action.type in (ActionType.KEEP, ActionType.DEFER)
    }
    # What this transaction itself did is the plan, and after a plan was applied nothing is left to do.
    considered = writer.unsettled() if scope is None else scope.flows
    writer.settle(considered, planned if overtaken else planned + 1)
    for name in (*waiting, *plan.unsettled):
        writer.unsettle(name)
    for name in list(writer.entries()) if scope is None else scope.flows:
        if name not in desired.flows:
            writer.put_entry(name, None)
    for name, flow in desired.flows.items():
        refers = sorted({reference.partition("/")[0] for reference in flow.externals})
        writer.put_entry(
            name, FlowEntry(flow.labels, flow.watched, refers, flow.previous_names, flow.flowset)
        )
    before = writer.baseline()
    outside = before.renamed if before is not None and scope is not None else []
    renamed = {name for name in outside if scope is not None and name not in scope.flows}
    renamed |= {name for name, flow in desired.flows.items() if flow.previous_names}
    tables = [_directory(place) for flowset in desired.flowsets.values() for place in flowset.watched]
    writer.put_baseline(
        Baseline(
            version=__version__,
            commit=desired.revision.commit,
            path=desired.revision.path,
            tree=desired.revision.tree,
            files=list(PROJECT_FILES),
            manifests=[_directory(name) for name in desired.project.manifests],
            code=[_directory(name) for name in desired.project.python_path],
            tables=tables,
            flowsets={name: flowset.items for name, flowset in desired.flowsets.items()},
            complete=not plan.diagnostics and not desired.invalid and not desired.holds,
            witnesses=plan.witnesses,
            renamed=sorted(renamed),
            policy=desired.revision.policy,
        )
    )


def _directory(name: str) -> str:
    return "" if name.strip("/") == "." else name.strip("/")


# history --------------------------------------------------------------------------------------------------


def note_revision(
    writer: Writer, revision: Revision, commit: CommitInfo | None, plan: Plan, now: float
) -> None:
    """Append a revision that was just applied, unless it was the last one already and nothing changed."""
    new = AppliedRevision(
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
    last = writer.last_revision()
    unchanged = last is not None and (
        (new.branch, new.commit, new.path, new.errors) == (last.branch, last.commit, last.path, last.errors)
    )
    if new.flows or not unchanged:
        writer.add_revision(new)


def note_failures(writer: Writer, failures: Mapping[str, Diagnostic], revision: str, now: float) -> None:
    """Append an event for each flow that could not be built, unless it is the same as the last one."""
    for name, problem in failures.items():
        place = f" ({problem.location})" if problem.location is not None else ""
        message = f"{problem.message}{place}"
        last = next(
            (one for one in reversed(writer.events(f"flow/{name}")) if one.type == "BuildFailed"), None
        )
        if last is None or (last.message, last.revision) != (message, revision):
            note_flow(writer, name, "BuildFailed", message, now, revision=revision)


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
    return {
        name: FlowActions(action=actions.get(name), jobs=dict(jobs.get(name, {})), was=was.get(name))
        for name in sorted({*actions, *jobs, *was})
    }


# outcome --------------------------------------------------------------------------------------------------


def summarise(view: View, key: str, revision: str, warnings: Sequence[Diagnostic], *, clean: bool) -> Outcome:
    """Return the outcome of a reconcile.

    Unless it is ``clean``, the next reconcile plans the same revision again.
    """
    degraded, flows, jobs = [], 0, 0
    for flow in view.flows():
        if flow.removed:
            # The first plan that finds all of its jobs ended deletes it, so there must be another plan.
            clean = clean and (flow.orphaned or flow.prune is not Prune.DELETE)
            continue
        status = health_of(view, flow, view.summary(flow.name))
        flows += 1
        jobs += sum(status.counts.values())
        if status.health is Health.DEGRADED:
            degraded.append(flow.name)
    config = view.config()
    cleanups = [view.next_cleanup(worker) for worker in config.workers] if config is not None else []
    return Outcome(
        key=key,
        change_counter=view.change_counter(),
        idle=view.is_idle(),
        clean=clean,
        degraded=degraded,
        revision=revision,
        flows=flows,
        jobs=jobs,
        warnings=list(warnings),
        cleanup_at=min((time for time in cleanups if time is not None), default=None),
        retry_at=view.next_retry(),
    )


# authors --------------------------------------------------------------------------------------------------


def has_cause(action: Action) -> bool:
    """Return whether an action changes a job that exists, so that a commit caused the change."""
    return action.record is not None and action.wanted is not None and bool(action.changes)


def attributed(plan: Plan, causes: Causes) -> Plan:
    """Return the plan with commit, author and time in the changes of jobs that exist.

    The events of these jobs keep them, also when git no longer has the commit.
    """

    def attribute(action: Action) -> Action:
        if not has_cause(action):
            return action
        changes = tuple(_with_cause(change, action, causes) for change in action.changes)
        return msgspec.structs.replace(action, changes=changes)

    return msgspec.structs.replace(plan, actions=tuple(map(attribute, plan.actions)))


def _with_cause(change: Change, action: Action, causes: Causes) -> Change:
    if change.field not in FIELDS or action.record is None or action.wanted is None:
        return change
    old, new = action.record.config, action.wanted.config
    before, after = old.setting(change.field), new.setting(change.field)
    origins = (before.origin if before is not None else None, after.origin if after is not None else None)
    if change.field == "exec_config" and after is not None and old.value("exec_config") == after.value:
        # The name stays and the content changed: the ExecConfig's own manifest is the place.
        origins = (content_origin(after), content_origin(after))
    found = causes.of(*origins)
    if found is None:
        return change
    return msgspec.structs.replace(change, commit=found.commit, author=found.author, time=found.time)
