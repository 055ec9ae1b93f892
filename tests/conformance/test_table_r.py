"""Table R of the conformance list: a job that runs again. The number of a test is the number of its case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.operations import Effect
from tests.jobs.bench import Bench, new_job


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Flow ``f``: a -> b -> c."""
    made = Bench(tmp_path / "state")
    made.flow("f", {"a": [], "b": ["a"], "c": ["b"]})
    yield made
    made.check()
    made.store.close()


def test_r1_ended_jobs_that_needed_it_keep_their_results(bench: Bench) -> None:
    bench.run("f/a", "f/b")
    first = bench.job("f/a")
    plan = bench.operate("rerun", "f/a")
    assert [step.job.path for step in plan.steps] == ["f/a"]
    assert bench.states("f/a", "f/b", "f/c") == ["READY", "COMPLETED", "READY"]
    assert bench.output("f-a") == "f-a_1.1", "the output stays until there is a new one"
    bench.run("f/a")
    assert bench.output("f-a") == "f-a_1.2"
    assert bench.job("f/a").attempt.run_dir != first.attempt.run_dir
    assert (bench.job("f/b").attempt.number, bench.output("f-b")) == (1, "f-b_1.1")


def test_r1_with_descendants_all_run_again(bench: Bench) -> None:
    bench.run("f/a", "f/b", "f/c")
    bench.operate("rerun", "f/a", descendants=True)
    assert bench.states("f/a", "f/b", "f/c") == ["READY", "WAITING", "WAITING"]
    bench.run("f/a", "f/b", "f/c")
    assert [bench.output(f"f-{key}") for key in "abc"] == ["f-a_1.2", "f-b_1.2", "f-c_1.2"]


def test_r1_an_active_job_that_needs_it_is_in_the_way(bench: Bench) -> None:
    bench.run("f/a")
    bench.start("f/b")
    assert bench.operate("rerun", "f/a").steps == []
    assert bench.states("f/a", "f/b") == ["COMPLETED", "RUNNING"]
    plan = bench.operate("rerun", "f/a", descendants=True)
    assert [step.effect for step in plan.steps] == [Effect.AGAIN, Effect.CANCEL_THEN_AGAIN]
    bench.killed("f/b")
    assert bench.states("f/a", "f/b", "f/c") == ["READY", "WAITING", "WAITING"]


def test_r1_of_a_job_that_replaced_itself_or_generated_others(bench: Bench) -> None:
    bench.start("f/a")
    bench.end("f/a", replace=[new_job("f-a", 2)], addition=[new_job("u1", name="more")])
    bench.run("f/a@2", "f/more", "f/b")
    bench.operate("rerun", "f/a")
    assert not bench.job("f/a@2").current and not bench.job("f/more").current
    assert bench.output("u1") == "u1_1.1", "its output stays"
    bench.run("f/a")
    assert bench.output("f-a") == "f-a_1.2"
    assert bench.states("f/b") == ["COMPLETED"]
