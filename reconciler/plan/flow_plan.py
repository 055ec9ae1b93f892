"""What must change in one flow: its own record, and whether its jobs are known, held or may go ahead."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from reconciler.diagnostics import Diagnostic, Severity
from reconciler.model.actions import Action, ActionType, Subject
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.manifests import OnChange
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import ActualState, Change, FlowRecord
from reconciler.model.settings import Layer, Setting
from reconciler.plan.configs import FlowConfigs
from reconciler.plan.foresee import foreseen_jobs, new_flow_held_by, new_jobs
from reconciler.plan.job_plan import JobPlanner
from reconciler.plan.renames import lost_identity, name_problems


class FlowPlanner:
    """Plans one flow against its records.

    A flow that ``actual.built`` does not have must run its code first; then the plan says so, and shows the
    jobs as far as the manifest does. ``defaults`` are the default resources of the workers, ``affected`` the
    jobs (``flow/job``) whose content changes by what the manifests show. ``old_name`` is what the flow was
    called until now.
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
        self.built = actual.built.get(flow.name)
        self.records = actual.jobs.get(flow.name, [])
        self.foreseeable = flow.name in actual.previous
        self.affected = affected
        self.configs = FlowConfigs(desired, flow, defaults)
        self.jobs = JobPlanner(self.configs, self.records)
        self.diagnostics: list[Diagnostic] = []
        self.restated: list[Action] = []

    def actions(self) -> list[Action]:
        """Return what must happen to this flow and its jobs, in order."""
        misnamed = list(self._name_problems())
        if misnamed:
            return self._impossible(misnamed)
        if self._held():
            return self._on_hold()
        if self.built is None:
            return self._before_build()
        jobs = self.jobs.plan(self.built)
        jobs += self._reruns(jobs)
        if self.jobs.problems:
            return self._impossible(self.jobs.problems)
        self.diagnostics += self.jobs.warnings
        self.restated = self.jobs.restated
        waiting = self.jobs.why_wait(jobs)
        if waiting is not None:
            patches = (action for action in jobs if action.type is ActionType.PATCH or action.is_deferred)
            return [self._waits(waiting), *self._all_but_content(), *patches]
        return [*self._flow_action(), *jobs]

    @property
    def _live(self) -> FlowRecord | None:
        return None if self.record is None or self.record.removed else self.record

    def _action(
        self,
        action_type: ActionType,
        reason: Reason,
        changes: tuple[Change, ...] = (),
        *,
        build: bool = False,
    ) -> Action:
        return Action(
            type=action_type, subject=Subject.FLOW, key=self.flow.name, reason=reason, changes=changes,
            build=build, flow=self.flow, build_key=self.built.build_key if self.built is not None else None,
        )  # fmt: skip

    # flows that stay as they are ----------------------------------------------------------------------

    def _waits(self, why: str) -> Action:
        return self._action(ActionType.KEEP, Reason(ReasonCode.WAITS, {"why": why}))

    def _impossible(self, problems: list[Diagnostic]) -> list[Action]:
        self.diagnostics += problems
        return [self._waits(problems[0].message)]

    def _name_problems(self) -> Iterator[Diagnostic]:
        yield from name_problems(self.desired, self.flow)
        lost = lost_identity(self.flow, self.actual)
        if lost is not None:
            yield lost

    def _held(self) -> bool:
        if self._live is None or self.flow.on_change is not OnChange.HOLD:
            return False
        return self.built is None or self.built.build_key != self._live.build_key

    def _on_hold(self) -> list[Action]:
        patches = self.jobs.patches()
        reruns = self._reruns(patches)
        if self.jobs.problems:
            return self._impossible(self.jobs.problems)
        self.diagnostics += self.jobs.warnings
        self.restated = self.jobs.restated
        waiting = self.jobs.why_wait(reruns)
        if waiting is not None:
            return [
                self._action(ActionType.KEEP, Reason(ReasonCode.RERUN_HELD_BACK, {"why": waiting})),
                *self._all_but_content(),
                *patches,
            ]
        held = self._action(ActionType.KEEP, Reason(ReasonCode.HELD_BACK))
        return [held, *self._all_but_content("content"), *patches, *reruns]

    def _reruns(self, actions: Sequence[Action]) -> list[Action]:
        """Return the jobs that run again since ``spec.rerun`` is new; ``actions`` is what else happens."""
        record, token = self.record, self.flow.rerun
        return self.jobs.reruns(actions) if record is not None and token not in (None, record.rerun) else []

    # flows to be built --------------------------------------------------------------------------------

    def _before_build(self) -> list[Action]:
        problems = [
            problem
            for job in self.flow.preview
            for problem in self.configs.problems(self.configs.of_preview(job))
        ]
        if problems:
            return self._impossible(problems)
        self.diagnostics += self._suspicions()
        if self._live is None:
            held = new_flow_held_by(self.configs)
            if held is not None:
                return [self._waits(held)]
            return [self._action(ActionType.SUBMIT, self._why_new(), build=True), *new_jobs(self.configs)]
        reason = Reason(ReasonCode.TO_BE_REBUILT)
        foreseen = foreseen_jobs(self.configs, self.records, self.affected) if self.foreseeable else ()
        return [self._action(ActionType.REPLACE, reason, build=True), *foreseen]

    def _why_new(self) -> Reason:
        return Reason(ReasonCode.NEW_FLOW if self.record is None else ReasonCode.FLOW_WANTED_AGAIN)

    def _suspicions(self) -> Iterator[Diagnostic]:
        """Jobs that only code knows may say other things than their flow: sure after the build."""
        if not self.flow.preview:
            for problem in self.configs.problems(self.configs.of_unknown()):
                yield msgspec.structs.replace(problem, severity=Severity.WARNING)

    # flows that are built -----------------------------------------------------------------------------

    def _flow_action(self) -> Iterator[Action]:
        record = self._live
        if record is None:
            yield self._action(ActionType.SUBMIT, self._why_new())
            return
        changes = tuple(self._flow_changes(record))
        if changes:
            yield self._action(ActionType.PATCH, Reason(ReasonCode.FLOW_CHANGED), changes)

    def _all_but_content(self, *but: str) -> Iterator[Action]:
        """The jobs of a flow that stays as submitted follow its run config; so do those they generate.

        ``but`` are the fields that do not change yet.
        """
        but = but or ("content", "rerun")
        record = self._live
        changes = tuple(self._flow_changes(record)) if record is not None else ()
        changes = tuple(change for change in changes if change.field not in but)
        if record is not None and changes:
            action = self._action(ActionType.PATCH, Reason(ReasonCode.FLOW_CHANGED), changes)
            yield msgspec.structs.replace(action, build_key=record.build_key)

    def _flow_changes(self, record: FlowRecord) -> Iterator[Change]:
        flow, spec = self.flow, self.flow.spec
        if self.old_name is not None:
            yield Change("name", self.old_name, flow.name)
        if self.built is not None and record.build_key != self.built.build_key:
            yield Change("content", record.build_key[:12], self.built.build_key[:12])
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


def _values(layer: Layer) -> dict[str, object]:
    return {field: setting.shown for field, setting in sorted(layer.items())}
