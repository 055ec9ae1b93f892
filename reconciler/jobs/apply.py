"""Applies a plan to the store in one transaction.

Every action reads the record again, so that nothing that has changed since planning is overwritten: a patch
whose job has become active meanwhile is deferred.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.diagnostics import Diagnostic
from reconciler.errors import ReconcilerError
from reconciler.jobs.dependencies import (
    drop_superseded_parents,
    initial_state,
    recheck,
    release_dependants,
    release_tolerant,
    stop_waiting_for,
)
from reconciler.jobs.outputs import forget_job
from reconciler.jobs.restarts import drop_unwanted_retry, generated_among, run_again
from reconciler.jobs.transitions import leave, move, note, note_flow
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.desired import DesiredState
from reconciler.model.flows import BuiltFlow, job_id
from reconciler.model.operations import RERUN_BY_TOKEN
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.interpreter import (
    forgotten_flow,
    new_job,
    patched_job,
    put_flow,
    refreshed_job,
    removed_flow,
    renamed_flow,
    renamed_job,
    restated_job,
    revived_job,
    suspended_state,
    takes_new_build,
    why_superseded,
)
from reconciler.plan.planner import report_bug

T = TypeVar("T")


def apply_plan(
    store: Store, plan: Plan, desired: DesiredState, apply: Callable[[Writer, Plan], T]
) -> tuple[Plan, T]:
    """Call ``apply`` in a transaction; return the plan that was applied, and the result.

    An unexpected error of one flow holds back only this flow, whose records stay as they are. To find it, the
    part of each flow is tried in a transaction that is undone.
    """
    try:
        return plan, store.write(lambda writer: apply(writer, plan))
    except ReconcilerError:
        raise
    except Exception as error:
        problems: dict[str, Diagnostic] = {}
        for name in sorted({_flow_of(action) for action in (*plan.effective, *plan.restated)}):
            found = _error_of(store, _only(plan, name), apply)
            if found is not None:
                flow = desired.flows.get(name)
                manifest = flow.manifest if flow is not None else None
                problems[name] = report_bug(found, f"flow '{name}' cannot be applied", manifest)
        if not problems:
            raise error
        rest = _held_back(plan, problems)
        return rest, store.write(lambda writer: apply(writer, rest))


class _UndoneError(Exception):
    """Ends a transaction that must leave nothing behind."""


def _error_of(store: Store, plan: Plan, apply: Callable[[Writer, Plan], T]) -> Exception | None:
    """Return the unexpected error of applying a plan; the transaction is undone."""

    def try_out(writer: Writer) -> None:
        apply(writer, plan)
        raise _UndoneError

    try:
        store.write(try_out)
    except _UndoneError:
        pass
    except ReconcilerError:
        raise
    except Exception as error:
        return error
    return None


def _flow_of(action: Action) -> str:
    return action.key.partition("/")[0]


def _only(plan: Plan, flow: str) -> Plan:
    """Return the part of a plan that is about one flow."""
    return replace(
        plan,
        actions=tuple(action for action in plan.actions if _flow_of(action) == flow),
        restated=tuple(action for action in plan.restated if _flow_of(action) == flow),
        renames={old: new for old, new in plan.renames.items() if new == flow},
    )


def _held_back(plan: Plan, problems: Mapping[str, Diagnostic]) -> Plan:
    """Return a plan that does nothing to some flows, each for the reason in its diagnostic."""
    held = tuple(
        Action(
            type=ActionType.KEEP, subject=Subject.FLOW, key=name,
            reason=_why_held_back(ReasonCode.NOT_APPLIED, problem),
        )
        for name, problem in problems.items()
    )  # fmt: skip
    return replace(
        plan,
        actions=(*(action for action in plan.actions if _flow_of(action) not in problems), *held),
        restated=tuple(action for action in plan.restated if _flow_of(action) not in problems),
        renames={old: new for old, new in plan.renames.items() if new not in problems},
        diagnostics=(*plan.diagnostics, *problems.values()),
    )


def _why_held_back(code: ReasonCode, problem: Diagnostic) -> Reason:
    """Return the reason of a flow with a problem: the text with its place, without the name of the flow."""
    text = re.sub(r"^flow '[^']*' cannot be [a-z]+: ", "", problem.message)
    return Reason(code, {"why": f"{text} ({problem.location})" if problem.location is not None else text})


def without_unbuilt(plan: Plan, failures: Mapping[str, Diagnostic], built: Collection[str] = ()) -> Plan:
    """Make flows that could not be built wait, so that the others proceed.

    What their manifests show of their jobs is left out. Flows in ``built`` are built although the plan may
    show only their manifests.
    """
    other = Reason(ReasonCode.WAITS, {"why": "a flow that it refers to cannot be built"})
    actions = []
    for action in plan.actions:
        if not action.build or _flow_of(action) in built:
            actions.append(action)
        elif action.subject is Subject.FLOW:
            failed = failures.get(action.key)
            reason = _why_held_back(ReasonCode.BUILD_FAILED, failed) if failed is not None else other
            actions.append(Action(type=ActionType.KEEP, subject=Subject.FLOW, key=action.key, reason=reason))
    diagnostics = (*plan.diagnostics, *failures.values())
    return replace(plan, actions=tuple(actions), diagnostics=diagnostics)


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
        self.again: dict[str, list[str]] = {}
        self.revived: list[str] = []
        self.left: list[JobRecord] = []

    def carry_out(self) -> None:
        """Carry out every action, then decide which of the new jobs may run."""
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
        for why, ids in self.again.items():
            run_again(self.writer, self._records(ids), why, self.now)
        stop_waiting_for(self.writer, self.left, self.now)
        drop_superseded_parents(self.writer, self._records(self.revived), self.now)
        recheck(self.writer, self._records(self.touched), self.now)
        for job in self._records(self.revived):
            if job.state is JobState.COMPLETED:
                release_dependants(self.writer, job.uuid, self.now)
        # A superseded job that still runs may yet have a result; the others never will.
        left = self._records([job.id for job in self.left])
        release_tolerant(self.writer, (job.uuid for job in left if job.state not in ACTIVE), self.now)

    def _records(self, ids: Sequence[str]) -> list[JobRecord]:
        return [job for job_id in ids if (job := self.writer.job(job_id)) is not None]

    # flows --------------------------------------------------------------------------------------------

    def _flow(self, action: Action) -> None:
        note_flow(
            self.writer, action.key, action.type.done, str(action.reason), self.now,
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
        """Give the records of a flow its new name."""
        record = self.writer.flow(old)
        if record is None:
            return
        self.writer.delete_flow(old)
        self.writer.put_flow(renamed_flow(record, new))
        note_flow(self.writer, new, "Renamed", f"was {old}", self.now, revision=self.plan.revision)
        for job in self.writer.jobs_of(old):
            self.writer.put_job(renamed_job(job, new))

    def _put_flow(self, action: Action) -> None:
        old = self.writer.flow(action.key)
        new = put_flow(action, old, self.plan.revision, self.now)
        self.writer.put_flow(new)
        if old is not None and old.suspended != new.suspended:
            self._suspend(new)
        if old is not None and old.build_key != new.build_key:
            self._refresh_jobs(old.build_key, self.built[new.name])

    def _suspend(self, flow: FlowRecord) -> None:
        why = "spec.suspend" if flow.suspended else "spec.suspend ended"
        for job in self.writer.jobs_of(flow.name):
            state = suspended_state(job, flow.suspended)
            if state is not None:
                state = initial_state(self.writer, job) if state is JobState.WAITING else state
                move(self.writer, job, state, self.now, why)

    def _refresh_jobs(self, old_build: str, built: BuiltFlow) -> None:
        """Bring a new build to the jobs that stay. A job that waits for a detour continues to wait for it."""
        before = self.writer.build(old_build)
        known = {job.uuid: job.parents for job in before.jobs} if before is not None else {}
        for job in built.jobs:
            record = self.writer.job(job_id(job.uuid, job.index))
            if record is None or not record.current:
                continue
            detours = [uuid for uuid in record.parents if uuid not in known.get(job.uuid, record.parents)]
            self.writer.put_job(refreshed_job(record, job, built.trees, detours))
            if takes_new_build(record):
                self.writer.put_payload(record.id, job.payload)
                self.touched.append(record.id)

    def _mark_removed(self, name: str) -> None:
        flow = self.writer.flow(name)
        if flow is not None:
            self.writer.put_flow(removed_flow(flow))

    def _forget_flow(self, name: str) -> None:
        flow = self.writer.flow(name)
        if flow is None:
            return
        kept = forgotten_flow(flow)
        if kept is not None:
            self.writer.put_flow(kept)
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
                self._leave(action)
                self._submit(action)
            case ActionType.PATCH | ActionType.DEFER:
                self._patch(action)
            case ActionType.CANCEL | ActionType.FORGET:
                self._leave(action)

    def _submit(self, action: Action) -> None:
        assert action.wanted is not None and action.flow is not None
        plan, flow = action.wanted, action.flow
        old = self.writer.job(job_id(plan.job.uuid, plan.job.index))
        code = self.built[flow.name].trees
        if old is None:
            number = self.writer.next_number("sequence")
            record = new_job(flow.name, plan, code, number, self.now)
        else:
            record = revived_job(
                old, plan, action.changes, revision=self.plan.revision, now=self.now,
                code=code if old.generated_by is None else old.code,
                generated=generated_among(self.writer, old.parents),
            )  # fmt: skip
            self.revived.append(record.id)
        if plan.job.payload:
            self.writer.put_payload(record.id, plan.job.payload)
        self.writer.put_job(record)
        self.touched.append(record.id)
        note(
            self.writer, record, "Submitted", str(action.reason), self.now,
            revision=self.plan.revision, changes=list(action.changes),
        )  # fmt: skip
        if flow.spec.suspend and record.state is JobState.WAITING:
            move(self.writer, record, JobState.PAUSED, self.now, "spec.suspend")

    def _run_again(self, known: JobRecord, reason: Reason) -> None:
        job = self.writer.job(known.id)
        if job is not None and job.current and job.state in RERUN_BY_TOKEN:
            note(self.writer, job, "Submitted", str(reason), self.now, revision=self.plan.revision)
            why = "new code" if reason.code is ReasonCode.RERUN_NEW_CODE else "spec.rerun"
            self.again.setdefault(why, []).append(job.id)

    def _leave(self, action: Action) -> None:
        job = self.writer.job(action.record.id) if action.record is not None else None
        if job is not None:
            leave(self.writer, job, why_superseded(action), self.now, self.plan.revision)
            self.left.append(job)

    def _patch(self, action: Action) -> None:
        """Patch the job as it is now: if it has become active since planning, the patch is deferred."""
        assert action.wanted is not None and action.record is not None
        plan = action.wanted
        job = self.writer.job(action.record.id)
        if job is None:
            return
        patched = patched_job(job, plan, action.changes, self.plan.revision, self.now)
        if patched.wanted is not None:
            kind, message = "Deferred", str(Reason(ReasonCode.NOT_EDITABLE, {"state": job.state}))
        else:
            kind, message = "Patched" if job.editable else "Deferred", str(action.reason)
        note(
            self.writer, patched, kind, message, self.now,
            revision=self.plan.revision, changes=list(action.changes),
        )  # fmt: skip
        self.writer.put_job(patched)
        if job.editable:
            drop_unwanted_retry(self.writer, patched, self.now)

    def _restate(self, action: Action) -> None:
        """Record where the values of a job come from now; this is neither an event nor a patch."""
        assert action.wanted is not None and action.record is not None
        job = self.writer.job(action.record.id)
        if job is not None:
            self.writer.put_job(restated_job(job, action.wanted))
