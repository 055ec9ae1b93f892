"""READY jobs do not start on a worker that the revision has removed or made invalid; running ones go on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from reconciler.loop import Session
from tests.execution.support import Listener, World, gate, lines

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def full(world: World) -> World:
    """``w2`` runs a job, and has another one that is READY."""
    world.put("Worker", "w2", spec(world))
    log = str(world.root / "log")
    running = {"id": "running", "function": "log_and_wait", "args": [log, "running", str(gate(world, "go"))]}
    ready = {"id": "ready", "function": "log_line", "args": [log, "ready"]}
    world.flow("f", running | {"priority": 9}, ready, worker="w2")
    world.reconcile()
    world.until(lambda: lines(world.root / "log") == ["running"] and world.state("f/ready") == "READY")
    return world


def spec(world: World, **fields: Any) -> dict[str, Any]:
    work = str(world.work / "w2")
    return {"type": "local", "scheduler_type": "shell", "work_dir": work, "max_jobs": 1} | fields


def apply(world: World) -> Session:
    """Apply a revision with errors."""
    world.repository.commit()
    session = Session(world.source, world.store, hosts=world.hosts)
    session.reconcile(Listener(), allow_prune=True)
    world.executor = session.executor()
    return session


def finish_running(world: World) -> None:
    gate(world, "go").touch()
    world.until(lambda: world.state("f/running") == "COMPLETED")
    for later in (0, 5, 60):
        world.advance(time.time() + later)
    assert (world.state("f/ready"), lines(world.root / "log")) == ("READY", ["running"])
    assert world.view(lambda view: view.is_idle())
    assert world.executor is not None
    assert [runner.due(time.time()) for runner in world.executor.runners if runner.name == "w2"] == [None]


def test_an_invalid_worker(full: World) -> None:
    full.put("Worker", "w2", spec(full, max_job=1))
    apply(full)
    assert full.executor is not None
    full.advance()
    finish_running(full)
    (warning,) = full.executor.warnings()
    assert warning.startswith("worker w2: Worker 'w2' is invalid in main@")
    assert full.executor.warnings() == []
    full.put("Worker", "w2", spec(full))
    full.reconcile()
    full.run()
    assert lines(full.root / "log") == ["running", "ready"]


def test_a_removed_worker(full: World) -> None:
    full.repository.remove("workers/w2.yaml")
    apply(full)
    finish_running(full)
    assert full.executor is not None
    (warning,) = full.executor.warnings()
    assert warning == "worker w2: Worker 'w2' was removed from git, so no further jobs start there"
    full.put("Worker", "w2", spec(full))
    full.reconcile()
    full.run()
    assert lines(full.root / "log") == ["running", "ready"]


def test_a_retry_of_a_running_job_waits_too(world: World) -> None:
    world.put("Worker", "w2", spec(world))
    job = {"id": "j", "function": "fails_at_first", "args": [str(world.root / "log"), "x", 1]}
    world.flow("f", job, worker="w2", retries={"limit": 1, "on": ["exception"], "backoff": "2s"})
    world.reconcile()
    world.until(lambda: world.state("f/j") == "FAILED")
    world.repository.remove("workers/w2.yaml")
    apply(world)
    for later in (3, 60):
        world.advance(time.time() + later)
    assert (world.state("f/j"), lines(world.root / "log")) == ("READY", ["x"])


def test_other_workers_go_on(full: World) -> None:
    full.put("Worker", "w2", spec(full, max_job=1))
    full.flow("g", {"id": "j", "function": "give", "args": [1]}, worker="w1")
    apply(full)
    full.until(lambda: full.state("g/j") == "COMPLETED")
    finish_running(full)
