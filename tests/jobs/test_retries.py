"""Automatic retries, on the store: when an attempt is made again, who waits for it, and who stops it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.jobs import restarts
from reconciler.jobs.restarts import drop_unwanted_retry
from reconciler.jobs.transitions import leave
from reconciler.model.flows import BuiltFlow, BuiltJob
from reconciler.model.health import flow_status
from reconciler.model.operations import Effect
from reconciler.model.records import Cancellation, DeferredPatch, JobRecord
from reconciler.model.retries import Cause
from reconciler.model.states import Health, JobState
from reconciler.model.summaries import summary_of
from reconciler.plan.interpreter import configured
from tests.jobs.bench import Bench, config, new_job

TWICE: dict[str, Any] = {"limit": 2, "on": ["walltime", "exception"], "backoff": "10s"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Flow ``f``: a -> b; a may be retried twice, after 10 and 20 s."""
    made = Bench(tmp_path / "state")
    made.flow("f", {"a": [], "b": ["a"]})
    made.edit("f/a", config=config(retries=TWICE))
    yield made
    made.check()
    made.store.close()


def die(bench: Bench, cause: Cause = Cause.WALLTIME) -> JobRecord:
    bench.start("f/a")
    bench.killed("f/a", cause)
    return bench.job("f/a")


def health(bench: Bench) -> tuple[Health, str]:
    with bench.store.read() as view:
        flow = view.flow("f")
        assert flow is not None
        status = flow_status(flow, view.summary("f"))
        assert status == flow_status(flow, summary_of(view.jobs_of("f")))
    return status.health, status.reason


# deciding ---------------------------------------------------------------------------------------------


def test_each_attempt_has_its_directory_its_reason_and_its_time(bench: Bench) -> None:
    first = die(bench)
    assert (first.state, first.cause, first.retry.causes) == (JobState.FAILED, "walltime", ["walltime"])
    assert first.retry.at == bench.clock + 10
    assert health(bench) == (Health.PROGRESSING, "0 of 2 jobs completed; 1 job to be retried")
    assert bench.states("f/b") == ["WAITING"]
    assert not bench.wait(9.5)
    assert bench.wait(0.5)
    assert (bench.job("f/a").state, bench.job("f/a").retry.at) == (JobState.READY, None)
    bench.start("f/a")
    bench.end("f/a", error="no luck")
    second = bench.job("f/a")
    assert (second.retry.causes, second.retry.at) == (["walltime", "exception"], bench.clock + 20)
    assert bench.wait(20)
    third = die(bench)
    assert (third.attempt.number, third.retry.at, third.retry.causes) == (3, None, second.retry.causes)
    assert len({first.attempt.run_dir, second.attempt.run_dir, third.attempt.run_dir}) == 3
    assert health(bench)[0] is Health.DEGRADED
    assert not bench.wait(1e9)
    assert bench.events("f/a", "Retrying") == [
        f"attempt 1 died of walltime in {first.attempt.run_dir}: retry 1 of 2 in 10 s",
        f"attempt 2 died of exception in {second.attempt.run_dir}: retry 2 of 2 in 20 s",
    ]
    assert "FAILED -> WAITING: retry 2 of 2 after exception" in bench.events("f/a", "State")


def test_a_retry_that_completes_lets_the_others_go_on(bench: Bench) -> None:
    die(bench)
    bench.wait(10)
    bench.run("f/a")
    assert bench.states("f/a", "f/b") == ["COMPLETED", "READY"]
    assert bench.job("f/a").retry.causes == ["walltime"], "what it had asked for stays to be seen"


@pytest.mark.parametrize("cause", [Cause.OOM, None])
def test_not_after_another_death(bench: Bench, cause: Cause | None) -> None:
    bench.start("f/a")
    bench.killed("f/a", cause)
    assert (bench.job("f/a").retry.at, health(bench)[0]) == (None, Health.DEGRADED)


@pytest.mark.parametrize("policy", [None, {"limit": 0}, {"limit": "many"}, {"limit": 10**9}])
def test_not_without_a_policy(bench: Bench, policy: Any) -> None:
    bench.edit("f/a", config=config(retries=policy))
    assert die(bench).retry.at is None


