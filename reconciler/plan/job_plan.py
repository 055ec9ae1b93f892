"""What must change job by job in a flow that is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from reconciler.diagnostics import Diagnostic, Severity
from reconciler.model.actions import Action, ActionType, JobPlan, Subject
from reconciler.model.flows import BuiltFlow, BuiltJob, Keys, job_id
from reconciler.model.manifests import OnCodeChange
from reconciler.model.operations import RERUN_BY_TOKEN
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Change, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.states import ACTIVE, BROKEN, KEPT, JobState
from reconciler.plan.changes import FlowChanges
from reconciler.plan.configs import FlowConfigs


class JobPlanner:
    """Plans the jobs of one flow against their records (``jobs``, superseded ones included).

    After planning, ``problems`` has why a run config is impossible: then nothing must be done. ``warnings``
    has the same for jobs that no longer need a run config; for ``restated`` see :class:`Plan`. ``unsettled``:
    something changes once a job is editable.
    """

    def __init__(self, configs: FlowConfigs, jobs: Sequence[JobRecord], changes: FlowChanges) -> None:
        self.configs = configs
        self.changes = changes
        self.flow = configs.flow
        self.jobs = jobs
        self.problems: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.restated: list[Action] = []
        self.unsettled = False
        self._excused: set[str] = set()

    def plan(self, built: BuiltFlow) -> list[Action]:
        """Return what must happen so that the jobs become those of the built flow."""
        wanted = []
        for job in built.jobs:
            own, config = self.configs.of_built(job)
            self.problems += self.configs.problems(config)
            wanted.append(JobPlan(job, own, config))
        configs = {job_id(plan.job.uuid, plan.job.index): plan.config for plan in wanted}
        records = {job.id: job for job in self.jobs if job.generated_by is None}
        leaving = {job.key: job for job in records.values() if job.current and job.id not in configs}
        actions: list[Action] = []
        for plan in wanted:
            record = records.get(job_id(plan.job.uuid, plan.job.index))
            if record is not None and record.current:
                actions += self._diff(record, plan.config, plan)
            else:
                actions.append(self._submit(plan, record, leaving.pop(plan.job.key, None)))
        actions += [*map(_leave, leaving.values()), *self._generated(configs, built.exports)]
        if self.flow.on_code_change is OnCodeChange.RETRY_FAILED:
            broken = (job for job in self._not_leaving(actions) if job.state in BROKEN)
            older = (job for job in broken if not {*built.code} <= {*job.code})
            actions += self._again(older, ReasonCode.RERUN_NEW_CODE, actions)
        return actions

    def patches(self) -> list[Action]:
        """Return what brings jobs to their run config while their flow stays as it was submitted."""
        configs: dict[str, RunConfig] = {}
        actions: list[Action] = []
        for record in self.jobs:
            if record.current and record.generated_by is None:
                config = configs[record.id] = self.configs.of_record(record)
                self.problems += self.configs.problems(config)
                actions += self._diff(record, config)
        return [*actions, *self._generated(configs)]

    def reruns(self, actions: Sequence[Action]) -> list[Action]:
        """Return the failed and cancelled jobs that run again because ``spec.rerun`` is new.

        ``actions`` is what the plan does to the jobs besides.
        """
        ended = (job for job in self._not_leaving(actions) if job.state in RERUN_BY_TOKEN)
        return self._again(ended, ReasonCode.RERUN, actions)

    def _not_leaving(self, actions: Sequence[Action]) -> list[JobRecord]:
        """Return the current jobs that neither leave nor run again by the plan, and that could run."""
        others = (ActionType.SUBMIT, ActionType.REPLACE, ActionType.CANCEL, ActionType.FORGET)
        done = {a.record.id for a in actions if a.record is not None and a.type in others} | self._excused
        return [job for job in self.jobs if job.current and job.id not in done]

    def _again(
        self, records: Iterable[JobRecord], code: ReasonCode, actions: Sequence[Action]
    ) -> list[Action]:
        patched = {a.record.id: a.wanted for a in actions if a.record is not None and a.wanted is not None}
        found = []
        for record in records:
            config = record.wanted or record.config
            plan = patched.get(record.id) or JobPlan(as_built(record), record.own, config)
            found.append(
                Action(
                    type=ActionType.SUBMIT, subject=Subject.JOB, key=f"{record.flow}/{plan.job.key}",
                    wanted=plan, record=record, reason=Reason(code, {"state": record.state}),
                )
            )  # fmt: skip
        return found

    def why_wait(self, actions: Iterable[Action]) -> str | None:
        """Return why new submissions wait: a document that touches one of them is invalid now."""
        for action in actions:
            if action.type in (ActionType.SUBMIT, ActionType.REPLACE) and action.wanted is not None:
                job = action.wanted.job
                facts = self.configs.facts(job.key, job.name, job.function)
                reason = self.configs.held_by(facts, action.wanted.config)
                if reason is not None:
                    return reason
        return None

    def _submit(self, plan: JobPlan, record: JobRecord | None, replaced: JobRecord | None) -> Action:
        """Return the submission of a job; ``record`` is a superseded one that it has, if any."""
        before = record if record is not None else replaced
        content: tuple[Change, ...] = ()
        if record is not None and (replaced is None or record.state in (JobState.COMPLETED, *ACTIVE)):
            reason = _wanted_again(record)
        elif replaced is not None:
            reason = self.changes.why_replaced(plan.job.key)
            content = self.changes.of_job(plan.job.key)
        else:
            reason = Reason(ReasonCode.NEW_JOB if self.jobs else ReasonCode.NEW_FLOW)
        old = before.config if before is not None else RunConfig()
        return Action(
            type=ActionType.REPLACE if replaced is not None else ActionType.SUBMIT, subject=Subject.JOB,
            key=f"{self.flow.name}/{plan.job.key}", reason=reason, flow=self.flow, wanted=plan,
            changes=(*content, *self.configs.changes(old, plan.config)), record=replaced,
        )  # fmt: skip

    def _generated(
        self, configs: dict[str, RunConfig], built: Iterable[str] | None = None
    ) -> Iterator[Action]:
        """Yield what happens to generated jobs: they leave with their generator, and return with its result.

        ``configs`` has the run config of every job that stays, by its id; those of generated jobs are added,
        since these may have generated more. ``built`` are the keys of the jobs that the flow is built of;
        without them no superseded job returns.
        """
        known = {job.id: job for job in self.jobs}
        staying: list[JobRecord] = []
        stay = set(configs)
        for record in sorted(self.jobs, key=lambda job: job.sequence):  # a generator is older than its jobs
            if record.generator is None:
                continue
            if record.generator in stay and (
                record.current or (built is not None and _has_made(known.get(record.generator), record))
            ):
                stay.add(record.id)
                staying.append(record)
            elif record.current:
                yield _leave(record)
        keys = Keys([*(built or ()), *(record.key for record in staying if record.current)])
        for record in staying:
            assert record.generator is not None
            config = configs[record.id] = self.configs.of_record(record, configs[record.generator])
            problems = self.configs.problems(config)
            if problems and (record.ended if record.current else record.state in KEPT):
                # Its own run config cannot be edited: once it has ended, it must not block its flow.
                self.warnings += (replace(found, severity=Severity.WARNING) for found in problems)
                self._excused.add(record.id)
            else:
                self.problems += problems
            if not record.current:
                key = keys.free(record.key)
                yield Action(
                    type=ActionType.SUBMIT, subject=Subject.JOB, key=f"{self.flow.name}/{key}",
                    flow=self.flow, reason=_wanted_again(record),
                    changes=self.configs.changes(record.config, config),
                    wanted=JobPlan(replace(as_built(record), key=key), record.own, config),
                )  # fmt: skip
            elif record.id not in self._excused:
                yield from self._diff(record, config)

    def _diff(self, record: JobRecord, config: RunConfig, plan: JobPlan | None = None) -> Iterator[Action]:
        """Yield what brings a job that stays to its run config.

        A RUNNING job on worker w1 that shall be on w2 gives Defer. The next plan gives Keep, since the patch
        waits already; once w1 is wanted again, it gives Patch, which takes the deferred patch away. Values
        that stay and come from another place become a restatement.
        """
        wanted = plan if plan is not None else JobPlan(as_built(record), record.own, config)
        changes = self.configs.changes(record.config, config)
        # Key and name are for people; the identity of a job does not depend on them.
        renamed = tuple(
            Change(field, before, after)
            for field in ("key", "name")
            if (before := getattr(record, field)) != (after := getattr(wanted.job, field))
        )
        if record.editable:
            changes += renamed
        self.unsettled = self.unsettled or (bool(renamed) and not record.editable)

        def action(action_type: ActionType, code: ReasonCode, **params: str) -> Action:
            return Action(
                type=action_type, subject=Subject.JOB, key=record.path, reason=Reason(code, params),
                changes=changes, wanted=wanted, record=record,
            )  # fmt: skip

        waits = record.wanted is not None and record.wanted.same_values(config)
        if changes and record.editable:
            yield action(ActionType.PATCH, patch_reason(record))
        elif changes and not waits:
            yield action(ActionType.DEFER, ReasonCode.NOT_EDITABLE, state=record.state)
        elif not changes and record.wanted is not None:
            yield action(ActionType.PATCH, ReasonCode.CHANGE_UNDONE)
        else:
            if record.wanted is not None:
                waiting = action(ActionType.KEEP, ReasonCode.NOT_EDITABLE, state=record.state)
                yield replace(waiting, changes=tuple(record.deferred_changes), wanted=None)
            if (record.wanted or record.config) != config or record.own != wanted.own:
                self.restated.append(action(ActionType.KEEP, ReasonCode.ORIGIN_CHANGED))


def patch_reason(record: JobRecord) -> ReasonCode:
    """Return why a job is patched; the patch of a COMPLETED one is only stored."""
    done = record.state is JobState.COMPLETED
    return ReasonCode.RUN_CONFIG_STORED if done else ReasonCode.RUN_CONFIG_CHANGED


def _wanted_again(record: JobRecord) -> Reason:
    if record.state in ACTIVE:
        return Reason(ReasonCode.ACTIVE_WANTED_AGAIN, {"state": record.state})
    done = record.state is JobState.COMPLETED
    return Reason(ReasonCode.RESULT_WANTED_AGAIN if done else ReasonCode.WANTED_AGAIN)


def _has_made(generator: JobRecord | None, record: JobRecord) -> bool:
    """Return whether the present result of a generator is that of the attempt which generated a job."""
    if generator is None or generator.state is not JobState.COMPLETED:
        return False
    return generator.attempt.number == (record.generated_by.attempt if record.generated_by is not None else 0)


def _leave(record: JobRecord) -> Action:
    action_type = ActionType.FORGET if record.ended else ActionType.CANCEL
    reason = Reason(ReasonCode.LEFT_FLOW_ENDED if record.ended else ReasonCode.LEFT_FLOW)
    return Action(type=action_type, subject=Subject.JOB, key=record.path, reason=reason, record=record)


def as_built(record: JobRecord) -> BuiltJob:
    """Return the job of a record in its built form; the payload is left out, and the record keeps its own."""
    return BuiltJob(
        key=record.key, uuid=record.uuid, index=record.index, name=record.name, function=record.function,
        content=record.content, parents=record.parents, on_missing=record.on_missing, own={},
        files=record.files, hosts=[], payload=b"",
    )  # fmt: skip
