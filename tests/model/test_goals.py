"""What can be waited for, and what can never come by itself."""

from __future__ import annotations

import msgspec
import pytest

from reconciler.model.goals import (
    Doom,
    Goal,
    GoalKind,
    GoalVerdict,
    Prospect,
    flow_verdict,
    job_verdict,
    waits_in_vain,
    worker_verdict,
)
from reconciler.model.health import flow_status
from reconciler.model.records import (
    DeferredPatch,
    FlowRecord,
    JobAttempt,
    JobRecord,
    RetryStatus,
    WorkerStatus,
)
from reconciler.model.run_config import RunConfig
from reconciler.model.states import JobState, Sync
from reconciler.model.summaries import summary_of

HOLDS, PENDING, NEVER = Prospect.HOLDS, Prospect.PENDING, Prospect.NEVER
S = JobState


def job(state: JobState, key: str = "j", *, stuck: str | None = None, current: bool = True) -> JobRecord:
    return JobRecord(
        uuid=key, index=1, flow="f", key=key, name=key, function="m.f", state=state, config=RunConfig(),
        content=key, attempt=JobAttempt(stuck=stuck), current=current,
    )  # fmt: skip


def hopeful(job: JobRecord) -> str | None:
    return None


def doomed(job: JobRecord) -> str | None:
    return "f/j needs f/bad, which is FAILED"


@pytest.mark.parametrize("state", JobState)
def test_a_job_completes_unless_it_ended_otherwise_or_is_paused(state: JobState) -> None:
    found = job_verdict(Goal(GoalKind.COMPLETED), job(state), hopeful)
    lost = {S.FAILED, S.REMOTE_ERROR, S.STOPPED, S.USER_STOPPED, S.PAUSED}
    expected = HOLDS if state is S.COMPLETED else NEVER if state in lost else PENDING
    assert (found.target, found.prospect) == ("job/f/j", expected)


def test_a_state_that_is_over_never_comes_back() -> None:
    goal = Goal(GoalKind.STATE, states=frozenset({S.RUNNING, S.FAILED}))
    found = {state: job_verdict(goal, job(state), hopeful).prospect for state in JobState}
    assert found[S.RUNNING] is found[S.FAILED] is HOLDS
    assert found[S.COMPLETED] is NEVER
    assert found[S.WAITING] is found[S.DOWNLOADED] is PENDING


def test_a_job_that_is_stuck_or_waits_in_vain() -> None:
    goal = Goal(GoalKind.COMPLETED)
    stuck = job_verdict(goal, job(S.SUBMITTED, stuck="no such partition"), hopeful)
    assert (stuck.prospect, stuck.message) == (NEVER, "SUBMITTED: stuck: no such partition")
    vain = job_verdict(goal, job(S.WAITING), doomed)
    assert (vain.prospect, vain.message) == (NEVER, "WAITING; f/j needs f/bad, which is FAILED")


def test_idle_is_what_does_not_move() -> None:
    found = {state for state in JobState if _of(Goal(GoalKind.IDLE), job(state)).prospect is PENDING}
    assert found == {
        S.READY, S.CHECKED_OUT, S.UPLOADED, S.SUBMITTED, S.RUNNING, S.RUN_FINISHED, S.DOWNLOADED
    }  # fmt: skip


def test_a_deleted_job_is_history() -> None:
    goal = Goal(GoalKind.DELETED)
    assert _of(goal, job(S.COMPLETED)).prospect is PENDING
    assert _of(goal, job(S.COMPLETED, current=False)).prospect is HOLDS


def _of(goal: Goal, one: JobRecord) -> GoalVerdict:
    return job_verdict(goal, one, hopeful)


def flow(
    goal: Goal, *jobs: JobRecord, sync: tuple[Sync, str] = (Sync.SYNCED, ""), doom: Doom = hopeful
) -> GoalVerdict:
    summary = summary_of(jobs)
    status = flow_status(FlowRecord(name="f", identity="", build_key=""), summary)
    return flow_verdict(goal, "f", status, sync, summary, lambda: jobs, doom)


def test_a_flow_is_healthy_or_will_be_or_never() -> None:
    goal = Goal(GoalKind.HEALTHY)
    assert flow(goal, job(S.COMPLETED)).prospect is HOLDS
    assert flow(goal, job(S.RUNNING)).prospect is PENDING
    assert flow(goal, job(S.FAILED, "a"), job(S.RUNNING, "b")).prospect is NEVER, "at once"
    assert flow(goal, job(S.PAUSED)).prospect is NEVER
    assert flow(goal, job(S.WAITING)).prospect is PENDING


def test_a_flow_is_synced_once_its_deferred_changes_are_applied() -> None:
    goal = Goal(GoalKind.SYNCED)
    running = job(S.RUNNING)
    assert flow(goal, running).prospect is HOLDS
    running.deferred = DeferredPatch(config=RunConfig())
    late = flow(goal, running, sync=(Sync.OUT_OF_SYNC, "1 deferred change"))
    assert late == GoalVerdict("flow/f", PENDING, "OutOfSync: 1 deferred change")
    assert flow(goal, job(S.COMPLETED), sync=(Sync.OUT_OF_SYNC, "it is invalid")).prospect is NEVER


def test_all_jobs_of_a_flow() -> None:
    goal = Goal(GoalKind.STATE, states=frozenset({S.RUNNING}))
    assert flow(goal, job(S.RUNNING, "a"), job(S.RUNNING, "b")) == GoalVerdict(
        "flow/f", HOLDS, "2 of 2 jobs state=RUNNING"
    )
    part = flow(goal, job(S.RUNNING, "a"), job(S.READY, "b"))
    assert part == GoalVerdict("flow/f", PENDING, "1 of 2 jobs state=RUNNING; f/b READY")
    assert flow(goal, job(S.READY, "a"), job(S.COMPLETED, "b")).prospect is NEVER


def test_a_worker_is_tried_again() -> None:
    assert worker_verdict("w", None).prospect is PENDING
    assert worker_verdict("w", WorkerStatus(reachable=True)).prospect is HOLDS
    down = worker_verdict("w", WorkerStatus(reachable=False, reason="no answer"))
    assert down == GoalVerdict("worker/w", PENDING, "Unreachable: no answer")


def test_a_job_that_is_tried_again_may_still_reach_everything() -> None:
    again = msgspec.structs.replace(job(S.FAILED), retry=RetryStatus(at=10.0))
    child = job(S.WAITING, "child")
    assert _of(Goal(GoalKind.IDLE), again).prospect is PENDING
    assert _of(Goal(GoalKind.COMPLETED), again).prospect is PENDING
    assert not waits_in_vain(again, "error")
    assert waits_in_vain(job(S.FAILED), "error")
    assert flow(Goal(GoalKind.HEALTHY), again, child, doom=doomed).prospect is PENDING