def test_not_of_a_job_that_is_being_cancelled(bench: Bench) -> None:
    bench.start("f/a")
    bench.edit("f/a", cancellation=Cancellation(reason="removed"))
    bench.killed("f/a", Cause.WALLTIME)
    job = bench.job("f/a")
    assert (job.state, job.retry.at, job.retry.causes) == (JobState.USER_STOPPED, None, [])


def test_not_in_a_flow_that_has_been_stopped(bench: Bench) -> None:
    bench.flow("g", {"x": [], "y": [], "z": []})
    for key in "xy":
        bench.edit(f"g/{key}", config=config(retries=TWICE))
    bench.start("g/x", "g/y", "g/z")
    bench.killed("g/x", Cause.WALLTIME)
    bench.end("g/z", stop_jobflow=True)
    assert bench.job("g/x").retry.at is None
    assert bench.events("g/x", "GivenUp") == ["no retry: stop_jobflow of g/z"]
    bench.killed("g/y", Cause.WALLTIME)
    assert bench.job("g/y").retry.at is None


def test_a_deferred_policy_counts_as_soon_as_it_can(bench: Bench) -> None:
    bench.start("f/a")
    bench.edit(
        "f/a", deferred=DeferredPatch(config=config(retries={"limit": 1, "on": ["oom"], "backoff": "1m"}))
    )
    bench.killed("f/a", Cause.OOM)
    job = bench.job("f/a")
    assert (job.wanted, job.retry.at) == (None, bench.clock + 60)


def test_who_does_not_mind_a_missing_output_waits_for_the_retries_as_well(bench: Bench) -> None:
    bench.edit("f/b", on_missing="none")
    die(bench)
    assert bench.states("f/b") == ["WAITING"]
    bench.operate("cancel", "f/a")
    assert bench.states("f/b") == ["READY"]


def test_a_generated_job_has_the_retries_of_its_generator(bench: Bench) -> None:
    bench.start("f/a")
    bench.end("f/a", addition=[new_job("n")])
    bench.start("f/new")
    bench.killed("f/new", Cause.WALLTIME)
    assert bench.job("f/new").retry.at == bench.clock + 10


