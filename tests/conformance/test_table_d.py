"""Table D of the conformance list: the life of a job. The number of a test is the number of its case.

Real processes on shell workers of this machine; ``tests/clusters/test_outages.py`` has D1, D2, D3, D8 and D9
on Slurm over ssh.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.errors import TransientError
from reconciler.execution.hosts.local import LocalHost
from reconciler.jobs.operations import OperationRunner
from reconciler.loop import Session
from reconciler.model.operations import Effect, JobOperation
from reconciler.model.records import WorkerStatus
from reconciler.model.states import JobState
from reconciler.plan.operations import OperationPlan, OperationPlanner
from tests.execution.support import (
    World,
    end_processes_below,
    eventually,
    gate,
    lines,
    processes_below,
    running,
)
from tests.support import Reconcile

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too

KILLER = Path(__file__).parents[1] / "execution/killer.py"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()
    end_processes_below(made.work)


def waiting(world: World, *names: str, **spec: Any) -> Path:
    """Run jobs that wait for a gate until each does so; return the gate."""
    door = gate(world, "gate")
    log = str(world.root / "log")
    jobs = [{"id": name, "function": "log_and_wait", "args": [log, name, str(door)]} for name in names]
    world.flow("f", *jobs, **spec)
    world.reconcile()
    world.until(
        lambda: all(running(world, f"f/{name}")() for name in names) and len(lines(Path(log))) == len(names)
    )
    return door


def finish(world: World, now: float = 0.0) -> None:
    """Let all jobs end, at a time that is later by ``now``; each has run once."""
    assert eventually(lambda: world.advance(time.time() + now) or world.is_idle(), 120)
    assert eventually(lambda: not world.advance(time.time() + now) and world.is_idle(), 120)
    assert {job.state for job in world.jobs().values()} == {JobState.COMPLETED}
    ran = lines(world.root / "log")
    assert len(ran) == len(set(ran)) == len(world.jobs())


def status(world: World, worker: str = "w1") -> WorkerStatus:
    found: WorkerStatus = world.view(lambda view: view.worker_status(worker))
    return found


def do(world: World, operation: JobOperation, path: str) -> OperationPlan:
    """Do what the command line does with a verb."""

    def write(writer: Any) -> OperationPlan:
        (job,) = (job for job in writer.jobs() if job.path == path)
        plan = OperationPlanner(writer, ["w1"]).plan(operation, [job])
        OperationRunner(writer, plan, "ada", f"reconcile {operation} {path}", time.time()).carry_out()
        return plan

    return world.store.write(write)


def program(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    return Reconcile(world.repository.path)("--state-dir", str(world.root / "state"), *arguments)


def fake_ps(folder: Path, text: str) -> str:
    """Return a PATH on which another ps is found first."""
    file = folder / "ps"
    folder.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


# D1 - D3: what is not seen is not gone ----------------------------------------------------------------------


@pytest.mark.usefixtures("warm")
def test_d1_a_host_that_does_not_answer_for_an_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    door = waiting(world, "a", "b")
    before, now = world.jobs(), time.time()

    def away(*_: Any, **__: Any) -> Any:
        raise TransientError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(LocalHost, "run", away)
        for minute in range(0, 60, 3):
            world.restart()
            world.advance(now + 60 * minute)
            assert world.jobs() == before
    known = status(world)
    assert (known.reachable, known.reason) == (False, "no answer")
    assert known.failures > 3
    door.touch()
    finish(world, 7200)
    assert status(world).reachable


@pytest.mark.usefixtures("warm")
def test_d1_a_scheduler_that_does_not_answer_for_an_hour(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = waiting(world, "a")
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", fake_ps(tmp_path / "bin", "exit 1"))
        for later in (10, 100, 1000, 3600):
            world.restart()
            world.advance(now + later)
            assert world.state("f/a") == "RUNNING"
        assert "cannot list processes" in status(world).reason
    door.touch()
    finish(world, 7200)


@pytest.mark.usefixtures("warm")
def test_d2_a_listing_that_omits_live_jobs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next listing has them again; and also if it has not, their own files say that they run."""
    door = waiting(world, "a", "b")
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", fake_ps(tmp_path / "bin", "echo '    PID    PGID     ELAPSED S'"))
        world.restart()
        world.advance(now + 10)
        assert {job.state for job in world.jobs().values()} == {JobState.RUNNING}
        assert all(job.attempt.missing_since for job in world.jobs().values())
    world.restart()
    world.advance(now + 11)
    assert not any(job.attempt.missing_since for job in world.jobs().values())
    assert {job.state for job in world.jobs().values()} == {JobState.RUNNING}
    door.touch()
    finish(world)


