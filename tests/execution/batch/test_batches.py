"""Batch workers on this machine: hand-over, limits, taking back, and what is killed in between."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cli.views.data import batches_data
from tests.execution.batch.support import BatchWorld

pytestmark = pytest.mark.timeout(300)

Make = Callable[..., BatchWorld]


class TestSlots:
    def test_jobs_share_one_allocation_and_one_warm_interpreter(self, make_batch: Make) -> None:
        world = make_batch(parallel_jobs=3)
        names = [f"j{n}" for n in range(6)]
        world.open(*names)
        world.waits("f", *names)
        world.reconcile()
        world.run()
        assert sorted(world.logged()) == names
        assert len(world.allocations()) == 1
        assert len(list(world.batch.glob("*/warm.*.log"))) == 1
        assert world.waiting() == world.noted() == []

    def test_the_most_urgent_job_is_taken_first_also_when_it_comes_last(self, make_batch: Make) -> None:
        world = make_batch(parallel_jobs=1)
        world.waits("first", "running")
        world.open("late", "low", "high")
        world.waits("low", "low", priority=-1)
        world.reconcile()
        world.until(lambda: world.logged() == ["running"])
        world.waits("late", "late", priority=1)
        world.waits("high", "high", priority=7)
        world.reconcile()
        world.until(lambda: len(world.waiting()) == 3)
        world.open("running")
        world.run()
        assert world.logged() == ["running", "high", "late", "low"]

    def test_an_allocation_ends_after_its_number_of_jobs_and_another_one_follows(
        self, make_batch: Make
    ) -> None:
        """Never more at a time than max_jobs: jobflow-remote's issue 391."""
        world = make_batch(max_jobs_per_batch=2, max_wait=60)
        names = [f"j{n}" for n in range(5)]
        world.open(*names)
        world.waits("f", *names)
        world.reconcile()
        alive = []

        def is_over() -> bool:
            alive.append(len(world.pids(r"agent-\w+\.py")))
            return world.is_idle()

        world.until(is_over)
        assert sorted(world.logged()) == names
        assert max(alive) == 1
        assert len(world.allocations()) == 3
        per_batch = Counter(path.read_text() for path in (world.work / "b").glob("??/??/??/*/claim/batch"))
        assert sorted(per_batch.values()) == [1, 2, 2]

    def test_a_retry_continues_in_a_fork_of_the_same_interpreter(self, make_batch: Make) -> None:
        world = make_batch(max_wait=60)
        world.flow(
            "f",
            *({"id": name, "function": "counts_on", "args": [2]} for name in ("a", "b")),
            {"id": "c", "function": "counts_on", "args": [1]},
            retries={"limit": 1, "on": ["exception"], "backoff": "0s", "continue": {"keep": ["*.ckpt"]}},
        )
        world.reconcile()
        world.run()
        for name in ("a", "b"):
            (before,) = world.job(f"f/{name}").retry.run_dirs
            assert world.output(f"f/{name}") == {"attempts": ["1", "2"], "previous": before, "started": "0"}
        assert world.output("f/c") == {"attempts": ["1"], "previous": None, "started": "0"}

    def test_jobs_with_commands_around_them_run_by_a_script_of_their_own(self, make_batch: Make) -> None:
        world = make_batch()
        world.put("ExecConfig", "around", {"pre_run": "touch before", "post_run": "touch after"})
        world.waits("f", "a", exec_config="around")
        world.open("a")
        world.reconcile()
        world.run()
        assert world.state("f/a") == "COMPLETED"
        here = Path(world.job("f/a").attempt.run_dir or "")
        assert (here / "before").exists() and (here / "after").exists()
        assert not (here / "warm.sh").exists()

    def test_a_module_that_cannot_be_loaded_fails_each_job_as_elsewhere(self, make_batch: Make) -> None:
        world = make_batch()
        world.put("ExecConfig", "broken", {"modules": ["nosuch/1.0"]})
        world.waits("f", "a", "b", exec_config="broken")
        world.reconcile()
        world.run()
        for path in ("f/a", "f/b"):
            assert "`module load nosuch/1.0` failed" in (world.job(path).error or "")
        assert world.logged() == []

    def test_listings_show_slots_and_what_waits(self, make_batch: Make) -> None:
        world = make_batch(parallel_jobs=1)
        world.waits("f", "running", "waiting")
        world.reconcile()
        world.until(lambda: any(one.busy for one in world.allocations()))
        world.until(lambda: "slot" in (world.job("f/waiting").attempt.waiting or ""))
        (row,) = world.view(lambda view: batches_data(view, "b", time.time()))
        assert (row["state"], row["slots"], row["busy"], row["done"]) == ("running", 1, 1, 0)
        assert row["queue_id"] and row["node"] and row["remaining"] is None
        world.open("running", "waiting")
        world.run()