def test_many_retries_at_once_read_their_flow_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow of thousands of jobs takes long to read, and nobody else can write meanwhile."""
    keys = [str(number) for number in range(100)]
    bench.flow("many", {key: [] for key in keys})
    built = [
        BuiltJob(
            key=key, uuid=f"many-{key}", index=1, name=key, function="m.f", content=key, parents=[], own={},
            on_missing="error", files=[("new", key)], hosts=[], payload=b"{}",
        )
        for key in keys
    ]  # fmt: skip
    build = BuiltFlow(build_key="many", jobs=built, jobflow_version="1", code=["tree"])
    bench.store.write(lambda writer: writer.put_build(build))
    for key in keys:
        bench.edit(f"many/{key}", config=config(retries=TWICE))
        bench.start(f"many/{key}")
        bench.killed(f"many/{key}", Cause.WALLTIME)
    read: list[str] = []
    original = View.build

    def counting(view: View, build_key: str) -> BuiltFlow | None:
        read.append(build_key)
        return original(view, build_key)

    monkeypatch.setattr(View, "build", counting)
    assert bench.wait(3600)
    assert read == ["many"]
    assert set(bench.states(*(f"many/{key}" for key in keys))) == {"READY"}
    assert [bench.job(f"many/{key}").files for key in keys[:2]] == [[("new", "0")], [("new", "1")]]


# people and commits -----------------------------------------------------------------------------------


def test_retry_by_hand_is_the_retry_that_was_to_come(bench: Bench) -> None:
    die(bench)
    (step,) = bench.operate("retry", "f/a").steps
    assert step.reason == "FAILED, to be retried: that is done now, as attempt 2"
    job = bench.job("f/a")
    assert (job.state, job.retry.causes, job.retry.at) == (JobState.READY, ["walltime"], None)
    assert not bench.wait(100), "not twice"


def test_retry_of_what_has_failed_for_good_counts_anew(bench: Bench) -> None:
    die(bench)
    bench.wait(10)
    die(bench, Cause.OOM)
    bench.operate("retry", "f/a")
    assert bench.job("f/a").retry.causes == []
    assert die(bench).retry.causes == ["walltime"]


def test_rerun_counts_anew(bench: Bench) -> None:
    die(bench)
    bench.operate("rerun", "f/a")
    assert (bench.job("f/a").retry.causes, bench.job("f/a").retry.at) == ([], None)
    die(bench)
    bench.wait(10)
    bench.start("f/a")
    bench.operate("rerun", "f/a")
    bench.killed("f/a", Cause.WALLTIME)
    job = bench.job("f/a")
    assert (job.state, job.retry.causes, job.retry.at) == (JobState.READY, [], None)


def test_cancel_makes_no_more_retries(bench: Bench) -> None:
    die(bench)
    (step,) = bench.operate("cancel", "f/a").steps
    assert step.effect is Effect.GIVE_UP
    job = bench.job("f/a")
    assert (job.state, job.retry.at, job.error) == (JobState.FAILED, None, "killed")
    assert not bench.wait(100)
    assert bench.operate("cancel", "f/a").steps == []


def test_pause_keeps_the_retry_until_resume(bench: Bench) -> None:
    die(bench)
    assert bench.operate("resume", "f/a").steps == []
    bench.operate("pause", "f/a")
    assert bench.states("f/a") == ["PAUSED"]
    assert not bench.wait(100)
    bench.operate("resume", "f/a")
    assert (bench.job("f/a").state, bench.job("f/a").retry.causes) == (JobState.READY, ["walltime"])


def test_a_suspended_flow_keeps_its_retries_for_later(bench: Bench) -> None:
    die(bench)
    with bench.store.read() as view:
        flow = view.flow("f")
    assert flow is not None
    flow.suspended = True
    bench.store.write(lambda writer: writer.put_flow(flow))
    assert health(bench)[0] is Health.SUSPENDED
    bench.wait(10)
    assert (bench.job("f/a").state, bench.job("f/a").retry.causes) == (JobState.PAUSED, ["walltime"])


def test_a_job_that_leaves_is_not_retried(bench: Bench) -> None:
    die(bench)
    bench.store.write(lambda writer: leave(writer, bench.job("f/a"), "replaced", bench.clock))
    assert (bench.job("f/a").retry.at, bench.wait(100)) == (None, False)


@pytest.mark.parametrize(
    ("policy", "stays"),
    [(TWICE | {"limit": 1}, True), (TWICE | {"limit": 0}, False), (TWICE | {"on": ["oom"]}, False)],
)
def test_a_commit_may_take_the_retry_away(bench: Bench, policy: dict[str, Any], stays: bool) -> None:
    die(bench)

    def patch(writer: Writer) -> None:
        patched = configured(bench.job("f/a"), config(retries=policy), bench.clock)
        writer.put_job(patched)
        drop_unwanted_retry(writer, patched, bench.clock)

    bench.store.write(patch)
    assert (bench.job("f/a").retry.at is not None) is stays
    assert bench.events("f/a", "GivenUp") == ([] if stays else ["no retry: its run config was changed"])


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError("too deep"), OverflowError("too large")])
def test_a_retry_that_fails_unexpectedly_holds_up_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bench.flow("h", {"one": [], "two": []})
    for path in ("h/one", "h/two"):
        bench.edit(path, config=config(retries=TWICE))
    bench.start("f/a", "h/one", "h/two")
    for path in ("f/a", "h/one", "h/two"):
        bench.killed(path, Cause.WALLTIME)
    real = restarts.move

    def move(writer: Writer, job: JobRecord, *rest: Any, **fields: Any) -> JobRecord:
        if job.path == "h/one":
            raise error
        return real(writer, job, *rest, **fields)

    monkeypatch.setattr(restarts, "move", move)
    assert bench.wait(100.0)
    assert bench.states("f/a", "h/one", "h/two") == ["READY", "FAILED", "READY"]
    (given_up,) = bench.events("h/one", "GivenUp")
    assert type(error).__name__ in given_up
    assert not bench.wait(100.0)
