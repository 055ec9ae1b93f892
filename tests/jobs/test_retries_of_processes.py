"""Automatic retries of real processes: a passing failure, a death for good, a reconciler that is killed."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.store import Store, unchanged_outcome
from reconciler.loop import Session, reconcile_once
from reconciler.model.health import flow_status
from reconciler.model.records import RetryStatus
from reconciler.model.states import Health
from tests.execution.support import Listener, World, gate, lines, reconcile_killed_at, running

pytestmark = pytest.mark.usefixtures("warm")

AT_ONCE = {"limit": 2, "on": ["exception", "killed", "lost"], "backoff": "0s"}


def unlucky(world: World, times: int, *, key: str = "j", after: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Return a job that fails so many times before it completes."""
    return {"id": key, "function": "fails_at_first", "args": [str(world.root / "log"), key, times, *after]}


def test_an_exception_that_passes(world: World) -> None:
    last = {"id": "k", "function": "give", "args": [{"$output": "j"}]}
    world.flow("f", unlucky(world, 2), last, retries=AT_ONCE)
    world.reconcile()
    world.run()
    job = world.job("f/j")
    assert world.states("f/j", "f/k") == ["COMPLETED", "COMPLETED"]
    assert (job.attempt.number, job.retry.causes, job.error) == (3, ["exception"] * 2, None)
    assert world.output("f/k") == 3
    directories = [Path(f"{(job.attempt.run_dir or '').removesuffix('.3')}{end}") for end in ("", ".2", ".3")]
    assert all((directory / "claim" / "result.json").exists() for directory in directories)
    assert Path(job.attempt.run_dir or "") == directories[-1]


def test_a_death_for_good(world: World) -> None:
    world.flow("f", {"id": "j", "function": "dies", "args": [9]}, retries=AT_ONCE)
    world.reconcile()
    world.run()
    job = world.job("f/j")
    assert (job.state.value, job.attempt.number, job.retry.causes) == ("FAILED", 3, ["killed"] * 2)
    assert job.cause == "killed"


def test_a_process_that_vanishes(world: World) -> None:
    """Killed without a chance to say anything: nobody knows why, and it runs again."""
    door = gate(world, "g")
    work = {"id": "j", "function": "wait_for", "args": [str(door)]}
    world.flow("f", work, retries=AT_ONCE)
    world.reconcile()
    world.until(lambda: running(world, "f/j")() and gate(world, "g.runs").exists())
    os.killpg(int(world.job("f/j").attempt.queue_id or 0), signal.SIGKILL)
    world.until(lambda: world.job("f/j").attempt.number == 2)
    door.touch()
    world.run()
    job = world.job("f/j")
    assert (job.state.value, len(job.retry.causes)) == ("COMPLETED", 1)


def test_a_rule_gives_retries_and_a_commit_takes_them(world: World) -> None:
    world.flow("f", unlucky(world, 9))
    world.put("OverrideRule", "again", {"flows": ["f"], "set": {"retries": AT_ONCE | {"backoff": "1h"}}})
    world.reconcile()
    world.until(lambda: world.job("f/j").retry.at is not None)
    status = world.view(lambda view: flow_status(view.flow("f"), view.summary("f")))
    assert status.health is Health.PROGRESSING
    world.put("OverrideRule", "again", {"flows": ["f"], "set": {"retries": {"limit": 0}}})
    world.reconcile()
    job = world.job("f/j")
    assert (job.state.value, job.retry.at, job.attempt.number) == ("FAILED", None, 1)
    assert world.is_idle()


def test_a_retry_of_an_orphaned_flow_waits_until_its_removed_worker_returns(world: World) -> None:
    worker = {"type": "local", "scheduler_type": "shell", "work_dir": str(world.work / "w2")}
    world.put("Worker", "w2", worker)
    world.flow("f", unlucky(world, 1), retries=AT_ONCE | {"backoff": "1h"}, worker="w2", prune="orphan")
    world.flow("g", {"id": "k", "function": "give", "args": [1]})
    world.reconcile()
    world.until(lambda: world.job("f/j").retry.at is not None)
    world.repository.remove("flows/f.yaml")
    world.repository.remove("workers/w2.yaml")
    world.reconcile()
    world.edit("f/j", retry=RetryStatus(at=time.time(), causes=world.job("f/j").retry.causes))
    while world.advance():
        pass
    job = world.job("f/j")
    assert (job.state.value, job.attempt.number) == ("READY", 1), "no job starts on a removed worker"
    world.put("Worker", "w2", worker)
    world.reconcile()
    world.run()
    job = world.job("f/j")
    assert (job.state.value, job.attempt.number, job.attempt.worker) == ("COMPLETED", 2, "w2")