class TestTakingBack:
    def test_an_edit_takes_a_waiting_job_back_and_leaves_a_running_one(self, make_batch: Make) -> None:
        world = make_batch(parallel_jobs=1)
        world.waits("f", "running", "waiting")
        world.reconcile()
        world.until(lambda: world.state("f/running") == "RUNNING" and len(world.waiting()) == 1)
        (first,) = world.waiting()
        world.waits("f", "running", "waiting", priority=5)
        world.reconcile()
        world.until(lambda: world.job("f/waiting").attempt.number == 2 and len(world.waiting()) == 1)
        assert world.waiting() != [first]
        assert world.job("f/running").attempt.number == 1
        world.open("running", "waiting")
        world.run()
        assert world.logged() == ["running", "waiting"]
        assert world.states("f/running", "f/waiting") == ["COMPLETED"] * 2

    def test_a_cancelled_job_that_waits_never_runs(self, make_batch: Make) -> None:
        world = make_batch(parallel_jobs=1)
        world.waits("f", "running")
        world.waits("g", "waiting")
        world.reconcile()
        world.until(lambda: world.state("f/running") == "RUNNING" and len(world.waiting()) == 1)
        world.repository.remove("flows/g.yaml")
        world.reconcile(allow_prune=True)
        world.until(lambda: world.state("g/waiting") == "USER_STOPPED")
        world.open("running")
        world.run()
        assert world.logged() == ["running"]
        assert world.waiting() == []


