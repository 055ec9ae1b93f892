"""``next_step`` for every state, with every observation, cancelled or not, missing or not."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest

from reconciler.execution.lifecycle import Observation, Step, next_step
from reconciler.execution.queues.base import QueueEntry, QueueState
from reconciler.model.records import NO_ATTEMPT, Cancellation, DeferredPatch, JobAttempt, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.states import ACTIVE, ON_WORKER, JobState

NOW = 1000.0
LOST_AFTER = 10.0
JUST_NOW, LONG_AGO = NOW - LOST_AFTER / 2, NOW - LOST_AFTER

S = JobState


RUNNING, PENDING = QueueEntry(QueueState.RUNNING), QueueEntry(QueueState.PENDING)


def job(
    state: JobState, *, cancel: bool = False, missing_since: float | None = None, stuck: str | None = None
) -> JobRecord:
    return JobRecord(
        uuid="u", index=1, flow="f", key="k", name="n", function="m.f", state=state, config=RunConfig(),
        content="c", cancellation=Cancellation(reason="removed" if cancel else None),
        attempt=JobAttempt(missing_since=missing_since, stuck=stuck),
    )  # fmt: skip


def step(
    record: JobRecord, *, marker: bool = False, in_queue: bool | None = None, entry: QueueEntry = RUNNING
) -> Step:
    """``in_queue`` is None when the queue was not asked; ``entry`` is what it says of a job that it has."""
    seen = Observation(
        marker=marker,
        asked=in_queue is not None,
        entry=entry if in_queue else None,
        lost_after=LOST_AFTER,
    )
    return next_step(record, seen, NOW)


OBSERVATIONS = list(product([False, True], [None, False, True]))
CIRCUMSTANCES = list(product([False, True], [None, JUST_NOW, LONG_AGO]))


@pytest.mark.parametrize(("marker", "in_queue"), OBSERVATIONS)
@pytest.mark.parametrize(("cancel", "missing_since"), CIRCUMSTANCES)
@pytest.mark.parametrize(
    ("state", "expected", "cancelled"),
    [
        (S.CHECKED_OUT, Step.UPLOAD, Step.DROP),
        (S.UPLOADED, Step.START, Step.WITHDRAW),
        (S.RUN_FINISHED, Step.COLLECT, Step.COLLECT),
        (S.DOWNLOADED, Step.COLLECT, Step.COLLECT),
        *((state, Step.WAIT, Step.WAIT) for state in S if state not in ACTIVE),
    ],
)
def test_off_the_worker_no_observation_matters(
    state: JobState, expected: Step, cancelled: Step, cancel: bool, missing_since: float | None,
    marker: bool, in_queue: bool | None,
) -> None:  # fmt: skip
    record = job(state, cancel=cancel, missing_since=missing_since)
    assert step(record, marker=marker, in_queue=in_queue) is (cancelled if cancel else expected)


@pytest.mark.parametrize("in_queue", [None, False, True])
@pytest.mark.parametrize(("cancel", "missing_since"), CIRCUMSTANCES)
@pytest.mark.parametrize("state", sorted(ON_WORKER))
def test_a_marker_decides(
    state: JobState, cancel: bool, missing_since: float | None, in_queue: bool | None
) -> None:
    record = job(state, cancel=cancel, missing_since=missing_since)
    assert step(record, marker=True, in_queue=in_queue) is Step.COLLECT


@pytest.mark.parametrize(("cancel", "missing_since"), CIRCUMSTANCES)
@pytest.mark.parametrize("state", sorted(ON_WORKER))
def test_a_queue_that_was_not_asked_changes_nothing(
    state: JobState, cancel: bool, missing_since: float | None
) -> None:
    assert step(job(state, cancel=cancel, missing_since=missing_since), in_queue=None) is Step.WAIT


@pytest.mark.parametrize("state", sorted(ON_WORKER))
@pytest.mark.parametrize(
    ("missing_since", "expected"),
    [(None, Step.NOTE_MISSING), (JUST_NOW, Step.WAIT), (LONG_AGO, Step.COLLECT_LOST)],
)
def test_missing_counts_only_when_confirmed(
    state: JobState, missing_since: float | None, expected: Step
) -> None:
    assert step(job(state, missing_since=missing_since), in_queue=False) is expected


@pytest.mark.parametrize("state", sorted(ON_WORKER))
@pytest.mark.parametrize(
    ("missing_since", "expected"),
    [(None, Step.NOTE_MISSING), (JUST_NOW, Step.COLLECT_LOST), (LONG_AGO, Step.COLLECT_LOST)],
)
def test_a_second_listing_is_enough_for_one_that_we_ended_ourselves(
    state: JobState, missing_since: float | None, expected: Step
) -> None:
    assert step(job(state, cancel=True, missing_since=missing_since), in_queue=False) is expected


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("state", sorted(ON_WORKER))
def test_a_clock_that_was_set_back_begins_the_doubt_anew(state: JobState, cancel: bool) -> None:
    missing = job(state, cancel=cancel, missing_since=NOW + 3600)
    assert step(missing, in_queue=False) is Step.NOTE_MISSING


@pytest.mark.parametrize("missing_since", [None, JUST_NOW, LONG_AGO])
@pytest.mark.parametrize("state", sorted(ON_WORKER))
def test_a_cancelled_job_is_killed_only_while_the_queue_knows_it(
    state: JobState, missing_since: float | None
) -> None:
    assert step(job(state, cancel=True, missing_since=missing_since), in_queue=True) is Step.KILL


@pytest.mark.parametrize(
    ("state", "missing_since", "expected"),
    [
        (S.SUBMITTED, None, Step.NOTE_RUNNING),
        (S.RUNNING, None, Step.WAIT),
        (S.SUBMITTED, JUST_NOW, Step.NOTE_FOUND),
        (S.RUNNING, LONG_AGO, Step.NOTE_FOUND),
    ],
)
def test_in_the_queue(state: JobState, missing_since: float | None, expected: Step) -> None:
    assert step(job(state, missing_since=missing_since), in_queue=True) is expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (QueueState.PENDING, Step.WAIT),
        (QueueState.HELD, Step.NOTE_WAITING),
        (QueueState.UNKNOWN, Step.WAIT),
        (QueueState.RUNNING, Step.NOTE_RUNNING),
        (QueueState.SUSPENDED, Step.NOTE_RUNNING),
    ],
)
def test_submitted_becomes_running_only_when_the_scheduler_has_started_it(
    state: QueueState, expected: Step
) -> None:
    assert step(job(S.SUBMITTED), in_queue=True, entry=QueueEntry(state)) is expected


def test_that_a_job_can_never_start_is_noted_once_and_taken_back() -> None:
    never = QueueEntry(QueueState.PENDING, reason="PartitionTimeLimit", never="too long for its partition")
    assert step(job(S.SUBMITTED), in_queue=True, entry=never) is Step.NOTE_STUCK
    assert step(job(S.SUBMITTED, stuck=never.never), in_queue=True, entry=never) is Step.WAIT
    assert step(job(S.SUBMITTED, stuck=never.never), in_queue=True, entry=PENDING) is Step.NOTE_STUCK
    assert step(job(S.SUBMITTED, stuck=never.never, cancel=True), in_queue=True, entry=never) is Step.KILL


def test_a_job_that_can_never_start_is_submitted_anew_once_that_was_put_right() -> None:
    never = QueueEntry(QueueState.PENDING, never="too long for its partition")
    waits = msgspec.structs.replace(
        job(S.SUBMITTED, stuck=never.never), deferred=DeferredPatch(config=RunConfig())
    )
    assert step(waits, in_queue=True, entry=never) is Step.NOTE_RESUBMIT
    assert (
        step(
            msgspec.structs.replace(waits, cancellation=Cancellation(reason="x")), in_queue=True, entry=never
        )
        is Step.KILL
    )
    assert step(msgspec.structs.replace(waits, attempt=NO_ATTEMPT), in_queue=True, entry=PENDING) is Step.WAIT