# passes that find nothing else to do ------------------------------------------------------------------


def test_a_pass_does_not_sleep_through_a_retry_that_is_due(world: World) -> None:
    world.flow("f", unlucky(world, 1), retries=AT_ONCE | {"backoff": "1h"})
    world.reconcile()
    world.until(lambda: world.job("f/j").retry.at is not None)
    session = Session(world.source, world.store)
    assert not reconcile_once(session, Listener()).timed_out
    due = world.job("f/j").retry.at or 0.0
    before = unchanged_outcome(world.store, session.revision, due - 1)
    after = unchanged_outcome(world.store, session.revision, due + 0.01)
    assert before is not None and (before.idle, before.retry_at) == (True, int(due * 1000) / 1000)
    assert after is not None and not after.idle
    assert reconcile_once(session, Listener()).plan is None
    assert world.job("f/j").attempt.number == 1, "not before its time"
    world.edit("f/j", retry=RetryStatus(at=time.time(), causes=world.job("f/j").retry.causes))
    assert reconcile_once(Session(world.source, world.store), Listener(), wait=120).outcome.degraded == []
    assert (world.state("f/j"), world.job("f/j").attempt.number) == ("COMPLETED", 2)


def test_wait_waits_for_retries_even_if_nothing_runs(world: World) -> None:
    world.flow("f", unlucky(world, 1), retries=AT_ONCE | {"backoff": "2s"})
    world.reconcile()
    world.until(lambda: world.job("f/j").retry.at is not None)
    reconcile_once(Session(world.source, world.store), Listener())
    listener = Listener()
    assert reconcile_once(Session(world.source, world.store), listener, wait=120).plan is None
    assert world.state("f/j") == "COMPLETED"
    assert [line.partition("; it is retried in ")[0] for line in listener.said] == ["f/j failed (exception)"]


def test_retries_that_python_code_gives(world: World) -> None:
    """As jobs of jobflow-remote have their run config: in ``manager_config``."""
    log = str(world.root / "log")
    world.factory("f", "simple_jobs.one_retried", "fails_at_first", [log, "j", 1], AT_ONCE)
    world.reconcile()
    world.run()
    (job,) = world.jobs().values()
    assert (job.state.value, job.attempt.number) == ("COMPLETED", 2)
    assert job.config.retries is not None
    assert job.config.retries.origin.level == "job"


# kill -9 ----------------------------------------------------------------------------------------------

MOMENTS = [f"write:{moment}:{number}" for number, moment in product(range(1, 6), ("before", "after"))]


@pytest.mark.timeout(600)
def test_killed_at_every_record_around_a_retry(make_world: Callable[..., World]) -> None:
    """Every life of the reconciler ends at one of its first records; no attempt is lost or made twice."""
    world = make_world()
    count = 4
    jobs = [
        unlucky(world, 2, key=f"j{number}", after=({"$output": f"j{number - 1}"},) if number else ())
        for number in range(count)
    ]
    world.flow("f", *jobs, retries=AT_ONCE)
    world.repository.commit()
    world.store.close()
    ends: Counter[int] = Counter()
    for moment in MOMENTS * 2:
        ends[reconcile_killed_at(world, moment)] += 1
    assert reconcile_killed_at(world, "write:before:100000") == 0
    world.store = Store(world.root / "state")
    found = world.jobs().values()
    assert {(job.state.value, job.attempt.number, len(job.retry.causes)) for job in found} == {
        ("COMPLETED", 3, 2)
    }
    assert Counter(lines(world.root / "log")) == {f"j{number}": 3 for number in range(count)}
    assert ends[-signal.SIGKILL] >= 10, ends
