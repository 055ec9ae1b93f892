"""What must change in one flow: its own record, and whether its jobs are foreseen, on hold, or planned."""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from reconciler.diagnostics import Diagnostic, Severity
from reconciler.model.actions import Action, ActionType, Subject
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.graph import generated_by
from reconciler.model.manifests import OnChange
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Change, FlowRecord, JobRecord
from reconciler.model.run_config import JobFacts, RunConfig
from reconciler.model.settings import Layer, Setting
from reconciler.model.states import ACTIVE
from reconciler.plan.changes import FlowChanges, some
from reconciler.plan.configs import FlowConfigs
from reconciler.plan.job_plan import JobPlanner, patch_reason
from reconciler.plan.renames import lost_identity, name_problems


class FlowPlanner:
    """Plans one flow against its records.

    A flow that ``actual.built`` does not have must be built first: then the plan says so, and shows the jobs
    as far as the manifest does. ``defaults`` are the default resources of the workers, ``affected`` the jobs
    (``flow/job``) whose content changes by what the manifests show, ``old_name`` the name that the flow had
    until now.
    """

    def __init__(
        self,
        desired: DesiredState,
        flow: DesiredFlow,
        actual: ActualState,
        defaults: Mapping[str, Setting],
        affected: Collection[str],
        old_name: str | None = None,
    ) -> None:
        self.desired = desired
        self.actual = actual
        self.flow = flow
        self.old_name = old_name
        self.record = actual.flows.get(flow.name)
        self.live = None if self.record is None or self.record.removed else self.record
        self.built = actual.built.get(flow.name)
        self.affected = affected
        former = actual.former.get(flow.name)
        self.configs = FlowConfigs(desired, flow, defaults, self.built or former)
        self.changes = FlowChanges(desired, flow, former, self.built)
        self.jobs = JobPlanner(self.configs, actual.jobs.get(flow.name, []), self.changes)
        self.diagnostics: list[Diagnostic] = []
        self.restated: list[Action] = []

    def actions(self) -> list[Action]:
        """Return what must happen to this flow and its jobs, in order."""
        misnamed = [*name_problems(self.desired, self.flow), *lost_identity(self.flow, self.actual)]
        if misnamed:
            return self._impossible(misnamed)
        new_build = self.built.build_key if self.built is not None else None
        if (
            self.live is not None
            and self.flow.on_change is OnChange.HOLD
            and new_build != self.live.build_key
        ):
            return self._on_hold()
        if self.built is None:
            return self._before_build()
        jobs = self.jobs.plan(self.built)
        jobs += self._reruns(jobs)
        if self.jobs.problems:
            return self._impossible(self.jobs.problems)
        self._keep_notes()
        waiting = self.jobs.why_wait(jobs)
        if waiting is not None:
            patches = (action for action in jobs if action.type is ActionType.PATCH or action.is_deferred)
            return [self._waits(waiting), *self._all_but("content", "rerun"), *patches]
        if self.live is None:
            return [self._action(ActionType.SUBMIT, self._why_new()), *jobs]
        changes = tuple(self._changes(self.live))
        if changes:
            replaced = [action.key.partition("/")[2] for action in jobs if action.type is ActionType.REPLACE]
            jobs.insert(0, self._action(ActionType.PATCH, self._why_patched(changes, replaced), changes))
        return jobs

    def _on_hold(self) -> list[Action]:
        """Return what still happens to a flow whose changed content is on hold: all but the content."""
        patches = self.jobs.patches()
        reruns = self._reruns(patches)
        if self.jobs.problems:
            return self._impossible(self.jobs.problems)
        self._keep_notes()
        waiting = self.jobs.why_wait(reruns)
        if waiting is not None:
            held = self._action(ActionType.KEEP, Reason(ReasonCode.RERUN_HELD_BACK, {"why": waiting}))
            return [held, *self._all_but("content", "rerun"), *patches]
        held = self._action(ActionType.KEEP, Reason(ReasonCode.HELD_BACK))
        return [held, *self._all_but("content"), *patches, *reruns]

    def _before_build(self) -> list[Action]:
        """Return that the flow must be built, and what its manifest shows of the jobs."""
        configs, preview = self.configs, self.flow.preview
        problems = [found for job in preview for found in configs.problems(configs.of_preview(job))]
        if problems:
            return self._impossible(problems)
        if not preview:  # jobs that only code knows may have a run config of their own: sure after the build
            suspected = configs.problems(configs.of_unknown())
            self.diagnostics += (replace(problem, severity=Severity.WARNING) for problem in suspected)
        if self.live is not None:
            jobs: list[Action] = []
            if self.flow.name in self.actual.previous:
                jobs = list(_foreseen_jobs(configs, self.jobs.jobs, self.affected, self.changes))
            changes = (*self._changes(self.live), *self.changes.of_flow())
            return [self._action(ActionType.REPLACE, self._why_rebuilt(jobs), changes, build=True), *jobs]
        waiting = _new_flow_held_by(configs)
        if waiting is not None:
            return [self._waits(waiting)]
        new_jobs = (
            _foreseen(configs, ActionType.SUBMIT, job.key, ReasonCode.NEW_FLOW, configs.of_preview(job))
            for job in preview
        )
        return [self._action(ActionType.SUBMIT, self._why_new(), build=True), *new_jobs]

    def _action(
        self, type_: ActionType, reason: Reason, changes: tuple[Change, ...] = (), *, build: bool = False
    ) -> Action:
        return Action(
            type=type_, subject=Subject.FLOW, key=self.flow.name, reason=reason, changes=changes,
            build=build, flow=self.flow, build_key=self.built.build_key if self.built is not None else None,
        )  # fmt: skip

    def _waits(self, why: str) -> Action:
        return self._action(ActionType.KEEP, Reason(ReasonCode.WAITS, {"why": why}))

    def _impossible(self, problems: list[Diagnostic]) -> list[Action]:
        self.diagnostics += problems
        return [self._waits(problems[0].message)]

    def _why_new(self) -> Reason:
        return Reason(ReasonCode.NEW_FLOW if self.record is None else ReasonCode.FLOW_WANTED_AGAIN)

    def _why_patched(self, changes: Sequence[Change], replaced: Sequence[str]) -> Reason:
        """Return why the record of the flow changes; never its manifest, if only something else changed."""
        fields = {change.field for change in changes}
        causes = self._causes() if "content" in fields else []
        if all(field.startswith("item.") for field in fields):
            causes = [Reason(ReasonCode.ITEM_CHANGED)]
        elif fields == {"prune"} and self.flow.spec.prune is None:
            causes = [Reason(ReasonCode.PROJECT_CHANGED)]
        elif fields - {"content"} - {change.field for change in self.changes.of_flow()}:
            others = (cause for cause in causes if cause.code is not ReasonCode.FLOW_CHANGED)
            causes = [Reason(ReasonCode.FLOW_CHANGED), *others]
        notes = self.changes.code_notes(self.jobs.jobs, replaced) if "content" in fields else []
        return replace(causes[0], also=(*causes[1:], *notes))

    def _causes(self) -> list[Reason]:
        """Return why the content of the flow changed; a flow of a set has its item instead of a manifest."""
        causes = self.changes.causes()
        if self.live is None or not self.flow.flowset or self.live.item == self.flow.item:
            return causes
        item = Reason(ReasonCode.ITEM_CHANGED)
        return [item if cause.code is ReasonCode.FLOW_CHANGED else cause for cause in causes]

    def _why_rebuilt(self, foreseen: Sequence[Action]) -> Reason:
        """Return why the flow must be built again, and what that means for jobs that ran or run."""
        why = "; ".join(map(str, self._causes()))
        replaced = [a.key.partition("/")[2] for a in foreseen if a.type is ActionType.REPLACE]
        notes = self.changes.code_notes(self.jobs.jobs, replaced)
        active = [job.key for job in self.jobs.jobs if job.current and job.state in ACTIVE]
        if active and not self.flow.preview and not self.changes.only(ReasonCode.CODE_CHANGED):
            notes.append(Reason(ReasonCode.MAY_END_JOBS, {"jobs": some(active)}))
        return Reason(ReasonCode.TO_BE_REBUILT, {"why": why}, tuple(notes))

    def _keep_notes(self) -> None:
        self.diagnostics += self.jobs.warnings
        self.restated = self.jobs.restated

    def _reruns(self, actions: Sequence[Action]) -> list[Action]:
        """Return the jobs that run again because ``spec.rerun`` is new; ``actions`` is what else happens."""
        new = self.record is not None and self.flow.rerun not in (None, self.record.rerun)
        return self.jobs.reruns(actions) if new else []

    def _all_but(self, *fields: str) -> Iterator[Action]:
        """Yield the patch of a flow that stays as submitted: all of its changes but those of ``fields``.

        Its jobs follow its run config all the same, and so do those that they generate.
        """
        if self.live is not None:
            changes = tuple(change for change in self._changes(self.live) if change.field not in fields)
            if changes:
                action = self._action(ActionType.PATCH, self._why_patched(changes, ()), changes)
                yield replace(action, build_key=self.live.build_key)

    def _changes(self, record: FlowRecord) -> Iterator[Change]:
        flow, spec = self.flow, self.flow.spec
        if self.old_name is not None:
            yield Change("name", self.old_name, flow.name)
        if self.built is not None and record.build_key != self.built.build_key:
            yield Change("content", record.build_key[:12], self.built.build_key[:12])
            yield from self.changes.of_flow()
        if record.flowset != flow.flowset:
            yield Change("flowset", record.flowset, flow.flowset)
        yield from item_changes(record.item, flow.item)
        if record.labels != flow.labels:
            yield Change("labels", record.labels, flow.labels)
        if record.suspended != spec.suspend:
            yield Change("suspend", record.suspended, spec.suspend)
        if record.suspend_reason != spec.suspend_reason:
            yield Change("suspend_reason", record.suspend_reason, spec.suspend_reason)
        if record.prune != flow.prune:
            yield Change("prune", record.prune, flow.prune)
        if _values(record.layer) != _values(flow.layer):
            yield Change("run config", _values(record.layer), _values(flow.layer))
        if flow.is_protected(record.protected) != record.protected:
            yield Change("protected", record.protected, flow.protected)
        if record.rerun != flow.rerun:
            yield Change("rerun", record.rerun, flow.rerun)


