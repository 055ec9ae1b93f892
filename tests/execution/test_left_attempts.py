"""An attempt that was given up although it may still run: no second copy starts beside it, anywhere.

Queues that tell an untruth are made by changing what is read of them; scripts, claims and processes are real.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.fsck.examine import examine
from reconciler.actual.store import is_settled, unchanged_outcome
from reconciler.actual.writer import Writer
from reconciler.execution import collect
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.queues.shell import ShellQueue
from reconciler.execution.worker import submit, termination
from reconciler.execution.worker.submit import SubmitResult
from reconciler.jobs.operations import OperationRunner
from reconciler.loop import Session, reconcile_once
from reconciler.model.operations import JobOperation
from reconciler.model.records import JobRecord
from reconciler.plan.operations import OperationPlanner
from tests.execution.support import (
    Listener,
    World,
    end_processes_below,
    eventually,
    gate,
    lines,
    processes_below,
    running,
)

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def two(make_world: Callable[..., World]) -> Iterator[World]:
    """A world with the workers ``a`` and ``b`` and a job on ``a`` that logs when it begins and ends."""
    world = make_world(defaults="worker: b")
    for name in "ab":
        place(world, name)
    yield world
    gate(world, "door").touch()
    end_processes_below(world.root)


def place(world: World, name: str, **spec: Any) -> None:
    fields = {"type": "local", "scheduler_type": "shell", "work_dir": str(world.work / name)}
    world.put("Worker", name, fields | spec)


def job(world: World, worker: str = "a", **spec: Any) -> None:
    arguments = [str(world.root / "log"), "j", str(gate(world, "door"))]
    world.flow("f", {"id": "j", "function": "log_and_wait", "args": arguments}, worker=worker, **spec)


def ran(world: World) -> int:
    """How many copies of the job have begun."""
    return len(lines(world.root / "log"))


def operate(world: World, operation: JobOperation) -> None:
    def change(writer: Writer) -> None:
        plan = OperationPlanner(writer, ["a", "b"]).plan(operation, [world.job("f/j")])
        assert plan.steps, plan.refusals
        OperationRunner(writer, plan, "me", "typed", time.time()).carry_out()

    world.store.write(change)


def alive(world: World, worker: str) -> bool:
    """Whether anything of the job runs in the directory of a worker."""
    return bool(processes_below(world.work / worker))


# how an attempt comes to be left --------------------------------------------------------------------------


def lose(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the job run on ``a`` and be taken for lost: nothing lists it, and it gives no sign of life."""
    job(world)
    world.reconcile()
    world.until(lambda: running(world, "f/j")() and ran(world) == 1)
    with monkeypatch.context() as untrue:
        untrue.setattr(ShellQueue, "lost_after", 0.0)
        untrue.setattr(ShellQueue, "listing", lambda *_args: {})
        untrue.setattr(termination, "GONE_AFTER", 0.0)
        untrue.setattr(collect, "_RETRY_AFTER", 0.2)
        process = Path(world.job("f/j").attempt.run_dir or "") / "claim/process"
        process.write_text(f"another-machine {process.read_text().partition(' ')[2]}")
        for minute in range(100):  # its polls are far apart
            world.advance(time.time() + 60 * minute)
            if world.state("f/j") == "FAILED":
                break
    assert world.job("f/j").cause == "lost" and [one.worker for one in world.job("f/j").left] == ["a"]


