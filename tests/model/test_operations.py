"""Which verb takes which state: the whole table, and what is said where it does not fit."""

from __future__ import annotations

import itertools

import pytest

from reconciler.model.operations import TAKES, Effect, JobOperation, decide
from reconciler.model.records import FlowRecord, JobAttempt, JobRecord, LeftAttempt, RetryStatus
from reconciler.model.run_config import RunConfig
from reconciler.model.states import ACTIVE, JobState

FLOW = FlowRecord(name="f", identity="i", build_key="b")

TABLE = """
              retry  rerun  pause  resume  cancel  forget  abandon
WAITING       -      -      yes    -       yes     -     -
READY         -      -      yes    -       yes     -     -
CHECKED_OUT   -      yes    -      -       yes     -     yes
UPLOADED      -      yes    -      -       yes     -     yes
SUBMITTED     -      yes    -      -       yes     -     yes
RUNNING       -      yes    -      -       yes     -     yes
RUN_FINISHED  -      yes    -      -       yes     -     yes
DOWNLOADED    -      yes    -      -       yes     -     yes
COMPLETED     -      yes    -      -       -       yes     -
FAILED        yes    yes    -      -       -       yes     -
REMOTE_ERROR  yes    yes    -      -       -       yes     -
PAUSED        -      -      -      yes     yes     -     -
STOPPED       -      yes    -      -       -       yes     -
USER_STOPPED  -      yes    -      -       -       yes     -
"""
"""As in the documentation for users (docs/how-to/jobs.md)."""


def job(state: JobState, *, current: bool = True) -> JobRecord:
    return JobRecord(
        uuid="u", index=1, flow="f", key="j", name="j", function="m.f", state=state, config=RunConfig(),
        content="c", attempt=JobAttempt(number=1), current=current,
    )  # fmt: skip


def table() -> dict[tuple[str, str], bool]:
    head, *rows = (line.split() for line in TABLE.strip().splitlines())
    return {
        (row[0], operation): cell == "yes"
        for row in rows
        for operation, cell in zip(head, row[1:], strict=True)
    }


def test_the_table_is_whole() -> None:
    assert table().keys() == {(str(s), str(v)) for s, v in itertools.product(JobState, JobOperation)}


@pytest.mark.parametrize("operation", JobOperation)
@pytest.mark.parametrize("state", JobState)
def test_every_verb_from_every_state(state: JobState, operation: JobOperation) -> None:
    subject = job(state, current=operation is not JobOperation.FORGET)
    verdict = decide(operation, subject, FLOW)
    legal = table()[str(state), str(operation)]
    assert (verdict.effect is not None) is legal
    assert (state in TAKES[operation]) is legal
    assert str(state) in verdict.reason
    if legal:
        assert verdict.reason.startswith(f"{state}: ")
        assert not verdict.slight
    elif operation is not JobOperation.FORGET:
        assert verdict.slight
        assert f"{operation} is for jobs that" in verdict.reason


@pytest.mark.parametrize("operation", [JobOperation.RETRY, JobOperation.RERUN])
@pytest.mark.parametrize("state", JobState)
def test_who_cannot_run_a_job_again_is_told_what_would_work(state: JobState, operation: JobOperation) -> None:
    verdict = decide(operation, job(state), FLOW)
    assert verdict.effect is not None or verdict.hint


@pytest.mark.parametrize("operation", sorted(set(JobOperation) - {JobOperation.FORGET, JobOperation.ABANDON}))
@pytest.mark.parametrize("removed", [True, False])
def test_what_is_history_is_only_forgotten(operation: JobOperation, removed: bool) -> None:
    flow = FlowRecord(name="f", identity="i", build_key="b", removed=removed)
    for state in TAKES[operation]:
        verdict = decide(operation, job(state, current=removed), flow)
        assert (verdict.effect, verdict.slight) == (None, False)
        assert "forget" in verdict.hint


def test_jobs_of_an_orphaned_flow_still_listen() -> None:
    flow = FlowRecord(name="f", identity="i", build_key="b", removed=True, orphaned=True)
    assert decide(JobOperation.CANCEL, job(JobState.RUNNING), flow).effect is Effect.CANCEL
    assert decide(JobOperation.RETRY, job(JobState.FAILED), flow).effect is Effect.AGAIN


def test_what_runs_is_cancelled_first() -> None:
    for state in ACTIVE:
        verdict = decide(JobOperation.RERUN, job(state), FLOW)
        assert verdict.effect is Effect.CANCEL_THEN_AGAIN
        assert "attempt 2" in verdict.reason


def test_forget_leaves_alone_what_is_wanted() -> None:
    verdict = decide(JobOperation.FORGET, job(JobState.COMPLETED), FLOW)
    assert (verdict.effect, verdict.hint) == (
        None,
        "only superseded jobs are forgotten: remove the flow from git first",
    )
    orphan = FlowRecord(name="f", identity="i", build_key="b", removed=True, orphaned=True)
    assert decide(JobOperation.FORGET, job(JobState.COMPLETED), orphan).effect is Effect.FORGET
    assert "reconcile cancel" in decide(JobOperation.FORGET, job(JobState.READY), orphan).hint


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.REMOTE_ERROR])
def test_a_job_that_waits_for_its_retry(state: JobState) -> None:
    """As the row of the documentation says."""
    waiting = job(state)
    waiting.retry = RetryStatus(at=100.0, causes=["oom"])
    effects = {operation: decide(operation, waiting, FLOW) for operation in JobOperation}
    assert {operation: verdict.effect for operation, verdict in effects.items()} == {
        JobOperation.RETRY: Effect.AGAIN,
        JobOperation.RERUN: Effect.AGAIN,
        JobOperation.PAUSE: Effect.PAUSE,
        JobOperation.RESUME: None,
        JobOperation.CANCEL: Effect.GIVE_UP,
        JobOperation.FORGET: None,
        JobOperation.ABANDON: None,
    }
    assert effects[JobOperation.RESUME].slight and "reconcile retry" in effects[JobOperation.RESUME].hint
    assert all(str(state) in verdict.reason for verdict in effects.values())


@pytest.mark.parametrize("state", sorted(set(JobState) - ACTIVE))
def test_what_a_job_has_left_can_be_abandoned_in_every_state(state: JobState) -> None:
    left = job(state)
    left.left = [LeftAttempt(worker="far", run_dir="/w/u_1")]
    verdict = decide(JobOperation.ABANDON, left, None)
    assert verdict.effect is Effect.ABANDON
    assert "'far'" in verdict.reason and "may still run" in verdict.reason
