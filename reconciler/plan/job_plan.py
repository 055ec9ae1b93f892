"""What must change job by job in a flow that is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from reconciler.diagnostics import Diagnostic, Severity
from reconciler.model.actions import Action, ActionType, JobPlan, Subject
from reconciler.model.flows import BuiltFlow, BuiltJob
from reconciler.model.keys import Keys, job_id
from reconciler.model.operations import RERUN_BY_TOKEN
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Change, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.states import ACTIVE, KEPT, JobState
from reconciler.plan.configs import FlowConfigs


class JobPlanner:
    """Plans the jobs of one flow against their records (``jobs``, history included).

    After planning, ``problems`` has why some run config is impossible: then nothing must be done;
    ``warnings`` has that of jobs which need none any more; ``restated`` see :class:`Plan`.
    """

    def __init__(self, configs: FlowConfigs, jobs: Sequence[JobRecord]) -> None:
        self.configs = configs
        self.flow = configs.flow
        self.jobs = jobs
        self.problems: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.restated: list[Action] = []
        self._excused: set[str] = set()

    def plan(self, built: BuiltFlow) -> list[Action]:
        """Return what must happen so that the jobs become those of the built flow."""
        wanted = [self._wanted(job) for job in built.jobs]
        configs = {job_id(one.job.uuid, one.job.index): one.config for one in wanted}
        generated = self._generated(configs, built.exports)
        return [*self._built_jobs(wanted), *generated]

    def patches(self) -> list[Action]:
        """Return what must happen so that the jobs there are follow the rules, and stay otherwise as made."""
        configs: dict[str, RunConfig] = {}
        return [*self._submitted(configs), *self._generated(configs)]

    def reruns(self, actions: Sequence[Action]) -> list[Action]:
        """Return the jobs that run again, since they failed or were cancelled; the others stay as they are.

        ``actions`` is what the plan does to the jobs besides. What the run config of an ended, generated job
        asks for may be impossible: then it could not run.
        """
        patched = {a.record.id: a.wanted for a in actions if a.record is not None and a.wanted is not None}
        leaving = {a.record.id for a in actions if a.record is not None and a.type in _LEAVING}
        return [
            _run_again(record, patched.get(record.id))
            for record in self.jobs
            if record.current
            and record.state in RERUN_BY_TOKEN
            and record.id not in leaving
            and record.id not in self._excused
        ]

    def why_wait(self, actions: Iterable[Action]) -> str | None:
        """New submissions wait while a document that touches them is invalid: half the rules waste hours."""
        for action in actions:
            if action.type in (ActionType.SUBMIT, ActionType.REPLACE) and action.wanted is not None:
                job = action.wanted.job
                facts = self.configs.facts(job.key, job.name, job.function)
                reason = self.configs.held_by(facts, action.wanted.config)
                if reason is not None:
                    return reason
        return None

    def _submitted(self, configs: dict[str, RunConfig]) -> Iterator[Action]:
        for record in self.jobs:
            if record.current and record.generated_by is None:
                config = configs[record.id] = self.configs.of_record(record)
                self.problems += self.configs.problems(config)
                yield from self._diff(record, config)

    # jobs of the built flow ---------------------------------------------------------------------------

    def _wanted(self, job: BuiltJob) -> JobPlan:
        own, config = self.configs.of_built(job)
        self.problems += self.configs.problems(config)
        return JobPlan(job, own, config)

    def _built_jobs(self, wanted: list[JobPlan]) -> Iterator[Action]:
        records = {(job.uuid, job.index): job for job in self.jobs if job.generated_by is None}
        leaving = self._leaving(wanted)
        for plan in wanted:
            record = records.get((plan.job.uuid, plan.job.index))
            if record is not None and record.current:
                yield from self._diff(record, plan.config, plan)
            else:
                yield self._submit(plan, record, leaving.pop(plan.job.key, None))
        for record in leaving.values():
            yield _leave(record)

    def _leaving(self, wanted: list[JobPlan]) -> dict[str, JobRecord]:
        keep = {(plan.job.uuid, plan.job.index) for plan in wanted}
        return {
            job.key: job
            for job in self.jobs
            if job.current and job.generated_by is None and (job.uuid, job.index) not in keep
        }

    def _submit(self, plan: JobPlan, record: JobRecord | None, replaced: JobRecord | None) -> Action:
        action_type = ActionType.SUBMIT
        reason = Reason(ReasonCode.NEW_JOB if self.jobs else ReasonCode.NEW_FLOW)
        if replaced is not None:
            action_type, reason = ActionType.REPLACE, Reason(ReasonCode.CONTENT_CHANGED)
        elif record is not None:
            reason = _wanted_again(record)
        before = record if record is not None else replaced
        old = before.config if before is not None else RunConfig()
        return Action(
            type=action_type, subject=Subject.JOB, key=f"{self.flow.name}/{plan.job.key}", reason=reason,
            changes=self.configs.changes(old, plan.config), flow=self.flow, wanted=plan, record=replaced,
        )  # fmt: skip

    # jobs born at run time ----------------------------------------------------------------------------

    def _generated(
        self, configs: dict[str, RunConfig], built: Iterable[str] | None = None
    ) -> Iterator[Action]:
        """Their run config follows the rules; they leave with their generator, and come back with its result.

        ``configs`` has the run config of every job that stays, by its id; the generated ones are added.
        ``built`` are the keys of the jobs that the flow is built of; without them nothing comes back.
        """
        staying, leaving = self._with_their_generators(configs, may_return=built is not None)
        yield from map(_leave, leaving)
        keys = Keys([*(built or ()), *(record.key for record in staying if record.current)])
        for record in staying:
            assert record.generator is not None
            config = configs[record.id] = self.configs.of_record(record, configs[record.generator])
            excused = self._is_excused(record, config)
            if not excused:
                self.problems += self.configs.problems(config)
            if not record.current:
                yield self._comes_back(record, config, keys.free(record.key))
            elif not excused:
                yield from self._diff(record, config)

    def _with_their_generators(
        self, there: Iterable[str], *, may_return: bool
    ) -> tuple[list[JobRecord], list[JobRecord]]:
        """Return the generated jobs that have a place beside the jobs ``there``, and those that lose theirs.

        History has one again if what generated it is there with the result of the attempt that did.
        """
        known = {job.id: job for job in self.jobs}
        ids, staying, leaving = set(there), list[JobRecord](), list[JobRecord]()
        for record in sorted(self.jobs, key=lambda job: job.sequence):
            if record.generator is None:
                continue
            has_place = record.generator in ids
            if has_place and (
                record.current or (may_return and _made_it(known.get(record.generator), record))
            ):
                ids.add(record.id)
                staying.append(record)
            elif record.current:
                leaving.append(record)
        return staying, leaving

    def _is_excused(self, record: JobRecord, config: RunConfig) -> bool:
        """What a job said of itself at birth cannot be edited: once it ended, it must not block its flow."""
        ended = record.ended if record.current else record.state in KEPT
        problems = self.configs.problems(config) if ended else []
        self.warnings += (replace(found, severity=Severity.WARNING) for found in problems)
        self._excused |= {record.id} if problems else set()
        return bool(problems)

    def _comes_back(self, record: JobRecord, config: RunConfig, key: str) -> Action:
        return Action(
            type=ActionType.SUBMIT, subject=Subject.JOB, key=f"{self.flow.name}/{key}", flow=self.flow,
            reason=_wanted_again(record), changes=self.configs.changes(record.config, config),
            wanted=JobPlan(replace(as_built(record), key=key), record.own, config),
        )  # fmt: skip

    # run config ---------------------------------------------------------------------------------------

    def _diff(self, record: JobRecord, config: RunConfig, plan: JobPlan | None = None) -> Iterator[Action]:
        changes = self.configs.changes(record.config, config)
        if record.editable and plan is not None:
            changes += _label_changes(record, plan.job)
        own = plan.own if plan is not None else record.own
        step = _step(record, config, changed=bool(changes))
        if step is None and record.wanted is not None:
            yield _waits_already(record)
        if step is None and (record.wanted or record.config) == config and record.own == own:
            return
        action_type, reason = (
            step if step is not None else (ActionType.KEEP, Reason(ReasonCode.ORIGIN_CHANGED))
        )
        job = plan.job if plan is not None else as_built(record)
        action = Action(
            type=action_type, subject=Subject.JOB, key=record.path, reason=reason, changes=changes,
            wanted=JobPlan(job, own, config), record=record,
        )  # fmt: skip
        if step is not None:
            yield action
        else:
            self.restated.append(action)


_LEAVING = (ActionType.REPLACE, ActionType.CANCEL, ActionType.FORGET)


def _run_again(record: JobRecord, patched: JobPlan | None) -> Action:
    plan = patched or JobPlan(as_built(record), record.own, record.wanted or record.config)
    return Action(
        type=ActionType.SUBMIT, subject=Subject.JOB, key=f"{record.flow}/{plan.job.key}", wanted=plan,
        record=record, reason=Reason(ReasonCode.RERUN, {"state": record.state}),
    )  # fmt: skip


def _wanted_again(record: JobRecord) -> Reason:
    if record.state in ACTIVE:
        return Reason(ReasonCode.ACTIVE_WANTED_AGAIN, {"state": record.state})
    done = record.state is JobState.COMPLETED
    return Reason(ReasonCode.RESULT_WANTED_AGAIN if done else ReasonCode.WANTED_AGAIN)


def _made_it(generator: JobRecord | None, record: JobRecord) -> bool:
    """Whether the result that a generator has now is that of the attempt which generated a job."""
    if generator is None or generator.state is not JobState.COMPLETED:
        return False
    return generator.attempt == record.generator_attempt


def _step(record: JobRecord, config: RunConfig, *, changed: bool) -> tuple[ActionType, Reason] | None:
    """Return whether a job is patched now, or later, or not at all; and why."""
    if not changed:
        undone = ActionType.PATCH, Reason(ReasonCode.CHANGE_UNDONE)
        return undone if record.wanted is not None else None
    if record.editable:
        return ActionType.PATCH, Reason(ReasonCode.RUN_CONFIG_CHANGED)
    if record.wanted is not None and record.wanted.same_values(config):
        return None
    return ActionType.DEFER, _not_editable(record)


def _not_editable(record: JobRecord) -> Reason:
    return Reason(ReasonCode.NOT_EDITABLE, {"state": record.state})


def _waits_already(record: JobRecord) -> Action:
    """An earlier plan has deferred the patch: nothing is to be done, and people must see it all the same."""
    return Action(
        type=ActionType.KEEP, subject=Subject.JOB, key=record.path, reason=_not_editable(record),
        changes=tuple(record.wanted_changes), record=record,
    )  # fmt: skip


def _label_changes(record: JobRecord, job: BuiltJob) -> tuple[Change, ...]:
    """The names that people know a job by; its identity does not depend on them."""
    return tuple(
        Change(field, before, after)
        for field in ("key", "name")
        if (before := getattr(record, field)) != (after := getattr(job, field))
    )


def _leave(record: JobRecord) -> Action:
    action_type = ActionType.FORGET if record.ended else ActionType.CANCEL
    reason = Reason(ReasonCode.LEFT_FLOW_ENDED if record.ended else ReasonCode.LEFT_FLOW)
    return Action(type=action_type, subject=Subject.JOB, key=record.path, reason=reason, record=record)


def as_built(record: JobRecord) -> BuiltJob:
    """Return the job of a record in its built form; its payload, which is left out, stays as it is."""
    return BuiltJob(
        key=record.key, uuid=record.uuid, index=record.index, name=record.name, function=record.function,
        content=record.content, parents=record.parents, on_missing=record.on_missing, own={},
        files=record.files, hosts=[], payload=b"",
    )  # fmt: skip
