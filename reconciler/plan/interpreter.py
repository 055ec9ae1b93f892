"""What a plan makes of the records of flows and jobs. Pure.

The store (``jobs/``, inside a transaction) and the comparison of revisions (:func:`carried_out`) use the same
functions, so that both arrive at the same records. Each function takes a record as it is now, which may have
moved on since the plan was made, and returns the new one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msgspec.structs import replace

from reconciler.model.actions import Action, ActionType, JobPlan, Plan, Subject
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow
from reconciler.model.flows import BuiltJob, job_id
from reconciler.model.manifests import Prune
from reconciler.model.operations import RERUN_BY_TOKEN
from reconciler.model.records import (
    NO_RETRY,
    NOT_CANCELLED,
    Cancellation,
    Change,
    DeferredPatch,
    FlowRecord,
    JobRecord,
    RetryStatus,
)
from reconciler.model.run_config import RunConfig
from reconciler.model.states import ACTIVE, BROKEN, EDITABLE, FINISHED, KEPT, PENDING, JobState

# flows ----------------------------------------------------------------------------------------------------


def put_flow(action: Action, old: FlowRecord | None, revision: str, now: float) -> FlowRecord:
    """Return the record of a flow that is submitted or patched."""
    flow = action.flow
    assert flow is not None and action.build_key is not None
    # A new spec.rerun counts as followed only once the plan has included the jobs that it runs again.
    follows_token = action.type is ActionType.SUBMIT or any(one.field == "rerun" for one in action.changes)
    return FlowRecord(
        name=flow.name,
        identity=flow.identity,
        build_key=action.build_key,
        labels=flow.labels,
        layer=flow.layer,
        revision=revision,
        suspended=flow.spec.suspend,
        suspend_reason=flow.spec.suspend_reason,
        protected=flow.is_protected(old is not None and old.protected),
        prune=flow.prune,
        created=old.created if old is not None else now,
        stopped=old.stopped if old is not None and old.build_key == action.build_key else False,
        rerun=flow.rerun if follows_token or old is None else old.rerun,
        flowset=flow.flowset,
        item=flow.item,
    )


def removed_flow(flow: FlowRecord) -> FlowRecord:
    """Return the record of a flow whose manifest is gone and whose jobs are cancelled."""
    return replace(flow, removed=True)


def forgotten_flow(flow: FlowRecord) -> FlowRecord | None:
    """Return the record of a flow that is forgotten: an orphaned one keeps it, any other is deleted."""
    return replace(flow, removed=True, orphaned=True) if flow.prune is Prune.ORPHAN else None


def renamed_flow(flow: FlowRecord, name: str) -> FlowRecord:
    """Return the record of a flow under its new name."""
    return replace(flow, name=name)


def renamed_job(job: JobRecord, flow: str) -> JobRecord:
    """Return the record of a job whose flow has a new name."""
    return replace(job, flow=flow)


# jobs -----------------------------------------------------------------------------------------------------


def moved(job: JobRecord, state: JobState, now: float, **fields: Any) -> JobRecord:
    """Return a job in another state.

    A deferred patch is applied as soon as the new state is editable. That a person paused the job, and that
    it was to be retried, is forgotten once it moves on.
    """
    passing: dict[str, Any] = {"held": None, "retry": job.retry.not_due}
    new = replace(job, state=state, updated=now, **(passing | fields))
    if state is JobState.RUNNING and job.state is not JobState.RUNNING:
        new = replace(new, attempt=new.attempt_with(started=now))
    elif state in FINISHED and job.state in ACTIVE:
        new = replace(new, attempt=new.attempt_with(ended=now))
    if state in EDITABLE and new.deferred is not None:
        return configured(new, new.deferred.config, now)
    return new


def configured(job: JobRecord, config: RunConfig, now: float) -> JobRecord:
    """Return a job with a new run config; a deferred patch is superseded by it."""
    return replace(job, config=config, updated=now, deferred=None)


def new_job(flow: str, plan: JobPlan, code: Sequence[str], sequence: int, now: float) -> JobRecord:
    """Return the record of a job that is submitted; ``code`` are the code trees of its flow."""
    job = plan.job
    return JobRecord(
        uuid=job.uuid, index=job.index, flow=flow, key=job.key, name=job.name, function=job.function,
        state=JobState.WAITING, config=plan.config, content=job.content, own=plan.own, parents=job.parents,
        on_missing=job.on_missing, sequence=sequence, created=now, updated=now, files=job.files,
        code=list(code),
    )  # fmt: skip


def revived_job(
    old: JobRecord,
    plan: JobPlan,
    changes: Sequence[Change],
    *,
    revision: str,
    code: Sequence[str],
    generated: Collection[str],
    now: float,
) -> JobRecord:
    """Return a superseded job that is wanted again: a result is kept, anything else starts anew.

    An attempt that has not ended yet goes on, and a new run config waits for its end as for any active job.
    It may have been killed already: then the job runs again. ``changes`` are those of its run config,
    ``code`` the code trees that it runs with if it starts anew, ``generated`` the uuids of generated jobs.
    """
    detours = [uuid for uuid in old.parents if uuid not in plan.job.parents and uuid in generated]
    back = replace(
        old, current=True, cancellation=NOT_CANCELLED, own=plan.own, key=plan.job.key, name=plan.job.name,
        error=None, cause=None, updated=now, parents=[*plan.job.parents, *detours],
    )  # fmt: skip
    if old.state in ACTIVE:
        running = replace(back, cancellation=Cancellation(rerun=old.cancelling))
        if old.config.same_values(plan.config):
            return running
        return replace(running, deferred=_patch(plan.config, changes, revision))
    if old.state in KEPT:
        return replace(back, config=plan.config)
    return replace(
        back, state=JobState.WAITING, config=plan.config, code=list(code), files=plan.job.files,
        attempt=back.attempt.settled, retry=NO_RETRY,
    )  # fmt: skip


def begun_again(
    job: JobRecord,
    built: BuiltJob | None = None,
    code: Sequence[str] = (),
    generated: Collection[str] = (),
    *,
    as_retry: bool = False,
) -> JobRecord:
    """Return a job whose last attempt is over without anything that attempt left in its record.

    ``code`` are the code trees of its flow now. ``built`` is the job as its flow is built now: files and
    parents become those, and generated parents (``generated``) stay. Without it (a generated job) the record
    keeps its own. ``as_retry``: an automatic retry that was due later counts; otherwise the retries are
    counted anew. A retry by hand continues a failed attempt as an automatic one does.
    """
    if code:
        job = replace(job, code=list(code))
    if built is not None:
        more = [uuid for uuid in job.parents if uuid not in built.parents and uuid in generated]
        job = replace(job, files=built.files, parents=[*built.parents, *more])
    retry = NO_RETRY
    if as_retry and job.retry.at is not None:
        retry = job.retry.not_due
    elif as_retry and job.state in BROKEN and job.continuation is not None and job.attempt.run_dir:
        retry = RetryStatus(run_dirs=[*job.retry.run_dirs, job.attempt.run_dir])
    return replace(
        job, retry=retry,
        error=None, cause=None, attempt=job.attempt.settled, cancellation=NOT_CANCELLED,
    )  # fmt: skip


def patched_job(
    job: JobRecord, plan: JobPlan, changes: Sequence[Change], revision: str, now: float
) -> JobRecord:
    """Return a job with a patch: applied if it is editable now, otherwise deferred.

    A patch back to the values that an active job runs with takes its deferred patch away.
    """
    if job.editable:
        return configured(replace(job, key=plan.job.key, name=plan.job.name, own=plan.own), plan.config, now)
    if job.config.same_values(plan.config):
        return replace(job, config=plan.config, own=plan.own, deferred=None)
    return replace(job, own=plan.own, deferred=_patch(plan.config, changes, revision))


def _patch(config: RunConfig, changes: Sequence[Change], revision: str) -> DeferredPatch:
    return DeferredPatch(config=config, changes=list(changes), revision=revision)


def restated_job(job: JobRecord, plan: JobPlan) -> JobRecord:
    """Return a job whose values stay and come from elsewhere now; unchanged if its values have moved on."""
    config = plan.config
    if job.deferred is not None and job.deferred.config.same_values(config):
        return replace(job, deferred=replace(job.deferred, config=config), own=plan.own)
    if job.deferred is None and job.config.same_values(config):
        return replace(job, config=config, own=plan.own)
    return job


def refreshed_job(job: JobRecord, built: BuiltJob, code: Sequence[str], detours: Sequence[str]) -> JobRecord:
    """Return a job that stays, after a new build of its flow: what does not count as content reaches it.

    Names reach every job. Code, files and parents reach a job that has yet to run; ``detours`` are parents
    that a generated job added at run time, and stay.
    """
    job = replace(job, key=built.key, name=built.name)
    if not takes_new_build(job):
        return job
    # An ended job keeps the code that it ran with, until it runs again.
    trees = list(code) if job.state in PENDING else job.code
    return replace(job, code=trees, files=built.files, parents=[*built.parents, *detours])


def takes_new_build(job: JobRecord) -> bool:
    """Return whether a job has yet to run, so that code and metadata of a new build reach it."""
    return job.state not in ACTIVE and job.state is not JobState.COMPLETED


def suspended_state(job: JobRecord, suspended: bool) -> JobState | None:
    """Return the state of a job after ``spec.suspend`` of its flow changed; None if it keeps its own.

    The end of it does not resume a job that a person paused. WAITING stands for READY, too.
    """
    if suspended:
        return JobState.PAUSED if job.state in (JobState.READY, JobState.WAITING) else None
    return JobState.WAITING if job.state is JobState.PAUSED and job.held is None else None


def superseded_job(job: JobRecord, reason: str, now: float) -> JobRecord:
    """Return a job that is no longer current: it never starts, or its attempt is cancelled for ``reason``."""
    cancellation = Cancellation(reason=job.cancellation.reason) if job.cancelling else NOT_CANCELLED
    left = replace(job, current=False, deferred=None, retry=job.retry.not_due, cancellation=cancellation)
    if job.state in PENDING:
        return moved(left, JobState.USER_STOPPED, now)
    return replace(left, cancellation=Cancellation(reason=reason)) if job.state in ACTIVE else left


def why_superseded(action: Action) -> str:
    """Return the reason that the record of a job gets when it is cancelled."""
    return "replaced by newer content" if action.type is ActionType.REPLACE else str(action.reason)


# the whole plan -------------------------------------------------------------------------------------------


def carried_out(plan: Plan, actual: ActualState, now: float = 0.0) -> ActualState:
    """Return the state right after a plan; new jobs are WAITING, also those whose parents are ready."""
    state = _State(plan, actual, now)
    for old, new in plan.renames.items():
        if old in state.flows:
            state.flows[new] = renamed_flow(state.flows.pop(old), new)
            state.jobs[new] = {key: renamed_job(job, new) for key, job in state.jobs.pop(old, {}).items()}
    for action in plan.effective:
        if action.build:
            continue
        if action.subject is Subject.FLOW:
            state.act_on_flow(action)
        else:
            state.act_on_job(action)
    for action in plan.restated:
        job = state.stored(action.record)
        if job is not None and action.wanted is not None:
            state.put(restated_job(job, action.wanted))
    for record in state.again:
        state.begin_again(record)
    jobs = {name: list(found.values()) for name, found in state.jobs.items()}
    return replace(actual, flows=state.flows, jobs=jobs)


class _State:
    """Flows and jobs while the actions of a plan change them one after another."""

    def __init__(self, plan: Plan, actual: ActualState, now: float) -> None:
        self.revision = plan.revision
        self.built = actual.built
        self.now = now
        self.flows = dict(actual.flows)
        self.jobs = {name: {job.id: job for job in jobs} for name, jobs in actual.jobs.items()}
        every = [job for jobs in actual.jobs.values() for job in jobs]
        self.generated = {job.uuid for job in every if job.generated_by is not None}
        self.sequence = max((job.sequence for job in every), default=0)
        self.again: list[JobRecord] = []

    def stored(self, known: JobRecord | None) -> JobRecord | None:
        """Return the record of a job as it is now."""
        return self.jobs.get(known.flow, {}).get(known.id) if known is not None else None

    def put(self, job: JobRecord) -> None:
        self.jobs.setdefault(job.flow, {})[job.id] = job

    def act_on_flow(self, action: Action) -> None:
        name = action.key
        old = self.flows.get(name)
        match action.type:
            case ActionType.SUBMIT | ActionType.PATCH:
                new = self.flows[name] = put_flow(action, old, self.revision, self.now)
                if old is not None:
                    self._follow(old, new)
            case ActionType.CANCEL if old is not None:
                self.flows[name] = removed_flow(old)
            case ActionType.FORGET if old is not None:
                kept = forgotten_flow(old)
                if kept is not None:
                    self.flows[name] = kept
                else:
                    del self.flows[name]
                    self.jobs.pop(name, None)

    def _follow(self, old: FlowRecord, new: FlowRecord) -> None:
        """Bring what changed in a flow to its jobs."""
        if old.suspended != new.suspended:
            for job in list(self.jobs.get(new.name, {}).values()):
                state = suspended_state(job, new.suspended)
                if state is not None:
                    self.put(moved(job, state, self.now))
        if old.build_key != new.build_key:
            built = self.built[new.name]
            for one in built.jobs:
                known = self.jobs.get(new.name, {}).get(job_id(one.uuid, one.index))
                if known is not None and known.current:
                    detours = [p for p in known.parents if p in self.generated and p not in one.parents]
                    self.put(refreshed_job(known, one, built.trees, detours))

    def act_on_job(self, action: Action) -> None:
        job, plan = self.stored(action.record), action.wanted
        match action.type:
            case ActionType.SUBMIT if action.record is not None:
                self.again.append(action.record)
            case ActionType.PATCH | ActionType.DEFER:
                if job is not None and plan is not None:
                    self.put(patched_job(job, plan, action.changes, self.revision, self.now))
            case _:
                if job is not None:
                    self.put(superseded_job(job, why_superseded(action), self.now))
                if plan is not None and action.flow is not None:
                    self._submit(action, plan, action.flow)

    def _submit(self, action: Action, plan: JobPlan, flow: DesiredFlow) -> None:
        old = self.jobs.get(flow.name, {}).get(job_id(plan.job.uuid, plan.job.index))
        code = self.built[flow.name].trees
        if old is None:
            self.sequence += 1
            job = new_job(flow.name, plan, code, self.sequence, self.now)
        else:
            job = revived_job(
                old, plan, action.changes, revision=self.revision, now=self.now, generated=self.generated,
                code=code if old.generated_by is None else old.code,
            )  # fmt: skip
        if flow.spec.suspend and job.state is JobState.WAITING:
            job = moved(job, JobState.PAUSED, self.now)
        self.put(job)

    def begin_again(self, known: JobRecord) -> None:
        """Run a job again that failed or was cancelled, since ``spec.rerun`` asks for it."""
        job, flow = self.stored(known), self.flows.get(known.flow)
        if job is None or flow is None or not job.current or job.state not in RERUN_BY_TOKEN:
            return
        built = self.built.get(known.flow)
        found = (one for one in built.jobs if job_id(one.uuid, one.index) == job.id) if built else ()
        job = begun_again(job, next(iter(found), None), built.trees if built else (), self.generated)
        self.put(moved(job, JobState.PAUSED if flow.suspended else JobState.WAITING, self.now))
