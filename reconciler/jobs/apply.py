"""Carrying out a plan on the store, in one transaction.

Every action looks at the record again: what has changed since planning is not overwritten (a patch whose
job has become active meanwhile is deferred).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from reconciler.actual.writer import Writer
from reconciler.jobs.dependencies import (
    initial_state,
    recheck,
    release_all_tolerant,
    release_dependants,
    unhook,
    unhook_from,
)
from reconciler.jobs.outputs import forget_job
from reconciler.jobs.restarts import drop_unwanted_retry, revived, run_again
from reconciler.jobs.transitions import apply_config, deferred, leave, move, note, note_flow
from reconciler.model.actions import Action, ActionType, JobPlan, Plan, Subject
from reconciler.model.flows import BuiltFlow
from reconciler.model.manifests import Prune
from reconciler.model.operations import RERUN_BY_TOKEN
from reconciler.model.records import Change, FlowRecord, JobRecord
from reconciler.model.states import ACTIVE, JobState


class PlanApplication:
    """Applies one plan inside one transaction."""

    def __init__(
        self, writer: Writer, plan: Plan, project: str, built: Mapping[str, BuiltFlow], now: float
    ) -> None:
        self.writer = writer
        self.plan = plan
        self.project = project
        self.built = built
        self.now = now
        self.touched: list[str] = []
        self.again: list[JobRecord] = []
        self.revived: list[str] = []
        self.left: list[JobRecord] = []

    def carry_out(self) -> None:
        """Carry out every action, then decide who of the new jobs may run."""
        for old, new in self.plan.renames.items():
            self._rename(old, new)
        for action in self.plan.effective:
            if action.build:
                continue
            if action.subject is Subject.FLOW:
                self._flow(action)
            else:
                self._job(action)
        for action in self.plan.restated:
            self._restate(action)
        run_again(self.writer, self.again, "spec.rerun", self.now)
        unhook_from(self.writer, self.left, self.now)
        unhook(self.writer, self._records(self.revived), self.now)
        recheck(self.writer, self._records(self.touched), self.now)
        for job in self._records(self.revived):
            if job.state is JobState.COMPLETED:
                release_dependants(self.writer, job.uuid, self.now)
        self._go_on_without_those_that_left()

    def _go_on_without_those_that_left(self) -> None:
        """Who does not mind waits no longer for them, unless they still run: then it is not sure yet."""
        left = self._records([job.id for job in self.left])
        release_all_tolerant(self.writer, (job.uuid for job in left if job.state not in ACTIVE), self.now)

    def _records(self, ids: Sequence[str]) -> list[JobRecord]:
        return [job for job_id in ids if (job := self.writer.job(job_id)) is not None]

    # flows --------------------------------------------------------------------------------------------

    def _flow(self, action: Action) -> None:
        note_flow(
            self.writer, action.key, str(action.type), action.reason, self.now,
            revision=self.plan.revision, changes=list(action.changes),
        )  # fmt: skip
        match action.type:
            case ActionType.SUBMIT | ActionType.PATCH:
                self._put_flow(action)
            case ActionType.CANCEL:
                self._mark_removed(action.key)
            case ActionType.FORGET:
                self._forget_flow(action.key)

    def _rename(self, old: str, new: str) -> None:
        """The records of a flow go on under its new name."""
        record = self.writer.flow(old)
        if record is None:
            return
        self.writer.delete_flow(old)
        self.writer.put_flow(msgspec.structs.replace(record, name=new, removed=False))
        note_flow(self.writer, new, "Renamed", f"was {old}", self.now, revision=self.plan.revision)
        for job in self.writer.jobs_of(old):
            self.writer.put_job(msgspec.structs.replace(job, flow=new))

    def _put_flow(self, action: Action) -> None:
        flow = action.flow
        assert flow is not None and action.build_key is not None
        old = self.writer.flow(flow.name)
        record = FlowRecord(
            name=flow.name,
            identity=flow.identity,
            build_key=action.build_key,
            labels=flow.labels,
            layer=flow.layer,
            revision=self.plan.revision,
            suspended=flow.spec.suspend,
            suspend_reason=flow.spec.suspend_reason,
            protected=flow.is_protected(old is not None and old.protected),
            prune=flow.prune,
            created=old.created if old is not None else self.now,
            stopped=old.stopped if old is not None and old.build_key == action.build_key else False,
            rerun=flow.rerun if _follows_token(action) or old is None else old.rerun,
        )
        self.writer.put_flow(record)
        if old is not None and old.suspended != record.suspended:
            self._suspend(record)
        if old is not None and old.build_key != record.build_key:
            self._refresh_jobs(old.build_key, self.built[flow.name])

    def _suspend(self, flow: FlowRecord) -> None:
        for job in self.writer.jobs_of(flow.name):
            if flow.suspended and job.state in (JobState.READY, JobState.WAITING):
                move(self.writer, job, JobState.PAUSED, self.now, "spec.suspend")
            elif not flow.suspended and job.state is JobState.PAUSED and job.held is None:
                move(self.writer, job, initial_state(self.writer, job), self.now, "spec.suspend ended")

    def _refresh_jobs(self, old_build: str, built: BuiltFlow) -> None:
        """What does not count as content still reaches the jobs that stay.

        The names reach every job. Metadata, code that is kept, and the order of a linear flow reach those
        that have yet to run; who waits for a detour goes on waiting for it.
        """
        before = self.writer.build(old_build)
        known = {job.uuid: job.parents for job in before.jobs} if before is not None else {}
        for job in built.jobs:
            record = self.writer.job(f"{job.uuid}_{job.index}")
            if record is None or not record.current:
                continue
            record = msgspec.structs.replace(record, key=job.key, name=job.name)
            if record.state not in ACTIVE and record.state is not JobState.COMPLETED:
                detours = [p for p in record.parents if p not in known.get(job.uuid, record.parents)]
                record = msgspec.structs.replace(
                    record, code=built.code, files=job.files, parents=[*job.parents, *detours]
                )
                self.writer.put_payload(record.id, job.payload)
                self.touched.append(record.id)
            self.writer.put_job(record)

    def _mark_removed(self, name: str) -> None:
        flow = self.writer.flow(name)
        if flow is not None:
            self.writer.put_flow(msgspec.structs.replace(flow, removed=True))

    def _forget_flow(self, name: str) -> None:
        flow = self.writer.flow(name)
        if flow is None:
            return
        if flow.prune is Prune.ORPHAN:
            self.writer.put_flow(msgspec.structs.replace(flow, removed=True, orphaned=True))
            return
        for job in self.writer.jobs_of(name):
            forget_job(self.writer, job)
        self.writer.delete_flow(name)

    # jobs ---------------------------------------------------------------------------------------------

    def _job(self, action: Action) -> None:
        match action.type:
            case ActionType.SUBMIT if action.record is not None:
                self._run_again(action.record, action.reason)
            case ActionType.SUBMIT | ActionType.REPLACE:
                if action.record is not None:
                    self._leave(action.record, "replaced by newer content")
                self._submit(action)
            case ActionType.PATCH | ActionType.DEFER:
                self._patch(action)
            case ActionType.CANCEL | ActionType.FORGET:
                assert action.record is not None
                self._leave(action.record, action.reason)

    def _submit(self, action: Action) -> None:
        assert action.wanted is not None and action.flow is not None
        plan = action.wanted
        old = self.writer.job(f"{plan.job.uuid}_{plan.job.index}")
        if old is None:
            record = self._new_record(action.flow.name, plan)
        else:
            record = self._revived(old, plan, action.changes)
            self.revived.append(record.id)
        if plan.job.payload:
            self.writer.put_payload(record.id, plan.job.payload)
        self.writer.put_job(record)
        self.touched.append(record.id)
        note(
            self.writer, record, "Submitted", action.reason, self.now,
            revision=self.plan.revision, changes=list(action.changes),
        )  # fmt: skip
        if action.flow.spec.suspend and record.state is JobState.WAITING:
            move(self.writer, record, JobState.PAUSED, self.now, "spec.suspend")

    def _run_again(self, known: JobRecord, reason: str) -> None:
        job = self.writer.job(known.id)
        if job is not None and job.current and job.state in RERUN_BY_TOKEN:
            note(self.writer, job, "Submitted", reason, self.now, revision=self.plan.revision)
            self.again.append(job)

    def _new_record(self, flow: str, plan: JobPlan) -> JobRecord:
        job = plan.job
        return JobRecord(
            uuid=job.uuid, index=job.index, flow=flow, key=job.key, name=job.name, function=job.function,
            state=JobState.WAITING, config=plan.config, content=job.content, own=plan.own,
            parents=job.parents, on_missing=job.on_missing, sequence=self.writer.next_number("sequence"),
            created=self.now, updated=self.now, files=job.files, code=self.built[flow].code,
        )  # fmt: skip

    def _revived(self, old: JobRecord, plan: JobPlan, changes: Sequence[Change]) -> JobRecord:
        code = self.built[old.flow].code if old.generated_by is None else old.code
        return revived(self.writer, old, plan, changes, self.plan.revision, code, self.now)

    def _leave(self, known: JobRecord, reason: str) -> None:
        job = self.writer.job(known.id)
        if job is not None:
            leave(self.writer, job, reason, self.now, self.plan.revision)
            self.left.append(job)

    def _patch(self, action: Action) -> None:
        """Patch the job as it is now: one that has become active since planning waits with its patch."""
        assert action.wanted is not None and action.record is not None
        plan = action.wanted
        job = self.writer.job(action.record.id)
        if job is None:
            return
        event = {"revision": self.plan.revision, "changes": list(action.changes)}
        if job.editable:
            renamed = msgspec.structs.replace(job, key=plan.job.key, name=plan.job.name, own=plan.own)
            patched = apply_config(self.writer, renamed, plan.config, self.now, action.reason, **event)
            drop_unwanted_retry(self.writer, patched, self.now)
        elif job.config.same_values(plan.config):
            as_before = msgspec.structs.replace(job, config=plan.config, own=plan.own)
            self.writer.put_job(deferred(as_before, None))
            note(self.writer, job, "Deferred", action.reason, self.now, **event)
        else:
            left = msgspec.structs.replace(job, own=plan.own)
            self.writer.put_job(deferred(left, plan.config, action.changes, self.plan.revision))
            note(self.writer, job, "Deferred", _why_deferred(job), self.now, **event)

    def _restate(self, action: Action) -> None:
        """The values of a job stay, so this is no event and no patch."""
        assert action.wanted is not None and action.record is not None
        config = action.wanted.config
        job = self.writer.job(action.record.id)
        if job is None:
            return
        if job.wanted is not None and job.wanted.same_values(config):
            self.writer.put_job(msgspec.structs.replace(job, wanted=config, own=action.wanted.own))
        elif job.wanted is None and job.config.same_values(config):
            self.writer.put_job(msgspec.structs.replace(job, config=config, own=action.wanted.own))


def _follows_token(action: Action) -> bool:
    """Whether the plan has let the jobs run again for which a new ``spec.rerun`` asks."""
    return action.type is ActionType.SUBMIT or any(change.field == "rerun" for change in action.changes)


def _why_deferred(job: JobRecord) -> str:
    return f"{job.state} is not editable; applied as soon as it is"