def item_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the changed columns of an item; None stands for a value that is absent, too."""
    for column in dict.fromkeys([*old, *new]):
        before, after = old.get(column), new.get(column)
        if (type(before), before, column in old) != (type(after), after, column in new):
            yield Change(f"item.{column}", before, after)


def _values(layer: Layer) -> dict[str, object]:
    return {field: setting.shown for field, setting in sorted(layer.items())}


# jobs that are foreseen -----------------------------------------------------------------------------------
#
# What the jobs of a flow that must be built first will be, as far as its manifest shows. It is sure only
# after the build, since the code of the repository may make something else of the same manifest. These
# actions are for people (``build`` is set): nothing carries them out.


def affected_jobs(desired: DesiredState, actual: ActualState) -> set[str]:
    """Return ``flow/job`` of every job whose content changes, or that of a job it needs.

    Only flows in the ``jobs:`` form that were applied before and must be rebuilt are looked at.
    """
    jobs = {
        f"{name}/{job.key}": (name, job)
        for name in actual.previous
        if name in desired.flows
        for job in desired.flows[name].preview
    }
    graph = {key: [need for need in job.needs if need in jobs] for key, (_, job) in jobs.items()}
    affected: set[str] = set()
    for key in graphlib.TopologicalSorter(graph).static_order():
        name, job = jobs[key]
        if actual.previous[name].get(job.key) != job.digest or affected.intersection(job.needs):
            affected.add(key)
    return affected


def _new_flow_held_by(configs: FlowConfigs) -> str | None:
    """Return why a new flow is going to wait, as far as its jobs are known."""
    flow = configs.flow
    if not flow.preview:
        return configs.held_by(JobFacts(flow.name, flow.labels, None, None), configs.of_unknown())
    for job in flow.preview:
        reason = configs.held_by(configs.facts(job.key, job.name, job.function), configs.of_preview(job))
        if reason is not None:
            return reason
    return None


def _foreseen_jobs(
    configs: FlowConfigs, records: Sequence[JobRecord], affected: Collection[str], flow_changes: FlowChanges
) -> Iterator[Action]:
    """Yield what is going to happen to the jobs of a flow that was applied before."""
    flow = configs.flow
    if not flow.preview:
        return
    known = {job.key: job for job in records if job.current and job.generated_by is None}
    replaced: set[str] = set()
    for job in flow.preview:
        record, config = known.pop(job.key, None), configs.of_preview(job)
        if record is None:
            yield _foreseen(configs, ActionType.SUBMIT, job.key, ReasonCode.NEW_JOB, config)
        elif f"{flow.name}/{job.key}" in affected:
            code = flow_changes.why_replaced(job.key).code
            action = _foreseen(configs, ActionType.REPLACE, job.key, code, config, record.config)
            content = flow_changes.of_job(job.key)
            yield replace(action, changes=(*content, *action.changes), record=record)
            replaced.add(record.id)
        else:
            action_type = ActionType.PATCH if record.editable else ActionType.DEFER
            code = patch_reason(record)
            action = _foreseen(configs, action_type, job.key, code, config, record.config)
            if record.editable and record.name != job.name:
                action = replace(action, changes=(*action.changes, Change("name", record.name, job.name)))
            if action.changes:
                yield action
    for record in known.values():
        action_type = ActionType.FORGET if record.ended else ActionType.CANCEL
        code, config = ReasonCode.LEFT_FLOW, record.config
        yield replace(_foreseen(configs, action_type, record.key, code, config, config), record=record)
        replaced.add(record.id)
    for record in generated_by(records, replaced):
        if record.state in ACTIVE:
            code, config = ReasonCode.LEFT_FLOW, record.config
            action = _foreseen(configs, ActionType.CANCEL, record.key, code, config, config)
            yield replace(action, record=record)


def _foreseen(
    configs: FlowConfigs,
    action_type: ActionType,
    key: str,
    code: ReasonCode,
    config: RunConfig,
    before: RunConfig | None = None,
) -> Action:
    return Action(
        type=action_type, subject=Subject.JOB, key=f"{configs.flow.name}/{key}", reason=Reason(code),
        changes=configs.changes(before or RunConfig(), config), build=True, flow=configs.flow,
    )  # fmt: skip
