"""The verbs of a job's life, on the store: states, who waits for whom, what is history, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.jobs.dependencies import drop_superseded_parents
from reconciler.jobs.outputs import EmbeddedOutputs
from reconciler.model.operations import Effect
from reconciler.model.records import Cancellation, DeferredPatch, JobRecord
from reconciler.model.retries import Cause
from reconciler.model.states import ACTIVE, FINISHED, JobState
from tests.jobs.bench import BY, Bench, config, new_job


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Flow ``f``: a -> b -> c, and a -> d; flow ``g``: x needs f/b."""
    made = Bench(tmp_path / "state")
    made.flow("f", {"a": [], "b": ["a"], "c": ["b"], "d": ["a"]})
    made.flow("g", {"x": ["f/b"]})
    yield made
    made.check()
    made.store.close()


def refusal(bench: Bench, verb: str, *paths: str) -> tuple[str, str]:
    """Return why a verb is refused, and what would work; nothing may change."""
    before = bench.jobs()
    plan = bench.operate(verb, *paths)
    assert plan.steps == []
    assert bench.jobs() == before
    (one,) = plan.refusals
    return one.reason, one.hint


class TestRetry:
    def test_a_new_attempt_with_the_present_run_config(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.end("f/a", error="no luck")
        assert bench.states("f/a", "f/b") == ["FAILED", "WAITING"]
        job = bench.job("f/a")
        wanted = msgspec.structs.replace(
            job, deferred=DeferredPatch(config=config(priority=7)), state=JobState.REMOTE_ERROR
        )
        bench.store.write(lambda writer: writer.put_job(wanted))
        bench.operate("retry", "f/a")
        again = bench.job("f/a")
        assert (again.state, again.error, again.cause, again.wanted) == (JobState.READY, None, None, None)
        assert again.config.priority_value == 7
        bench.start("f/a")
        assert bench.job("f/a").attempt.run_dir == f"{job.attempt.run_dir}.2"
        bench.end("f/a")
        assert bench.states("f/a", "f/b") == ["COMPLETED", "READY"]

    def test_says_who_asked_for_it(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.end("f/a", error="no luck")
        bench.operate("retry", "f/a")
        with bench.store.read() as view:
            asked, *moves = view.events("job/f/a")[-3:]
        assert (asked.type, asked.by, asked.attempt) == ("Retry", BY, 1)
        assert asked.message == f"by {BY}: FAILED: runs again as attempt 2 (`reconcile retry ...`)"
        assert [event.message for event in moves] == [f"FAILED -> WAITING: retry by {BY}", "WAITING -> READY"]

    def test_not_of_what_did_not_fail(self, bench: Bench) -> None:
        bench.run("f/a")
        reason, hint = refusal(bench, "retry", "f/a")
        assert reason == "it is COMPLETED; retry is for jobs that are FAILED or REMOTE_ERROR"
        assert "reconcile rerun" in hint

    def test_not_on_a_worker_that_is_gone(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.end("f/a", error="no luck")
        moved = msgspec.structs.replace(bench.job("f/a"), config=config("w9"))
        bench.store.write(lambda writer: writer.put_job(moved))
        assert refusal(bench, "retry", "f/a")[0] == "its worker 'w9' is no longer in the repository"


class TestRerun:
    def test_of_a_completed_job_keeps_its_output_and_the_results_made_of_it(self, bench: Bench) -> None:
        bench.run("f/a", "f/b")
        assert bench.states("f/c", "f/d", "g/x") == ["READY"] * 3
        bench.operate("rerun", "f/a")
        assert bench.states("f/a", "f/b", "f/c", "f/d") == ["READY", "COMPLETED", "READY", "WAITING"]
        assert bench.output("f-a") == "f-a_1.1"
        bench.start("f/a")
        bench.end("f/a", error="worse than before")
        assert bench.output("f-a") == "f-a_1.1"
        bench.operate("retry", "f/a")
        bench.run("f/a")
        assert bench.output("f-a") == "f-a_1.3"
        assert bench.states("f/d", "f/b") == ["READY", "COMPLETED"]

    def test_with_descendants_runs_them_in_order_in_all_flows(self, bench: Bench) -> None:
        bench.run("f/a", "f/b", "f/c", "g/x")
        plan = bench.operate("rerun", "f/a", descendants=True)
        assert plan.steps[0].job.path == "f/a"
        assert {step.job.path for step in plan.steps} == {"f/a", "f/b", "f/c", "g/x"}
        assert bench.states("f/a", "f/b", "f/c", "f/d", "g/x") == ["READY"] + ["WAITING"] * 4
        bench.run("f/a", "f/b", "f/c", "g/x", "f/d")
        assert {job.attempt.number for job in bench.jobs()} == {1, 2}

    def test_is_refused_while_its_output_is_in_use(self, bench: Bench) -> None:
        bench.run("f/a")
        bench.start("f/b")
        reason, hint = refusal(bench, "rerun", "f/a")
        assert reason == "f/b is RUNNING and works with its output"
        assert "--with-descendants" in hint
        plan = bench.operate("rerun", "f/a", "f/b")
        assert [step.effect for step in plan.steps] == [Effect.AGAIN, Effect.CANCEL_THEN_AGAIN]
        bench.run("f/a")
        assert bench.states("f/b") == ["RUNNING"]
        bench.end("f/b")
        assert bench.states("f/b", "f/c") == ["READY", "WAITING"]
        assert bench.output("f-b") is None

    def test_with_descendants_cancels_those_that_run(self, bench: Bench) -> None:
        bench.run("f/a")
        bench.start("f/b")
        plan = bench.operate("rerun", "f/a", descendants=True)
        assert [(step.job.path, step.effect) for step in plan.steps] == [
            ("f/a", Effect.AGAIN),
            ("f/b", Effect.CANCEL_THEN_AGAIN),
        ]
        bench.killed("f/b")
        assert bench.states("f/a", "f/b") == ["READY", "WAITING"]

    @pytest.mark.parametrize("state", sorted(ACTIVE))
    def test_of_an_active_job_ends_that_attempt_first(self, bench: Bench, state: JobState) -> None:
        bench.start("f/a", state=state)
        bench.operate("rerun", "f/a")
        job = bench.job("f/a")
        assert (job.state, job.attempt.number, job.cancellation.rerun) == (state, 1, True)
        assert job.cancellation.reason == f"rerun by {BY}"
        bench.killed("f/a")
        job = bench.job("f/a")
        assert (job.state, job.cancellation.rerun, job.cancellation.reason, job.error) == (
            JobState.READY,
            False,
            None,
            None,
        )
        bench.run("f/a")
        assert bench.job("f/a").attempt.number == 2
        assert bench.states("f/b") == ["READY"]

    @pytest.mark.parametrize("error", ["", "no luck"])
    def test_an_attempt_that_ends_by_itself_meanwhile_does_not_count(self, bench: Bench, error: str) -> None:
        bench.start("f/a")
        bench.operate("rerun", "f/a")
        bench.end("f/a", error=error, addition=[new_job("u1")], stored_data={"a": 1}, stop_jobflow=True)
        assert bench.states("f/a", "f/b") == ["READY", "WAITING"]
        assert (bench.output("f-a"), len(bench.jobs()), bench.job("f/a").stored_data) == (None, 5, None)

    def test_asked_twice_or_cancelled_after_all(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.operate("rerun", "f/a")
        assert refusal(bench, "rerun", "f/a")[0] == "it is being cancelled to run again already"
        bench.operate("cancel", "f/a")
        assert refusal(bench, "cancel", "f/a")[0] == "it is being cancelled already"
        bench.killed("f/a")
        assert bench.states("f/a") == ["USER_STOPPED"]
        bench.operate("rerun", "f/a")
        assert bench.states("f/a") == ["READY"]

    def test_of_a_job_that_is_being_cancelled(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.operate("cancel", "f/a")
        bench.operate("rerun", "f/a")
        bench.killed("f/a")
        assert bench.states("f/a") == ["READY"]

    def test_of_a_stopped_flow(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.end("f/a", stop_jobflow=True)
        assert bench.states("f/b", "f/c") == ["STOPPED", "STOPPED"]
        bench.operate("rerun", "f/b")
        bench.start("f/b")
        bench.end("f/b", addition=[new_job("u1")])
        assert bench.states("f/new", "f/c") == ["READY", "STOPPED"]


class TestGenerated:
    def test_what_it_had_generated_becomes_history(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.end(
            "f/a", detour=[new_job("u1")], addition=[new_job("u2", name="more"), new_job("u3", name="r")]
        )
        assert bench.job("f/b").parents == ["f-a", "u1"]
        bench.run("f/new")
        bench.start("f/more", "f/r")
        bench.end("f/r", addition=[new_job("u4", name="deep")])
        plan = bench.operate("rerun", "f/a")
        superseded = [step.job.key for step in plan.steps if step.effect is Effect.SUPERSEDE]
        assert superseded == ["new", "more", "r", "deep"]
        assert bench.states("f/new", "f/more", "f/r", "f/deep") == [
            "COMPLETED", "RUNNING", "COMPLETED", "USER_STOPPED",
        ]  # fmt: skip
        assert [job.current for job in bench.jobs() if job.generated_by] == [False] * 4
        assert bench.output("u1") == "u1_1.1", "outputs of history are kept"
        bench.killed("f/more")
        assert bench.states("f/more") == ["USER_STOPPED"]
        assert bench.job("f/b").parents == ["f-a"]
        bench.run("f/a")
        assert bench.states("f/b") == ["READY"]

    def test_the_keys_and_attempts_of_a_new_life(self, bench: Bench) -> None:
        for number in (1, 2):
            bench.start("f/a")
            bench.end("f/a", addition=[new_job(f"u{number}")])
            new = bench.job("f/new")
            assert (new.uuid, new.current, new.generated_by and new.generated_by.attempt) == (
                f"u{number}",
                True,
                number,
            )
            bench.operate("rerun", "f/a")

    def test_a_replacement_of_a_former_life_neither_counts_nor_hides_the_new_output(
        self, bench: Bench
    ) -> None:
        bench.start("f/a")
        bench.end("f/a", replace=[new_job("f-a", 2)])
        bench.run("f/a@2")
        assert bench.states("f/b") == ["READY"]
        bench.operate("rerun", "f/a")
        assert bench.states("f/b", "f/a@2") == ["WAITING", "COMPLETED"]
        assert bench.output("f-a") == "f-a_2.1", "until there is a new one"
        bench.run("f/a")
        assert bench.states("f/b") == ["READY"]
        assert bench.output("f-a") == "f-a_1.2"

    def test_a_replacement_is_born_again_and_has_a_directory_of_its_own(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.end("f/a", replace=[new_job("f-a", 2)])
        bench.run("f/a@2")
        bench.operate("rerun", "f/a")
        bench.start("f/a")
        bench.end("f/a", replace=[new_job("f-a", 2)])
        assert bench.states("f/a@2", "f/b") == ["READY", "WAITING"]
        bench.run("f/a@2")
        assert bench.job("f/a@2").attempt.number == 2
        assert bench.output("f-a") == "f-a_2.2"

    def test_a_replacement_is_born_again_while_the_old_one_is_on_its_way_out(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.end("f/a", replace=[new_job("f-a", 2)])
        bench.start("f/a@2")
        bench.operate("rerun", "f/a")
        bench.start("f/a")
        bench.end("f/a", replace=[new_job("f-a", 2)])
        job = bench.job("f/a@2")
        assert (job.state, job.attempt.number, job.cancellation.rerun, job.current) == (
            JobState.RUNNING,
            1,
            True,
            True,
        )
        bench.killed("f/a@2")
        bench.run("f/a@2")
        assert (bench.job("f/a@2").attempt.number, bench.states("f/b")) == (2, ["READY"])


class TestPauseAndResume:
    def test_there_and_back(self, bench: Bench) -> None:
        bench.operate("pause", "f/a", "f/b")
        assert bench.states("f/a", "f/b") == ["PAUSED", "PAUSED"]
        assert bench.job("f/a").held == BY
        assert refusal(bench, "pause", "f/a") == (
            "it is PAUSED; pause is for jobs that are READY or WAITING",
            "",
        )
        bench.operate("resume", "f/a", "f/b")
        assert bench.states("f/a", "f/b") == ["READY", "WAITING"]
        assert bench.job("f/a").held is None

    def test_not_what_was_started(self, bench: Bench) -> None:
        bench.start("f/a")
        reason, hint = refusal(bench, "pause", "f/a")
        assert (reason, hint.split(";")[0]) == (
            "it is RUNNING; pause is for jobs that are READY or WAITING",
            "an active job cannot be paused",
        )

    def test_a_suspended_flow_keeps_its_jobs(self, bench: Bench) -> None:
        bench.flow("s", {"a": []}, suspended=True)
        bench.start("s/a")
        bench.operate("rerun", "s/a")
        bench.killed("s/a")
        assert bench.states("s/a") == ["PAUSED"]
        reason, hint = refusal(bench, "resume", "s/a")
        assert reason == "its flow is suspended by spec.suspend (flows/s.yaml:9)"
        assert "reconcile set suspend s off" in hint


class TestCancelAndForget:
    @pytest.mark.parametrize("state", ["READY", "WAITING", "PAUSED"])
    def test_cancel_before_the_start(self, bench: Bench, state: str) -> None:
        path = "f/b" if state == "WAITING" else "f/a"
        if state == "PAUSED":
            bench.operate("pause", path)
        bench.operate("cancel", path)
        assert bench.states(path) == ["USER_STOPPED"]
        assert "ended" not in refusal(bench, "cancel", path)[1]

    def test_who_does_not_mind_goes_on_without_a_cancelled_job(self, bench: Bench) -> None:
        bench.flow("h", {"x": [], "y": ["f/c"], "z": ["f/c"]})
        bench.edit("h/y", on_missing="none")
        bench.operate("cancel", "f/b")
        assert bench.states("f/c", "h/y", "h/z") == ["WAITING", "READY", "WAITING"]
        bench.edit("h/x", on_missing="pass", parents=["f-a"], state=JobState.WAITING)
        bench.start("f/a")
        bench.edit("f/a", cancellation=Cancellation(reason="by anna"))
        bench.killed("f/a")
        assert bench.states("f/a", "h/x") == ["USER_STOPPED", "READY"]

    def test_who_does_not_mind_is_cancelled_with_the_rest(self, bench: Bench) -> None:
        bench.edit("f/b", on_missing="none")
        bench.operate("cancel", "f/a", "f/b")
        assert bench.states("f/a", "f/b") == ["USER_STOPPED", "USER_STOPPED"]
        assert "WAITING -> READY" not in bench.events("f/b", "State")

    def test_who_does_not_mind_goes_on_without_what_a_response_stopped(self, bench: Bench) -> None:
        bench.flow("h", {"far": ["f/c"], "near": ["f/d"], "minds": ["f/d"]})
        for path in ("h/far", "h/near"):
            bench.edit(path, on_missing="none")
        bench.start("f/a")
        bench.end("f/a", stop_jobflow=True)
        assert bench.states("f/b", "f/c", "f/d", "g/x") == ["STOPPED", "STOPPED", "STOPPED", "WAITING"]
        assert bench.states("h/far", "h/near", "h/minds") == ["READY", "READY", "WAITING"]

    def test_forget_takes_only_what_nobody_wants_or_needs(self, bench: Bench) -> None:
        bench.start("f/a")
        bench.end("f/a", addition=[new_job("u1")])
        bench.run("f/new")
        assert "wanted" in refusal(bench, "forget", "f/a")[0]
        bench.operate("rerun", "f/a")
        bench.operate("forget", "f/new")
        assert [job.uuid for job in bench.jobs() if job.generated_by] == []
        assert bench.output("u1") is None
        bench.run("f/a")

    def test_forget_takes_what_replaced_the_job_as_well(self, bench: Bench) -> None:
        self.replaced(bench)
        plan = bench.operate("forget", "old/a")
        assert [step.job.path for step in plan.steps] == ["old/a", "old/a@2", "old/a@3"]
        assert [job.path for job in bench.jobs() if job.flow == "old"] == ["old/b"]
        assert bench.output("old-a") is None
        bench.operate("forget", "old/b")

    def test_forget_of_all_generations_or_of_the_last_one(self, bench: Bench) -> None:
        self.replaced(bench)
        bench.operate("forget", "old/a@3")
        assert bench.output("old-a") == "old-a_2.1"
        plan = bench.operate("forget", "old/a@2", "old/a")
        assert [step.job.path for step in plan.steps] == ["old/a@2", "old/a"]
        bench.operate("forget", "old/b")

    def test_forget_nothing_that_was_replaced_by_what_still_runs(self, bench: Bench) -> None:
        self.replaced(bench)
        bench.edit("old/a@3", state=JobState.RUNNING)
        assert refusal(bench, "forget", "old/a") == (
            "it was replaced by old/a@3: it is RUNNING: only what has ended is forgotten",
            "wait until it has ended",
        )
        bench.edit("old/a@3", state=JobState.COMPLETED)

    def test_a_store_whose_first_generation_is_gone(self, bench: Bench) -> None:
        self.replaced(bench)
        first = next(job for job in bench.jobs() if job.id == "old-a_1")
        bench.store.write(lambda writer: writer.delete_job(first))
        for path in ("old/a@2", "old/a@3"):
            bench.edit(path, current=False)
        bench.store.write(lambda writer: drop_superseded_parents(writer, [bench.job("old/b")], bench.clock))
        assert bench.job("old/b").parents == ["old-a"], "its generator is not known to be in another life"

    def replaced(self, bench: Bench) -> None:
        """A removed flow whose a has replaced itself twice; b needed it, and was cancelled."""
        bench.flow("old", {"a": [], "b": ["a"]})
        for path, index in (("old/a", 2), ("old/a@2", 3)):
            bench.start(path)
            bench.end(path, replace=[new_job("old-a", index)])
        bench.run("old/a@3")
        bench.operate("cancel", "old/b")
        with bench.store.read() as view:
            flow = view.flow("old")
        assert flow is not None
        removed = msgspec.structs.replace(flow, removed=True)
        bench.store.write(lambda writer: writer.put_flow(removed))

    def test_forget_a_removed_flow_and_then_the_flow_itself(self, bench: Bench) -> None:
        bench.flow("old", {"a": [], "b": ["a"]})
        bench.run("old/a", "old/b")
        with bench.store.read() as view:
            flow = view.flow("old")
        assert flow is not None
        removed = msgspec.structs.replace(flow, removed=True)
        bench.store.write(lambda writer: writer.put_flow(removed))
        assert refusal(bench, "rerun", "old/a")[0] == "its flow was removed from git"
        bench.operate("forget", "old/a")
        bench.operate("forget", "old/b")
        with bench.store.read() as view:
            assert (view.flow("old"), view.jobs_of("old")) == (None, [])

    def test_a_result_that_a_wanted_job_was_made_of_stays(self, bench: Bench) -> None:
        bench.run("f/a", "f/b", "f/c")
        with bench.store.read() as view:
            flow = view.flow("f")
        assert flow is not None
        removed = msgspec.structs.replace(flow, removed=True)
        bench.store.write(lambda writer: writer.put_flow(removed))
        assert refusal(bench, "forget", "f/b")[0] == "g/x needs its output"
        bench.operate("forget", "f/c")

    def test_forget_deletes_the_blobs_of_additional_stores(self, bench: Bench) -> None:
        bench.flow("old", {"a": []}, removed=True)
        outputs = EmbeddedOutputs(bench.store)
        blob = {"blob_uuid": "b1", "data": [1, 2]}
        bench.store.write(lambda writer: outputs.save_inside(writer, [], {"data": [blob]}))
        bench.start("old/a")
        bench.end("old/a", output={"big": {"blob_uuid": "b1", "store": "data"}})
        assert outputs.blob("data", "b1") is not None
        bench.operate("forget", "old/a")
        assert outputs.blob("data", "b1") is None


# random lives ---------------------------------------------------------------------------------------------

choices = st.tuples(st.integers(0, 8), st.integers(0, 2**16), st.integers(0, 2**16))
VERBS = ("retry", "rerun", "pause", "resume", "cancel")


class Life:
    """One random life. Numbers choose who is meant and what becomes of it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.born = 0

    def step(self, action: int, first: int, second: int) -> None:
        self.bench.wait(second % 20)
        jobs = self.bench.jobs()
        if action < 2:
            self._one_of([job for job in jobs if job.state is JobState.READY], first, self.bench.start_one)
        elif action < 5:
            self._one_of(
                [job for job in jobs if job.state in ACTIVE], first, lambda job: self._end(job, second)
            )
        else:
            verb = VERBS[second % len(VERBS)]
            chosen = [job for number, job in enumerate(jobs) if first >> (number % 16) & 1]
            self.bench.operate_on(verb, chosen, descendants=verb == "rerun" and second % 3 == 0)

    def _one_of(self, jobs: list[JobRecord], number: int, do: Callable[[JobRecord], Any]) -> None:
        if jobs:
            do(jobs[number % len(jobs)])

    def _end(self, job: JobRecord, how: int) -> None:
        self.born += 1
        fresh = new_job(f"u{self.born}", name=f"n{how % 2}")
        match how % 9:
            case 0 | 1:
                self.bench.end_one(job)
            case 2:
                self.bench.end_one(job, error="no luck")
            case 3 if job.index < 3:
                self.bench.end_one(job, replace=[new_job(job.uuid, job.index + 1)])
            case 4:
                self.bench.end_one(job, detour=[fresh])
            case 5:
                self.bench.end_one(job, addition=[fresh, new_job(f"v{self.born}", parents=[f"u{self.born}"])])
            case 6:
                self.bench.killed_one(job, Cause.WALLTIME if how % 2 else Cause.OOM)
            case 7:
                self.bench.end_one(job, stop_jobflow=True)
            case _:
                self.bench.end_one(job, stop_children=True)

    def drain(self) -> None:
        """Let all that can run complete, retries included."""
        while True:
            self.bench.wait(3600)
            jobs = self.bench.jobs()
            for job in jobs:
                if job.state is JobState.READY:
                    self.bench.start_one(job)
                elif job.state in ACTIVE:
                    self.bench.end_one(job)
            if not any(job.state in ACTIVE or job.state is JobState.READY for job in jobs):
                return


@settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(steps=st.lists(choices, min_size=5, max_size=35))
def test_random_lives(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]) -> None:
    """At most one attempt of a job runs, none is lost, and in the end all is done that can be done."""
    bench = Bench(tmp_path_factory.mktemp("life"))
    bench.flow("f", {"a": [], "b": ["a"], "c": ["b"], "d": ["a"]})
    bench.flow("g", {"x": ["f/b"], "e": ["f/a", "f/c"], "z": ["e"]})
    bench.edit("g/e", on_missing="none")
    for path in ("f/a", "f/b", "g/x"):
        bench.edit(path, config=config(retries={"limit": 2, "on": ["walltime"]}))
    built = {job.id for job in bench.jobs()}
    life = Life(bench)
    for step in steps:
        known = {job.id: job.attempt.number for job in bench.jobs()}
        life.step(*step)
        bench.check()
        now = {job.id: job.attempt.number for job in bench.jobs()}
        assert built <= now.keys()
        assert all(now[job_id] >= attempt for job_id, attempt in known.items()), (
            "directories are never reused"
        )
    life.drain()
    bench.check()
    current = [job for job in bench.jobs() if job.current]
    waiting = [job for job in current if job.state is JobState.WAITING]
    blocked = {job.uuid for job in current if job.state in (FINISHED | {JobState.PAUSED})} | {
        job.uuid for job in waiting
    }
    assert all(set(job.parents) & blocked for job in waiting)
    bench.operate_on("rerun", [job for job in bench.jobs() if job.current])
    bench.operate_on("resume", [job for job in bench.jobs() if job.current])
    life.drain()
    assert {job.state for job in bench.jobs() if job.current} == {JobState.COMPLETED}
    bench.store.close()
