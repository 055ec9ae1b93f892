"""The actual state that a plan leads to, once all of it is done and nothing is deferred any more. Pure.

For comparing revisions only: the actor carries a plan out on the store by itself.
"""

from __future__ import annotations

import msgspec

from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.manifests import Prune
from reconciler.model.records import ActualState, FlowRecord, JobRecord
from reconciler.model.states import KEPT, PENDING, JobState


def as_applied(plan: Plan, actual: ActualState) -> ActualState:
    """Return the state after a plan: jobs that it submits are READY, every other one keeps its state."""
    result = _Result(actual)
    for action in plan.effective:
        if action.subject is Subject.FLOW:
            result.flow(action)
        else:
            result.job(action)
    for action in plan.restated:
        result.patch(action)
    return result.state()


class _Result:
    """Flows and jobs while actions reach them; the records themselves are never changed."""

    def __init__(self, actual: ActualState) -> None:
        self.actual = actual
        self.flows = dict(actual.flows)
        self.jobs = {name: {job.id: job for job in found} for name, found in actual.jobs.items()}

    def state(self) -> ActualState:
        """Return the state; a patch that was deferred has reached its job."""
        jobs = {name: [_settled(job) for job in found.values()] for name, found in self.jobs.items()}
        return msgspec.structs.replace(self.actual, flows=self.flows, jobs=jobs)

    def flow(self, action: Action) -> None:
        old = self.flows.get(action.key)
        if action.type in (ActionType.SUBMIT, ActionType.PATCH):
            self.flows[action.key] = _flow_record(action, old)
        elif old is not None and action.type is ActionType.CANCEL:
            self.flows[action.key] = msgspec.structs.replace(old, removed=True)
        elif old is not None and old.prune is Prune.ORPHAN:
            self.flows[action.key] = msgspec.structs.replace(old, removed=True, orphaned=True)
        elif old is not None:
            del self.flows[action.key]
            self.jobs.pop(action.key, None)

    def job(self, action: Action) -> None:
        if action.type in (ActionType.PATCH, ActionType.DEFER):
            self.patch(action)
            return
        jobs = self._jobs_of(action)
        if action.type is ActionType.SUBMIT and action.record is not None:  # it runs again
            self.patch(action)
            jobs[action.record.id] = msgspec.structs.replace(
                jobs[action.record.id], state=JobState.READY, retry_at=None
            )
            return
        if action.record is not None:
            jobs[action.record.id] = _left(action.record)
        if action.type in (ActionType.SUBMIT, ActionType.REPLACE):
            fresh = _new_record(action, len(jobs))
            known = jobs.get(fresh.id)
            if known is not None and known.generated_by is not None:
                fresh = msgspec.structs.replace(
                    known, current=True, key=fresh.key, config=fresh.config, state=JobState.READY
                )
            state = known.state if known and known.state in KEPT else JobState.READY
            jobs[fresh.id] = msgspec.structs.replace(fresh, state=state)

    def patch(self, action: Action) -> None:
        record, wanted = action.record, action.wanted
        assert record is not None and wanted is not None
        self._jobs_of(action)[record.id] = msgspec.structs.replace(
            record, config=wanted.config, own=wanted.own, key=wanted.job.key, name=wanted.job.name,
            wanted=None,
        )  # fmt: skip

    def _jobs_of(self, action: Action) -> dict[str, JobRecord]:
        return self.jobs.setdefault(action.key.partition("/")[0], {})


def _settled(job: JobRecord) -> JobRecord:
    return job if job.wanted is None else msgspec.structs.replace(job, config=job.wanted, wanted=None)


def _left(job: JobRecord) -> JobRecord:
    """History: what had not started never will, what runs is being cancelled."""
    state = JobState.USER_STOPPED if job.state in PENDING else job.state
    return msgspec.structs.replace(job, current=False, wanted=None, state=state, retry_at=None)


def _flow_record(action: Action, old: FlowRecord | None) -> FlowRecord:
    flow = action.flow
    assert flow is not None and action.build_key is not None
    return FlowRecord(
        name=flow.name,
        identity=flow.identity,
        build_key=action.build_key,
        labels=flow.labels,
        layer=flow.layer,
        suspended=flow.spec.suspend,
        suspend_reason=flow.spec.suspend_reason,
        prune=flow.prune,
        protected=flow.is_protected(old is not None and old.protected),
        rerun=flow.rerun,
    )


def _new_record(action: Action, sequence: int) -> JobRecord:
    assert action.wanted is not None
    job = action.wanted.job
    return JobRecord(
        uuid=job.uuid, index=job.index, flow=action.key.partition("/")[0], key=job.key, name=job.name,
        function=job.function, state=JobState.READY, config=action.wanted.config, content=job.content,
        own=action.wanted.own, parents=job.parents, on_missing=job.on_missing, sequence=sequence,
        files=job.files,
    )  # fmt: skip
