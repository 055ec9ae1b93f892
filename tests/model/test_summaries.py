"""The summary of a flow while its jobs change one by one."""

from __future__ import annotations

import random

import msgspec
import pytest

from reconciler.model.records import JobAttempt, JobRecord, RetryStatus
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import JobState
from reconciler.model.summaries import FirstJob, FlowSummary, JobGroup, Tally, summary_of

S = JobState


def job(number: int, state: JobState, *, worker: str = "w", **fields: object) -> JobRecord:
    config = RunConfig(worker=Setting(worker, Origin(Level.FLOW, "Flow", "f", "/spec/worker")))
    record = JobRecord(
        uuid=f"u{number}", index=1, flow="f", key=f"j{number}", name="", function="m.f", state=state,
        config=config, content="c", sequence=number,
    )  # fmt: skip
    return msgspec.structs.replace(record, **fields)


FAILED = job(1, S.FAILED, error="first line\nlast line")


def test_it_counts_and_names_the_first_of_each_group() -> None:
    found = summary_of(
        [
            job(4, S.REMOTE_ERROR), FAILED, job(3, S.READY), job(2, S.READY, worker="v"), job(5, S.READY),
            job(6, S.FAILED, retry=RetryStatus(at=1.0)), job(7, S.RUNNING, current=False),
            job(8, S.SUBMITTED, attempt=JobAttempt(stuck="never", waiting="Priority")),
        ]
    )  # fmt: skip
    assert found == FlowSummary(
        states={"FAILED": 2, "READY": 3, "REMOTE_ERROR": 1, "SUBMITTED": 1},
        retries={"FAILED": 1},
        ready={"v": JobGroup(1, FirstJob(2, "j2")), "w": JobGroup(2, FirstJob(3, "j3"))},
        broken=JobGroup(2, FirstJob(1, "j1", "FAILED: last line")),
        stuck=JobGroup(1, FirstJob(8, "j8", "never")),
        explained=1,
        leaving=1,
    )
    assert (found.jobs, found.ended, found.active, found.moves) == (7, 2, True, True)


@pytest.mark.parametrize(
    ("jobs", "ended", "active", "moves"),
    [
        ([], 0, False, False),
        ([job(1, S.COMPLETED), job(2, S.WAITING), job(3, S.PAUSED)], 1, False, False),
        ([job(1, S.READY)], 0, False, True),
        ([job(1, S.DOWNLOADED)], 0, True, True),
        ([job(1, S.REMOTE_ERROR, retry=RetryStatus(at=1.0))], 0, False, True),
        ([job(1, S.RUNNING, current=False), job(2, S.STOPPED)], 1, True, False),
    ],
)
def test_what_ended_and_what_moves(jobs: list[JobRecord], ended: int, active: bool, moves: bool) -> None:
    found = summary_of(jobs)
    assert (found.ended, found.active, found.moves) == (ended, active, moves)


def test_the_next_one_is_unknown_once_the_first_has_left() -> None:
    others = [job(2, S.FAILED), job(3, S.FAILED)]
    tally = Tally(summary_of([FAILED, *others]))
    tally.change(others[1], job(3, S.READY))
    assert tally.summary().broken == JobGroup(2, FirstJob(1, "j1", "FAILED: last line"))
    tally.change(FAILED, job(1, S.READY))
    assert tally.summary().broken == JobGroup(1, None)
    assert not tally.summary().names_troubles
    tally.change(None, job(0, S.FAILED))
    assert tally.summary().broken == JobGroup(2, None), "the unknown one may be older"
    tally.change(job(0, S.FAILED), None)
    tally.change(others[0], None)
    assert tally.summary().broken is None
    assert tally.summary().names_troubles


def test_a_change_that_does_not_count_forgets_nothing() -> None:
    tally = Tally(summary_of([FAILED, job(2, S.FAILED)]))
    tally.change(FAILED, msgspec.structs.replace(FAILED, updated=9.0, attempt=JobAttempt(number=3)))
    assert tally.summary() == summary_of([FAILED, job(2, S.FAILED)])


def test_only_what_is_unknown_may_differ_from_a_count() -> None:
    counted = summary_of([FAILED, job(2, S.READY)])
    known = msgspec.structs.replace(counted, broken=JobGroup(1, None), ready={"w": JobGroup(1, None)})
    assert known.agrees_with(counted)
    assert counted.agrees_with(counted)
    assert not counted.agrees_with(known)
    for wrong in (
        {"broken": JobGroup(2, None)}, {"broken": None}, {"ready": {}}, {"ready": {"v": JobGroup(1, None)}},
        {"broken": JobGroup(1, FirstJob(1, "j1", "FAILED"))}, {"states": {"FAILED": 1}}, {"leaving": 1},
    ):  # fmt: skip
        assert not msgspec.structs.replace(known, **wrong).agrees_with(counted)


@pytest.mark.parametrize("seed", range(5))
def test_random_changes_give_what_a_count_gives(seed: int) -> None:
    dice = random.Random(seed)
    jobs: dict[int, JobRecord] = {}
    tally = Tally()
    for _ in range(400):
        number = dice.randrange(8)
        new = None
        if dice.random() < 0.9:
            new = job(
                number, dice.choice(list(S)), worker=dice.choice("vw"), current=dice.random() < 0.8,
                error=dice.choice([None, "no", "a\nb"]), retry=RetryStatus(at=dice.choice([None, None, 1.0])),
                attempt=JobAttempt(stuck=dice.choice([None, "x"]), waiting=dice.choice([None, "y"])),
            )  # fmt: skip
        tally.change(jobs.pop(number, None), new)
        if new is not None:
            jobs[number] = new
        assert tally.summary().agrees_with(summary_of(jobs.values()))