def refuse(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the job be submitted on ``a`` although the answer says that it is not accepted now."""
    job(world)
    world.reconcile()
    with monkeypatch.context() as untrue:

        def busy(jobs: list[JobRecord], *_args: Any) -> SubmitResult:
            return SubmitResult({}, {}, {}, {one.id: "try again later" for one in jobs})

        untrue.setattr(submit, "read_submissions", busy)
        while world.advance():
            pass
    assert eventually(lambda: ran(world) == 1)
    assert (world.state("f/j"), [one.worker for one in world.job("f/j").left]) == ("READY", ["a"])


def move(world: World) -> None:
    job(world, "b")


def move_and_remove(world: World) -> None:
    job(world, "b")
    world.repository.remove("workers/a.yaml")


def move_the_work_dir(world: World) -> None:
    place(world, "a", work_dir=str(world.work / "other"))


@pytest.mark.parametrize("change", [move, move_and_remove, move_the_work_dir])
@pytest.mark.parametrize("leave", [lose, refuse])
def test_the_next_attempt_starts_when_the_former_one_has_ended(
    two: World,
    monkeypatch: pytest.MonkeyPatch,
    leave: Callable[[World, pytest.MonkeyPatch], None],
    change: Callable[[World], None],
) -> None:
    leave(two, monkeypatch)
    first = two.work / "a"
    change(two)
    two.reconcile()
    if two.state("f/j") == "FAILED":
        operate(two, JobOperation.RETRY)
    assert alive(two, "a")
    beside = []

    def second_copy() -> bool:
        if ran(two) == 2:
            beside.append(alive(two, "a"))
        return ran(two) == 2

    two.until(second_copy)
    assert beside == [False], f"a copy runs in {first} still"
    assert two.job("f/j").left == []
    assert any("cannot run any more" in said for said in two.events("f/j"))
    gate(two, "door").touch()
    two.run()
    assert (two.state("f/j"), ran(two)) == ("COMPLETED", 2)
    assert two.view(lambda view: examine(view).problems) == []


def test_a_worker_without_answer_is_waited_for_until_it_is_abandoned(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(two, monkeypatch)
    hidden = two.work / "a.away"
    (two.work / "a").rename(hidden)
    move(two)
    two.reconcile()
    operate(two, JobOperation.RETRY)
    two.until(lambda: "No such file" in (two.job("f/j").attempt.waiting or ""))
    for _ in range(5):
        two.advance()
    waiting = two.job("f/j").attempt.waiting or ""
    assert two.state("f/j") == "READY" and ran(two) == 1
    assert "No such file" in waiting and "`reconcile abandon f/j`" in waiting
    operate(two, JobOperation.ABANDON)
    two.until(lambda: ran(two) == 2)
    assert two.job("f/j").attempt.worker == "b"
    end_processes_below(hidden)


def test_a_worker_that_answers_again_is_asked_first(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(two, monkeypatch)
    (two.work / "a").rename(two.work / "away")
    move(two)
    two.reconcile()
    two.until(lambda: "No such file" in (two.job("f/j").attempt.waiting or ""))
    (two.work / "away").rename(two.work / "a")
    two.until(lambda: ran(two) == 2)
    assert not alive(two, "a")


def test_an_attempt_that_is_not_accepted_and_stays_is_the_same_attempt(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(two, monkeypatch)
    two.restart()
    two.until(running(two, "f/j"))
    assert any("that attempt counts" in said for said in two.events("f/j"))
    gate(two, "door").touch()
    two.run()
    assert (two.state("f/j"), two.job("f/j").attempt.number, ran(two)) == ("COMPLETED", 1, 1)


def test_a_job_that_was_not_accepted_and_is_cancelled_does_not_run_later(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(two, monkeypatch)
    operate(two, JobOperation.CANCEL)
    two.until(lambda: not two.job("f/j").left)
    assert two.state("f/j") == "USER_STOPPED" and not alive(two, "a")


# another host under the same name -------------------------------------------------------------------------


def another_machine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give ``a`` a machine that has its work_dir, and nothing of the job."""
    monkeypatch.setattr(LocalHost, "name", "new.example.org")
    (world.work / "a").rename(world.root / "old")
    for folder in (".outbox", ".launchers", ".code", ".documents", ".staging"):
        (world.work / "a" / folder).mkdir(parents=True)


@pytest.fixture
def moved(two: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The job runs on ``a``, whose host is another machine now: nothing of the job is there."""
    job(two, retries={"limit": 3, "on": ["lost", "killed"], "backoff": "0s"})
    two.reconcile()
    two.until(lambda: running(two, "f/j")() and ran(two) == 1)
    monkeypatch.setattr(ShellQueue, "lost_after", 0.0)
    monkeypatch.setattr(ShellQueue, "listing", lambda *_args: {})
    another_machine(two, monkeypatch)
    two.restart()
    return two


def test_a_job_on_the_former_host_of_its_worker_is_not_lost(moved: World) -> None:
    moved.until(lambda: moved.job("f/j").attempt.stuck)
    assert moved.state("f/j") == "RUNNING"
    stuck = moved.job("f/j").attempt.stuck or ""
    assert "localhost" in stuck and "`reconcile abandon f/j`" in stuck


def test_it_is_not_run_again_when_it_is_cancelled_either(moved: World) -> None:
    operate(moved, JobOperation.RERUN)
    moved.until(lambda: moved.job("f/j").attempt.stuck)
    assert (moved.state("f/j"), ran(moved)) == ("RUNNING", 1)


def test_abandoned_it_is_retried_on_the_new_host(moved: World) -> None:
    moved.until(lambda: moved.job("f/j").attempt.stuck)
    operate(moved, JobOperation.ABANDON)
    moved.until(lambda: ran(moved) == 2)
    assert moved.job("f/j").attempt.host == "new.example.org"
    assert moved.job("f/j").retry.causes == ["lost"]


def test_a_lost_attempt_on_the_former_host_holds_the_retry_up(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(two, monkeypatch)
    another_machine(two, monkeypatch)
    two.restart()
    operate(two, JobOperation.RETRY)
    two.until(lambda: "on localhost may still run" in (two.job("f/j").attempt.waiting or ""))
    for _ in range(5):
        two.advance(time.time() + 60)
    assert (two.state("f/j"), ran(two)) == ("READY", 1)


# late results ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", ["until", "once"])
def test_a_late_result_is_noticed_although_nothing_else_is_active(
    two: World, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    lose(two, monkeypatch)
    gate(two, "door").touch()
    if look == "until":
        two.until(lambda: two.state("f/j") == "COMPLETED")
    else:
        assert eventually(lambda: any((two.work / "a/.outbox").iterdir()))

        def completed() -> bool:
            reconcile_once(Session(two.source, two.store), Listener())
            return two.state("f/j") == "COMPLETED"

        assert eventually(completed)
        session = Session(two.source, two.store)
        reconcile_once(session, Listener())
        outcome = unchanged_outcome(two.store, session.revision, time.time())
        assert outcome is not None and is_settled(outcome, wait=False)
    assert (ran(two), two.job("f/j").left) == (1, [])


def test_what_is_not_owed_is_not_looked_for(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(two, monkeypatch)
    assert two.executor is not None
    runner = next(one for one in two.executor.runners if one.name == "a")
    now = time.time()
    assert runner.due(now) is not None
    assert runner.due(now + 8 * 86400) is None
    before = runner.access.commands
    assert not runner.advance(now + 8 * 86400)
    assert runner.access.commands == before
