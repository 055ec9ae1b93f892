"""Better requests, from what jobs used."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.model.records import JobAttempt, JobRecord
from reconciler.model.retries import Cause
from reconciler.model.run_config import Level, Origin, RunConfig
from reconciler.model.settings import Resources, Setting
from reconciler.model.states import JobState
from reconciler.plan.advice import Use, uses
from reconciler.plan.set_rule import WantedValue
from tests.plan.plan_support import built_job, record, worker

WORKERS = {name: worker(scheduler_type=name) for name in ("slurm", "pbs", "sge", "shell")}


def job(
    asked: dict[str, Any], seconds: float | None, *, on: str = "slurm", generic: bool = False, **fields: Any
) -> JobRecord:
    """Return a job that has ended; ``cpu`` and ``memory`` are those of its attempt."""
    attempt = JobAttempt(
        number=1, worker=on, ended=1.0, seconds=seconds,
        cpu=fields.pop("cpu", None), memory=fields.pop("memory", None),
    )  # fmt: skip
    setting = Setting(Resources(asked, generic), Origin(Level.JOB, "Flow", "f", ""))
    given = {"state": JobState.COMPLETED, "attempt": attempt, "config": RunConfig(resources=setting)}
    function = fields.pop("function", "eos.relax")
    return record(built_job("a", "1", function=function), **(given | fields))


def only(jobs: list[JobRecord]) -> Use:
    (use,) = uses(jobs, WORKERS)
    return use


@pytest.mark.parametrize(
    ("on", "asked", "proposed"),
    [
        ("slurm", {"ntasks": 4, "time": "8:00:00", "partition": "big"}, {"time": "0:40:00"}),
        ("pbs", {"select": "select=1:ncpus=4", "walltime": "8:00:00"}, {"walltime": "0:40:00"}),
        ("sge", {"model": "smp 4", "walltime": "8:00:00"}, {"walltime": "0:40:00"}),
    ],
)
def test_a_limit_far_from_the_longest_run_is_shortened(
    on: str, asked: dict[str, Any], proposed: dict[str, Any]
) -> None:
    use = only([job(asked, seconds, on=on) for seconds in (600.0, 1190.0, 300.0)])
    assert use.reason == "the longest job took 0:19:50 of 8:00:00"
    assert use.proposal == WantedValue("resources", {**asked, **proposed})


def test_generic_resources_stay_generic() -> None:
    asked = {"processes": 4, "time_limit": 28800}
    use = only([job(asked, 1190.0, generic=True)] * 3)
    assert use.proposal == WantedValue("qresources", {"processes": 4, "time_limit": 2400})


@pytest.mark.parametrize(
    ("seconds", "limit"),
    [
        ([600.0, 600.0], "8:00:00"),  # too few
        ([600.0] * 3, "0:35:00"),  # near enough
        ([1.0] * 3, "0:10:00"),  # short enough, however short the jobs are
        ([None] * 3, "8:00:00"),  # no job told
    ],
)
def test_a_good_limit_stays(seconds: list[float | None], limit: str) -> None:
    use = only([job({"ntasks": 1, "time": limit}, one) for one in seconds])
    assert (use.reason, use.proposal) == ("", None)


def test_a_limit_that_ends_jobs_is_doubled() -> None:
    asked = {"ntasks": 1, "time": "1:00:00"}
    ended = job(asked, None, state=JobState.FAILED, cause=Cause.WALLTIME)
    use = only([job(asked, 600.0)] * 5 + [ended])
    assert use.reason == "1 of 6 jobs reached their time limit"
    assert use.proposal == WantedValue("resources", {"ntasks": 1, "time": "2:00:00"})


def test_a_limit_that_was_mended_is_not_doubled_again() -> None:
    asked = {"ntasks": 1, "time": "2:00:00"}
    ended = job(asked, None, state=JobState.FAILED, cause=Cause.WALLTIME)
    short = msgspec.structs.replace(ended.attempt, started=0.0, ended=3601.0)
    use = only([job(asked, 6000.0)] * 5 + [msgspec.structs.replace(ended, attempt=short)])
    assert (use.walltime, use.reason, use.proposal) == (0, "", None)
    full = msgspec.structs.replace(ended.attempt, started=0.0, ended=7200.0)
    use = only([job(asked, 6000.0)] * 5 + [msgspec.structs.replace(ended, attempt=full)])
    assert use.reason == "1 of 6 jobs reached their time limit"


def test_a_function_with_two_requests_gets_no_rule_for_both() -> None:
    jobs = [job({"ntasks": n, "time": "8:00:00"}, 600.0) for n in (1, 2) for _ in range(3)]
    found = uses(jobs, WORKERS)
    assert [(use.request.cores, bool(use.reason), use.proposal) for use in found] == [
        (2, True, None),
        (1, True, None),
    ]


@pytest.mark.parametrize(
    ("cpu", "busy", "reason"),
    [
        (390.0, 0.975, ""),
        (100.0, 0.25, "25% of 4 cores were busy"),
        (2.0, None, ""),  # srun has run the work, where the launcher does not see it
    ],
)
def test_idle_cores_are_named(cpu: float, busy: float | None, reason: str) -> None:
    use = only([job({"ntasks": 4, "time": "0:05:00"}, 100.0, cpu=cpu)] * 3)
    assert (use.busy, use.reason, use.proposal) == (busy, reason, None)
    assert use.core_hours == pytest.approx(3 * 4 * 100 / 3600)


def test_sums_and_order() -> None:
    jobs = [
        job({"ntasks": 1}, 10.0, memory=100, function="small"),
        job({"ntasks": 1}, 30.0, memory=50, function="small"),
        job({"ntasks": 8}, 30.0, function="large"),
        job({}, 30.0, on="shell", function="local"),
        job({"ntasks": 8}, 30.0, on="gone", function="elsewhere"),
    ]
    found = uses(jobs, WORKERS)
    assert [(use.function, use.jobs, use.longest, use.memory) for use in found] == [
        ("large", 1, 30.0, None),
        ("small", 2, 30.0, 100),
        ("local", 1, 30.0, None),
    ]


def test_jobs_out_of_memory_are_counted() -> None:
    asked = {"ntasks": 1, "time": "0:05:00"}
    use = only([job(asked, None, state=JobState.FAILED, cause=Cause.OOM), job(asked, 10.0)])
    assert (use.reason, use.proposal) == ("1 of 2 jobs ran out of memory", None)


def test_jobs_that_have_not_ended_do_not_count() -> None:
    running = record(built_job("a", "1"), attempt=JobAttempt(number=1, worker="slurm"))
    assert uses([running], WORKERS) == []