@pytest.mark.usefixtures("warm")
def test_d3_a_worker_that_is_removed_serves_until_its_jobs_end(world: World) -> None:
    workers = {name: world.worker(name, max_jobs=4) for name in ("w1", "w2")}
    world.repository.write("workers/workers.yaml", "".join(workers.values()))
    project = (world.repository.path / "reconciler.yaml").read_text()
    world.repository.write("reconciler.yaml", project.replace("worker: w1", "worker: w2"))
    door = waiting(world, "a")
    world.repository.write("workers/workers.yaml", workers["w1"])
    world.repository.write("reconciler.yaml", project)
    log = str(world.root / "log")
    world.flow("g", {"id": "other", "function": "log_line", "args": [log, "other"]})
    world.reconcile()
    world.until(lambda: world.state("g/other") == "COMPLETED")
    assert world.state("f/a") == "RUNNING"
    assert "w2" in config_workers(world)
    door.touch()
    finish(world)
    assert world.job("f/a").attempt.worker == "w2"
    world.repository.write("README", "more")
    world.reconcile()
    assert config_workers(world) == ["w1"]


def config_workers(world: World) -> list[str]:
    config = world.view(View.config)
    assert config is not None
    return sorted(config.workers)


# D4 - D5: ending what runs ----------------------------------------------------------------------------------


def alone(world: World) -> Path:
    """Run a job with a child process that fails where another attempt still lives; return its folder."""
    place = world.root / "place"
    world.flow("f", {"id": "j", "function": "verb_jobs.alone", "args": [str(place)]})
    world.reconcile()
    world.until(lambda: running(world, "f/j")() and len(lines(place / "begun")) == 1)
    return place


def test_d4_rerun_of_a_running_job_ends_the_old_attempt_first(world: World) -> None:
    place = alone(world)
    old = processes_below(Path(str(world.job("f/j").attempt.run_dir)))
    assert old
    plan = do(world, JobOperation.RERUN, "f/j")
    assert [step.effect for step in plan.steps] == [Effect.CANCEL_THEN_AGAIN]
    world.until(lambda: len(lines(place / "begun")) == 2)
    first, second = lines(place / "begun")
    assert second == f"{first}.2"
    assert Path(first).is_dir(), "nothing was wiped"
    (place / "go").touch()
    world.run()
    assert (world.state("f/j"), world.job("f/j").attempt.number) == ("COMPLETED", 2)
    assert list(lines(place / "done")) == [second]


def test_d5_cancel_ends_the_whole_process_group(world: World) -> None:
    alone(world)
    place = Path(str(world.job("f/j").attempt.run_dir))
    assert len(processes_below(place)) > 1
    do(world, JobOperation.CANCEL, "f/j")
    world.until(lambda: world.state("f/j") == "USER_STOPPED")
    assert eventually(lambda: not processes_below(place), 30)


# D6 - D7: how many at once, and which first -----------------------------------------------------------------


def test_d6_max_jobs_must_be_at_least_one(world: World) -> None:
    world.repository.write("workers/workers.yaml", world.worker("w1", max_jobs=0))
    world.repository.commit()
    (problem,) = Session(world.source, world.store).load().state.diagnostics
    assert problem.is_error
    assert str(problem.location).startswith("workers/workers.yaml:5:")
    assert "max_jobs" in problem.message and "1" in problem.message


