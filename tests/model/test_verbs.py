"""Which verb takes which state: the whole table, and what is said where it does not fit."""

from __future__ import annotations

import itertools

import pytest

from reconciler.model.operations import TAKES, Effect, JobVerb, decide
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.states import ACTIVE, JobState

FLOW = FlowRecord(name="f", identity="i", build_key="b")

TABLE = """
              retry  rerun  pause  resume  cancel  forget
WAITING       -      -      yes    -       yes     -
READY         -      -      yes    -       yes     -
CHECKED_OUT   -      yes    -      -       yes     -
UPLOADED      -      yes    -      -       yes     -
SUBMITTED     -      yes    -      -       yes     -
RUNNING       -      yes    -      -       yes     -
RUN_FINISHED  -      yes    -      -       yes     -
DOWNLOADED    -      yes    -      -       yes     -
COMPLETED     -      yes    -      -       -       yes
FAILED        yes    yes    -      -       -       yes
REMOTE_ERROR  yes    yes    -      -       -       yes
PAUSED        -      -      -      yes     yes     -
STOPPED       -      yes    -      -       -       yes
USER_STOPPED  -      yes    -      -       -       yes
"""
"""As in the documentation for users (docs/how-to/jobs.md)."""


def job(state: JobState, *, current: bool = True) -> JobRecord:
    return JobRecord(
        uuid="u", index=1, flow="f", key="j", name="j", function="m.f", state=state, config=RunConfig(),
        content="c", attempt=1, current=current,
    )  # fmt: skip


def table() -> dict[tuple[str, str], bool]:
    head, *rows = (line.split() for line in TABLE.strip().splitlines())
    return {(row[0], verb): cell == "yes" for row in rows for verb, cell in zip(head, row[1:], strict=True)}


def test_the_table_is_whole() -> None:
    assert table().keys() == {(str(s), str(v)) for s, v in itertools.product(JobState, JobVerb)}


@pytest.mark.parametrize("verb", JobVerb)
@pytest.mark.parametrize("state", JobState)
def test_every_verb_from_every_state(state: JobState, verb: JobVerb) -> None:
    subject = job(state, current=verb is not JobVerb.FORGET)
    verdict = decide(verb, subject, FLOW)
    legal = table()[str(state), str(verb)]
    assert (verdict.effect is not None) is legal
    assert (state in TAKES[verb]) is legal
    assert str(state) in verdict.reason
    if legal:
        assert verdict.reason.startswith(f"{state}: ")
        assert not verdict.slight
    elif verb is not JobVerb.FORGET:
        assert verdict.slight
        assert f"{verb} is for jobs that" in verdict.reason


@pytest.mark.parametrize("verb", [JobVerb.RETRY, JobVerb.RERUN])
@pytest.mark.parametrize("state", JobState)
def test_who_cannot_run_a_job_again_is_told_what_would_work(state: JobState, verb: JobVerb) -> None:
    verdict = decide(verb, job(state), FLOW)
    assert verdict.effect is not None or verdict.hint


@pytest.mark.parametrize("verb", [verb for verb in JobVerb if verb is not JobVerb.FORGET])
@pytest.mark.parametrize("removed", [True, False])
def test_what_is_history_is_only_forgotten(verb: JobVerb, removed: bool) -> None:
    flow = FlowRecord(name="f", identity="i", build_key="b", removed=removed)
    for state in TAKES[verb]:
        verdict = decide(verb, job(state, current=removed), flow)
        assert (verdict.effect, verdict.slight) == (None, False)
        assert "forget" in verdict.hint


def test_jobs_of_an_orphaned_flow_still_listen() -> None:
    flow = FlowRecord(name="f", identity="i", build_key="b", removed=True, orphaned=True)
    assert decide(JobVerb.CANCEL, job(JobState.RUNNING), flow).effect is Effect.CANCEL
    assert decide(JobVerb.RETRY, job(JobState.FAILED), flow).effect is Effect.AGAIN


def test_what_runs_is_cancelled_first() -> None:
    for state in ACTIVE:
        verdict = decide(JobVerb.RERUN, job(state), FLOW)
        assert verdict.effect is Effect.CANCEL_THEN_AGAIN
        assert "attempt 2" in verdict.reason


def test_forget_leaves_alone_what_is_wanted() -> None:
    verdict = decide(JobVerb.FORGET, job(JobState.COMPLETED), FLOW)
    assert (verdict.effect, verdict.hint) == (
        None,
        "only history is forgotten: remove the flow from git first",
    )
    orphan = FlowRecord(name="f", identity="i", build_key="b", removed=True, orphaned=True)
    assert decide(JobVerb.FORGET, job(JobState.COMPLETED), orphan).effect is Effect.FORGET
    assert "reconcile cancel" in decide(JobVerb.FORGET, job(JobState.READY), orphan).hint


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.REMOTE_ERROR])
def test_a_job_that_waits_for_its_retry(state: JobState) -> None:
    """As the row of the documentation says."""
    waiting = job(state)
    waiting.retry_at, waiting.retried = 100.0, ["oom"]
    effects = {verb: decide(verb, waiting, FLOW) for verb in JobVerb}
    assert {verb: verdict.effect for verb, verdict in effects.items()} == {
        JobVerb.RETRY: Effect.AGAIN,
        JobVerb.RERUN: Effect.AGAIN,
        JobVerb.PAUSE: Effect.PAUSE,
        JobVerb.RESUME: None,
        JobVerb.CANCEL: Effect.GIVE_UP,
        JobVerb.FORGET: None,
    }
    assert effects[JobVerb.RESUME].slight and "reconcile retry" in effects[JobVerb.RESUME].hint
    assert all(str(state) in verdict.reason for verdict in effects.values())
