"""The health of a flow, from the states of its jobs."""

from __future__ import annotations

import pytest

from reconciler.model.health import FlowStatus
from reconciler.model.health import flow_status as status_of_summary
from reconciler.model.records import FlowRecord, JobAttempt, JobRecord, RetryStatus
from reconciler.model.run_config import RunConfig
from reconciler.model.states import ACTIVE, PENDING, Health, JobState
from reconciler.model.summaries import summary_of

FLOW = FlowRecord(name="f", identity="", build_key="")
S = JobState


def flow_status(flow: FlowRecord, jobs: list[JobRecord]) -> FlowStatus:
    return status_of_summary(flow, summary_of(jobs))


def job(
    key: str, state: JobState, *, current: bool = True, error: str | None = None, stuck: str | None = None
) -> JobRecord:
    return JobRecord(
        uuid=key,
        index=1,
        flow="f",
        key=key,
        name=key,
        function="m.f",
        state=state,
        config=RunConfig(),
        content=key,
        current=current,
        error=error,
        attempt=JobAttempt(stuck=stuck),
    )


def jobs(*states: JobState) -> list[JobRecord]:
    return [job(f"j{number}", state) for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "health", "reason"),
    [
        ([], Health.HEALTHY, "0 of 0 jobs completed"),
        ([S.COMPLETED], Health.HEALTHY, "1 of 1 job completed"),
        ([S.COMPLETED, S.STOPPED], Health.HEALTHY, "1 of 2 jobs completed"),
        ([S.COMPLETED, S.READY, S.WAITING], Health.PROGRESSING, "1 of 3 jobs completed"),
        ([S.COMPLETED, S.USER_STOPPED], Health.SUSPENDED, "1 job cancelled"),
        ([S.PAUSED, S.COMPLETED], Health.SUSPENDED, "1 job paused"),
        ([S.PAUSED, S.RUNNING], Health.PROGRESSING, "0 of 2 jobs completed"),
        ([S.FAILED, S.RUNNING], Health.DEGRADED, "j0 FAILED"),
        ([S.REMOTE_ERROR, S.WAITING, S.WAITING], Health.DEGRADED, "j0 REMOTE_ERROR; 2 jobs waiting"),
        ([S.FAILED, S.FAILED, S.FAILED], Health.DEGRADED, "j0 FAILED (and 2 more)"),
    ],
)
def test_health(states: list[JobState], health: Health, reason: str) -> None:
    status = flow_status(FLOW, jobs(*states))
    assert (status.health, status.reason) == (health, reason)


@pytest.mark.parametrize(
    ("states", "fix"),
    [
        ([S.COMPLETED, S.RUNNING], ""),
        (
            [S.FAILED, S.WAITING],
            "once the cause is gone: `reconcile retry f state:FAILED,REMOTE_ERROR`; "
            "or commit a change of the job",
        ),
        ([S.COMPLETED, S.USER_STOPPED], "`reconcile rerun f state:USER_STOPPED`"),
        (
            [S.USER_STOPPED, S.PAUSED, S.WAITING],
            "`reconcile rerun f state:USER_STOPPED`, `reconcile resume f`",
        ),
    ],
)
def test_what_lets_it_go_on_is_said(states: list[JobState], fix: str) -> None:
    assert flow_status(FLOW, jobs(*states)).fix == fix


@pytest.mark.parametrize("state", sorted(ACTIVE | PENDING - {S.PAUSED}))
def test_a_flow_with_a_job_on_its_way_progresses(state: JobState) -> None:
    assert flow_status(FLOW, jobs(S.COMPLETED, state)).health is Health.PROGRESSING


def test_a_suspended_flow_says_so_until_it_has_ended() -> None:
    suspended = FlowRecord(name="f", identity="", build_key="", suspended=True)
    assert flow_status(suspended, jobs(S.PAUSED, S.RUNNING)).health is Health.SUSPENDED
    assert flow_status(suspended, jobs(S.COMPLETED)).health is Health.HEALTHY
    assert flow_status(suspended, jobs(S.FAILED, S.PAUSED)).health is Health.DEGRADED


def test_history_does_not_count() -> None:
    status = flow_status(FLOW, [job("old", S.FAILED, current=False), job("new", S.COMPLETED)])
    assert (status.health, status.counts) == (Health.HEALTHY, {"COMPLETED": 1})


def test_the_last_line_of_the_error_is_the_reason() -> None:
    error = "Traceback (most recent call last):\n  ...\nValueError: too big\n"
    status = flow_status(FLOW, [job("a", S.FAILED, error=error)])
    assert status.reason == "a FAILED: ValueError: too big"


def test_a_job_that_can_never_start_degrades_its_flow() -> None:
    never = "its time limit is longer than its partition allows"
    one = flow_status(FLOW, [job("a", S.SUBMITTED, stuck=never), job("b", S.RUNNING)])
    assert (one.health, one.reason) == (Health.DEGRADED, f"a is stuck: {never}")
    two = flow_status(FLOW, [job("a", S.SUBMITTED, stuck=never), job("b", S.SUBMITTED, stuck=never)])
    assert two.reason == f"a is stuck: {never} (and 1 more)"
    suspended = FlowRecord(name="f", identity="", build_key="", suspended=True)
    assert flow_status(suspended, [job("a", S.SUBMITTED, stuck=never)]).health is Health.DEGRADED


def test_a_failed_job_is_told_before_a_stuck_one() -> None:
    status = flow_status(FLOW, [job("a", S.SUBMITTED, stuck="never"), job("b", S.FAILED, error="no")])
    assert status.reason == "b FAILED: no"


def test_what_was_stuck_once_does_not_count_any_more() -> None:
    old = [job("a", S.COMPLETED, stuck="never"), job("b", S.SUBMITTED, stuck="never", current=False)]
    assert flow_status(FLOW, old).health is Health.HEALTHY


def test_counts_are_by_state() -> None:
    assert flow_status(FLOW, jobs(S.READY, S.COMPLETED, S.READY)).counts == {"COMPLETED": 1, "READY": 2}


def retried(state: JobState = S.FAILED) -> JobRecord:
    one = job("a", state, error="killed")
    one.retry = RetryStatus(at=100.0, causes=["walltime"])
    return one


def test_a_job_that_waits_for_its_retry_is_on_its_way() -> None:
    for state in (S.FAILED, S.REMOTE_ERROR):
        status = flow_status(FLOW, [retried(state), job("b", S.WAITING), job("c", S.COMPLETED)])
        assert (status.health, status.reason) == (
            Health.PROGRESSING,
            "1 of 3 jobs completed; 1 job to be retried",
        )
    assert flow_status(FLOW, [retried(), job("b", S.USER_STOPPED)]).health is Health.PROGRESSING
    failed = flow_status(FLOW, [retried(), job("b", S.FAILED, error="no")])
    assert (failed.health, failed.reason) == (Health.DEGRADED, "b FAILED: no")
    suspended = FlowRecord(name="f", identity="", build_key="", suspended=True)
    assert flow_status(suspended, [retried()]).health is Health.SUSPENDED