@pytest.mark.usefixtures("warm")
def test_d7_under_max_jobs_the_highest_priority_goes_first_then_the_oldest(world: World) -> None:
    world.repository.write("workers/workers.yaml", world.worker("w1", max_jobs=1))
    log = world.root / "log"
    priorities = {"a": 0, "b": 5, "c": -3, "d": 5}
    world.flow(
        "order",
        *[
            {"id": name, "function": "log_line", "args": [str(log), name], "priority": priority}
            for name, priority in priorities.items()
        ],
    )
    world.reconcile()
    world.run()
    assert lines(log) == ["b", "d", "a", "c"]


# D8: the reconciler is killed -------------------------------------------------------------------------------


def test_d8_a_submission_that_was_not_recorded_is_adopted(world: World) -> None:
    log = world.root / "log"
    world.flow("f", {"id": "a", "function": "log_line", "args": [str(log), "a"]})
    world.repository.commit()
    world.store.close()
    where = ["--repo", str(world.repository.path), "--state-dir", str(world.root / "state")]
    killed = subprocess.run(
        [sys.executable, str(KILLER), *where, "--once", "--wait", "--timeout", "60"],
        env=os.environ | {"RECONCILER_TEST_KILL_AT": "submit:after:1"}, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    world.store = Store(world.root / "state")
    assert world.state("f/a") == "UPLOADED"
    world.store.close()
    done = program(world, "--once", "--wait", "--timeout", "100")
    assert done.returncode == 0, done.stderr
    world.store = Store(world.root / "state")
    assert (world.state("f/a"), world.job("f/a").attempt.number) == ("COMPLETED", 1)
    assert lines(log) == ["a"]


# D9 - D10: how jobs end -------------------------------------------------------------------------------------


def told(world: World, path: str) -> tuple[dict[str, Any], str]:
    """Return what ``describe job`` tells of a job, as data and as text."""
    text = program(world, "describe", "job", path).stdout
    return json.loads(program(world, "describe", "job", path, "-o", "json").stdout), text


@pytest.mark.usefixtures("warm")
def test_d9_a_job_that_dies_without_a_result(world: World) -> None:
    world.flow(
        "f",
        {"id": "exits", "function": "dies", "args": [9]},
        {"id": "killed", "function": "wait_for", "args": [str(gate(world, "never"))]},
    )
    world.reconcile()
    world.until(lambda: running(world, "f/killed")() and gate(world, "never.runs").exists())
    os.killpg(int(world.job("f/killed").attempt.queue_id or "x"), signal.SIGKILL)
    end_processes_below(Path(str(world.job("f/killed").attempt.run_dir)))
    world.run()
    exits, text = told(world, "f/exits")
    assert exits["state"] == "FAILED"
    assert exits["error"].startswith("last words"), "the tail of its stderr"
    assert exits["error"].endswith("it ended without a result, exit code 9")
    assert "it ended without a result, exit code 9" in text
    killed, _ = told(world, "f/killed")
    assert killed["state"] == "FAILED"
    assert "its process vanished without an exit code: killed, out of memory" in killed["error"]


@pytest.mark.usefixtures("warm")
def test_d10_an_error_of_python_shows_its_traceback(world: World) -> None:
    world.flow("f", {"id": "a", "function": "fails", "args": ["ö went wrong"]})
    world.reconcile()
    world.run()
    facts, text = told(world, "f/a")
    assert (facts["state"], facts["cause"]) == ("FAILED", "exception")
    for line in ("Traceback (most recent call last):", "simple_jobs.py", "ValueError: ö went wrong"):
        assert line in facts["error"]
        assert line in text


def test_every_case_has_a_test() -> None:
    """In this module, by its number."""
    found = {name.split("_")[1] for name in globals() if name.startswith("test_d") and name[6].isdigit()}
    assert found == {f"d{number}" for number in range(1, 11)}
