"""What must change in one flow: its own record, and job by job."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.diagnostics import Diagnostic
from reconciler.model.actions import Action, JobPlan, Subject, Verb
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow, BuiltJob
from reconciler.model.manifests import Kind, OnChange
from reconciler.model.records import Change, FlowRecord, JobRecord
from reconciler.model.rules import JobFacts
from reconciler.model.run_config import FIELDS, RunConfig, inherited, layer_of, layers_for, resolve
from reconciler.model.settings import Layer, Level, Origin, Resources, Setting
from reconciler.model.states import FINISHED, JobState
from reconciler.plan.checks import check_config, worker_defaults


class FlowPlanner:
    """Plans one flow against its records.

    ``built`` is None when the flow's code must run first; then the plan says so, and shows the jobs as far
    as the manifest does.
    """

    def __init__(
        self,
        desired: DesiredState,
        flow: DesiredFlow,
        record: FlowRecord | None,
        jobs: list[JobRecord],
        built: BuiltFlow | None,
    ) -> None:
        self.desired = desired
        self.flow = flow
        self.record = record
        self.jobs = jobs
        self.built = built
        self.defaults = worker_defaults(desired)
        self.written = {job.key: job for job in flow.preview}
        self.diagnostics: list[Diagnostic] = []

    def actions(self) -> list[Action]:
        """Return what must happen to this flow and its jobs, in order."""
        if self.built is None:
            return self._before_build()
        if self._held():
            assert self.record is not None
            held = self._action(
                Verb.KEEP, "the flow changed, and on_change is hold: it keeps running as submitted"
            )
            return [held, *self._patches_of_existing()]
        wanted = [self._job_plan(job) for job in self.built.jobs]
        if self.diagnostics:
            return [self._waits("its run config is not possible")]
        jobs = list(self._job_actions(wanted))
        waiting = self._why_submissions_wait(jobs)
        if waiting is not None:
            kept = [action for action in jobs if action.verb in (Verb.PATCH, Verb.DEFER)]
            return [self._waits(waiting), *kept]
        return [*self._flow_action(), *jobs]

    def _held(self) -> bool:
        assert self.built is not None
        changed = self.record is not None and self.record.build_key != self.built.build_key
        return changed and self.flow.on_change is OnChange.HOLD

    def _action(self, verb: Verb, reason: str, changes: tuple[Change, ...] = ()) -> Action:
        key = self.built.build_key if self.built is not None else None
        return Action(
            verb=verb, subject=Subject.FLOW, key=self.flow.name, reason=reason, changes=changes,
            flow=self.flow, build_key=key,
        )  # fmt: skip

    def _waits(self, reason: str) -> Action:
        return self._action(Verb.KEEP, f"waits: {reason}")

    def _before_build(self) -> list[Action]:
        new = self.record is None or self.record.removed
        verb = Verb.SUBMIT if new else Verb.REPLACE
        reason = "new flow" if new else "its content, code or files changed: to be rebuilt, then job by job"
        flow = Action(
            verb=verb, subject=Subject.FLOW, key=self.flow.name, reason=reason, build=True, flow=self.flow
        )
        return [flow, *(self._previews() if new else [])]

    def _previews(self) -> Iterator[Action]:
        for job in self.flow.preview:
            facts = JobFacts(self.flow.name, self.flow.labels, job.name, job.function)
            config = self._config(facts, job.own, {})
            yield Action(
                verb=Verb.SUBMIT, subject=Subject.JOB, key=f"{self.flow.name}/{job.key}", reason="new flow",
                changes=self._changes(RunConfig(), config), flow=self.flow,
            )  # fmt: skip

    def _flow_action(self) -> Iterator[Action]:
        assert self.built is not None
        record = self.record
        if record is None or record.removed:
            yield self._action(Verb.SUBMIT, "new flow" if record is None else "the flow is wanted again")
            return
        changes = list(self._flow_changes(record))
        if changes:
            yield self._action(Verb.PATCH, "the flow's manifest changed", tuple(changes))

    def _flow_changes(self, record: FlowRecord) -> Iterator[Change]:
        assert self.built is not None
        flow, spec = self.flow, self.flow.spec
        if record.build_key != self.built.build_key:
            yield Change("content", record.build_key[:12], self.built.build_key[:12])
        if record.labels != flow.labels:
            yield Change("labels", record.labels, flow.labels)
        if record.suspended != spec.suspend:
            yield Change("suspend", record.suspended, spec.suspend)
        if record.prune != flow.prune:
            yield Change("prune", record.prune, flow.prune)
        if _values(record.layer) != _values(flow.layer):
            yield Change("run config", _values(record.layer), _values(flow.layer))
        if flow.protected and not record.protected:
            yield Change("protected", False, True)

    # jobs ---------------------------------------------------------------------------------------------

    def _job_plan(self, job: BuiltJob) -> JobPlan:
        origin = Origin(Level.JOB, Kind.FLOW, self.flow.name, "/spec")
        own = layer_of(job.own, origin, "/spec")
        written = self.written.get(job.key)
        if written is not None:
            own |= written.own
        config = self._config(self._facts(job), own, {})
        self.diagnostics += check_config(self.desired, self.flow, config)
        return JobPlan(job, own, config)

    def _facts(self, job: BuiltJob) -> JobFacts:
        """A function may be known by two paths: where it is defined, and as the manifest writes it."""
        written = self.written.get(job.key)
        alias = written.function if written is not None else None
        return JobFacts(self.flow.name, self.flow.labels, job.name, job.function, alias=alias)

    def _config(self, facts: JobFacts, own: Layer, generator: Layer) -> RunConfig:
        layers = layers_for(
            facts,
            rules=self.desired.rules,
            own=own,
            generator=generator,
            flow=self.flow.layer,
            project=self.desired.project_layer,
        )
        return resolve(layers, self.defaults)

    def _job_actions(self, wanted: list[JobPlan]) -> Iterator[Action]:
        records = {(job.uuid, job.index): job for job in self.jobs if job.generated_by is None}
        leaving = self._leaving(wanted)
        for plan in wanted:
            record = records.get((plan.job.uuid, plan.job.index))
            if record is not None and record.current:
                yield from self._patch(record, plan)
            else:
                yield self._submit(plan, record, leaving.pop(plan.job.key, None))
        for record in leaving.values():
            yield self._leave(record)
        yield from self._generated(wanted)

    def _leaving(self, wanted: list[JobPlan]) -> dict[str, JobRecord]:
        keep = {(plan.job.uuid, plan.job.index) for plan in wanted}
        return {
            job.key: job
            for job in self.jobs
            if job.current and job.generated_by is None and (job.uuid, job.index) not in keep
        }

    def _submit(self, plan: JobPlan, record: JobRecord | None, replaced: JobRecord | None) -> Action:
        old = replaced.config if replaced is not None else RunConfig()
        verb, reason = Verb.SUBMIT, "new job"
        if replaced is not None:
            verb, reason = Verb.REPLACE, "its content changed, or that of a job it needs"
        elif record is not None:
            reason = "wanted again" + (
                "; its result is still there" if record.state is JobState.COMPLETED else ""
            )
        elif self.record is None:
            reason = "new flow"
        return Action(
            verb=verb, subject=Subject.JOB, key=f"{self.flow.name}/{plan.job.key}", reason=reason,
            changes=self._changes(old, plan.config), flow=self.flow, wanted=plan, record=replaced,
        )  # fmt: skip

    def _leave(self, record: JobRecord) -> Action:
        verb = Verb.FORGET if record.state in FINISHED else Verb.CANCEL
        reason = "no longer part of the flow"
        if verb is Verb.FORGET:
            reason += "; its record and output stay as history"
        return Action(verb=verb, subject=Subject.JOB, key=record.path, reason=reason, record=record)

    def _generated(self, wanted: list[JobPlan]) -> Iterator[Action]:
        """Jobs born at run time: their run config follows the rules; they leave with their generator."""
        alive = {plan.job.uuid for plan in wanted}
        by_uuid = {plan.job.uuid: plan.config for plan in wanted}
        for record in sorted(self.jobs, key=lambda job: job.sequence):
            if record.generated_by is None or not record.current:
                continue
            if record.generated_by not in alive:
                yield self._leave(record)
                continue
            alive.add(record.uuid)
            config = self._generated_config(record, by_uuid.get(record.generated_by))
            by_uuid[record.uuid] = config
            yield from self._diff(record, config)

    def _generated_config(self, record: JobRecord, generator: RunConfig | None) -> RunConfig:
        facts = JobFacts(self.flow.name, self.flow.labels, record.name, record.function, generated=True)
        return self._config(facts, record.own, inherited(generator) if generator is not None else {})

    def _patches_of_existing(self) -> Iterator[Action]:
        """For a flow on hold: the rules still reach the jobs it has."""
        for record in self.jobs:
            if record.current and record.generated_by is None:
                facts = JobFacts(self.flow.name, self.flow.labels, record.name, record.function)
                yield from self._diff(record, self._config(facts, record.own, {}))

    def _patch(self, record: JobRecord, plan: JobPlan) -> Iterator[Action]:
        extra = tuple(
            Change(field, getattr(record, field), getattr(plan.job, field))
            for field in ("key", "name")
            if getattr(record, field) != getattr(plan.job, field)
        )
        yield from self._diff(record, plan.config, extra, plan)

    def _diff(
        self,
        record: JobRecord,
        config: RunConfig,
        extra: tuple[Change, ...] = (),
        plan: JobPlan | None = None,
    ) -> Iterator[Action]:
        changes = self._changes(record.config, config) + extra
        if not changes:
            if record.wanted is not None:
                yield self._job_action(Verb.PATCH, record, (), config, plan, "the deferred change is undone")
            return
        if record.editable:
            yield self._job_action(Verb.PATCH, record, changes, config, plan, "its run config changed")
        elif record.wanted is None or not record.wanted.same_values(config):
            reason = f"{record.state} is not editable; applied as soon as it is"
            yield self._job_action(Verb.DEFER, record, changes, config, plan, reason)

    def _job_action(
        self,
        verb: Verb,
        record: JobRecord,
        changes: tuple[Change, ...],
        config: RunConfig,
        plan: JobPlan | None,
        reason: str,
    ) -> Action:
        wanted = JobPlan(plan.job if plan else _as_built(record), plan.own if plan else record.own, config)
        return Action(
            verb=verb, subject=Subject.JOB, key=record.path, reason=reason, changes=changes,
            wanted=wanted, record=record,
        )  # fmt: skip

    def _changes(self, old: RunConfig, new: RunConfig) -> tuple[Change, ...]:
        changes = []
        for field in FIELDS:
            before, after = old.setting(field), new.setting(field)
            if _shown(before) != _shown(after):
                provenance = self.desired.provenance(after.origin) if after is not None else None
                changes.append(Change(field, _shown(before), _shown(after), provenance))
        return tuple(changes)

    # holding back -------------------------------------------------------------------------------------

    def _why_submissions_wait(self, jobs: list[Action]) -> str | None:
        """New submissions wait while a document that touches them is invalid: half the rules waste hours."""
        for action in jobs:
            if action.verb in (Verb.SUBMIT, Verb.REPLACE) and action.wanted is not None:
                reason = self._held_by(action.wanted)
                if reason is not None:
                    return reason
        return None

    def _held_by(self, plan: JobPlan) -> str | None:
        facts = self._facts(plan.job)
        for hold in self.desired.holds:
            if hold.rule is None or hold.rule.matches(facts):
                return hold.reason
        for kind, field in ((Kind.WORKER, "worker"), (Kind.EXEC_CONFIG, "exec_config")):
            name = plan.config.value(field)
            if isinstance(name, str) and f"{kind}/{name}" in self.desired.stale:
                return f"{kind} '{name}' is invalid in this revision"
        return None


def _shown(setting: Setting | None) -> object:
    """A setting as a plan shows it: plain data; resources say which form they have."""
    if setting is None:
        return None
    if isinstance(setting.value, Resources):
        return {"qresources": setting.value.values} if setting.value.generic else setting.value.values
    return setting.value


def _values(layer: Layer) -> dict[str, object]:
    return {field: _shown(setting) for field, setting in sorted(layer.items())}


def _as_built(record: JobRecord) -> BuiltJob:
    return BuiltJob(
        key=record.key, uuid=record.uuid, index=record.index, name=record.name, function=record.function,
        content=record.content, parents=record.parents, on_missing=record.on_missing, own={},
        files=record.files, hosts=[], payload=b"",
    )  # fmt: skip