class TestKilled:
    """Every job once, and none lost."""

    @pytest.fixture
    def world(self, make_batch: Make) -> BatchWorld:
        """Two jobs run that wait, two others have tickets."""
        world = make_batch()
        world.waits("f", "a", "b")
        world.waits("g", "c", "d", priority=-1)
        world.reconcile()
        world.until(lambda: world.states("f/a", "f/b") == ["RUNNING"] * 2)
        world.until(lambda: sorted(world.logged()) == ["a", "b"])
        return world

    def end(self, world: BatchWorld) -> None:
        """Let all jobs go on, and check that each began once and what was running has failed once."""
        world.until(lambda: world.states("f/a", "f/b") == ["FAILED"] * 2)
        world.open("c", "d")
        world.run()
        assert sorted(world.logged()) == ["a", "b", "c", "d"]
        assert world.states("g/c", "g/d") == ["COMPLETED"] * 2
        assert {job.attempt.number for job in world.jobs().values()} == {1}
        assert world.waiting() == []
        # The note of an attempt that is lost stays: its result still counts if it comes late.
        lost = {f"{job.id}.1" for job in world.jobs().values() if job.cause == "lost"}
        assert set(world.noted()) <= lost

    def test_an_agent_that_is_killed_is_started_again(self, world: BatchWorld) -> None:
        (agent,) = world.pids(r"agent-\w+\.py")
        os.kill(agent, signal.SIGKILL)
        self.end(world)
        assert [world.job(f"f/{name}").cause for name in "ab"] == ["killed"] * 2
        assert len(world.allocations()) == 1

    def test_an_allocation_that_is_killed_gives_its_waiting_jobs_back(self, world: BatchWorld) -> None:
        (allocation,) = world.allocations()
        os.killpg(int(allocation.queue_id or 0), signal.SIGKILL)
        self.end(world)
        assert [world.job(f"f/{name}").cause for name in "ab"] == ["lost"] * 2
        assert len(world.allocations()) == 2

    def test_an_allocation_that_is_asked_to_end_ends_its_jobs(self, world: BatchWorld) -> None:
        (allocation,) = world.allocations()
        os.killpg(int(allocation.queue_id or 0), signal.SIGTERM)
        self.end(world)
        assert ["exit code 143" in (world.job(f"f/{name}").error or "") for name in "ab"] == [True] * 2

    def test_a_warm_interpreter_that_is_killed_takes_its_jobs_along_only(self, world: BatchWorld) -> None:
        (interpreter,) = (
            pid for pid in world.pids(r"warm-\w+\.py") if os.getsid(pid) == pid and _is_parent(pid)
        )
        os.kill(interpreter, signal.SIGKILL)
        self.end(world)
        assert [world.job(f"f/{name}").cause for name in "ab"] == ["killed"] * 2
        assert len(world.allocations()) == 1

    def test_a_daemon_that_is_away_is_not_missed(self, world: BatchWorld) -> None:
        world.open("a", "b", "c", "d")
        world.restart()
        while len(list((world.work / "b").glob("??/??/??/*/claim/exit_code"))) < 4:
            os.sched_yield()
        world.run()
        assert sorted(world.logged()) == ["a", "b", "c", "d"]
        assert {job.state.value for job in world.jobs().values()} == {"COMPLETED"}

    def test_a_job_that_was_claimed_and_never_began_is_given_back(self, world: BatchWorld) -> None:
        """As if the allocation had died between the claim and the start."""
        waiting = {world.job(path).id: path for path in ("g/c", "g/d")}
        (allocation,) = world.allocations()
        os.kill(int(allocation.queue_id or 0), signal.SIGSTOP)
        (agent,) = world.pids(r"agent-\w+\.py")
        os.kill(agent, signal.SIGSTOP)
        job = world.job("g/c")
        ticket = next(name for name in world.waiting() if job.id in name)
        marker = f"{job.id}.1"
        claim = Path(job.attempt.run_dir or "") / "claim"
        (world.batch / allocation.name / "running" / marker).touch()
        claim.mkdir()
        (claim / "batch").write_text(f"{allocation.name}\n")
        (claim / "queue_id").write_text(f"{marker}\n")
        (world.batch / "waiting" / ticket).unlink()
        os.killpg(int(allocation.queue_id or 0), signal.SIGKILL)
        world.open("a", "b", "c", "d")
        world.run()
        assert sorted(world.logged()) == ["a", "b", "c", "d"]
        assert world.job("g/c").attempt.number == 2
        assert {world.state(path) for path in waiting.values()} == {"COMPLETED"}


class TestAllocationsThatCannotStart:
    def test_the_worker_says_why_and_does_not_try_all_the_time(
        self, make_batch: Make, tmp_path: Path
    ) -> None:
        world = make_batch()
        python = tmp_path / "nopython"
        text = (world.repository.path / "workers/b.yaml").read_text()
        world.repository.write(
            "workers/b.yaml", text.replace('"max_jobs"', f'"python":"{python}","max_jobs"')
        )
        world.waits("f", "a")
        world.open("a")
        world.reconcile()
        assert world.executor is not None
        executor = world.executor
        world.until(lambda: "ended before its agent could start" in executor.outages().get("b", ""))
        assert "nopython" in executor.outages()["b"]
        for _ in range(20):
            world.advance()
        assert len(world.allocations()) == 1
        assert world.state("f/a") == "SUBMITTED"

    def test_programs_that_were_removed_are_sent_again(self, make_batch: Make) -> None:
        world = make_batch(max_jobs_per_batch=1)
        first = {"id": "a", "function": "log_and_wait", "args": [str(world.log), "a", str(world.root / "a")]}
        second = {"id": "b", "function": "log_line", "args": [str(world.log), "b", {"$output": "a"}]}
        world.flow("f", first, second)
        world.reconcile()
        world.until(lambda: world.logged() == ["a"])
        for program in (world.work / "b" / ".launchers").glob("*.py"):
            program.unlink()
        world.open("a")
        world.run()
        assert world.logged() == ["a", "b"]
        assert world.states("f/a", "f/b") == ["COMPLETED"] * 2


def _is_parent(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
