"""What jobs report of the Python and the jobflow of their worker: remembered, and a difference told once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from reconciler.actual.store import Store
from reconciler.execution.collect import note_versions
from reconciler.jobs.job_json import JobResult
from reconciler.model.records import WorkerStatus
from tests.execution.support import World

HERE = version("jobflow")
TEXT = (
    f"has jobflow 0.0.7, this machine {HERE}: flows are built by the one and run by the other; install the "
    "same on both"
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state")
    yield store
    store.close()


def note(store: Store, jobflow: str, python: str = "3.12.1", worker: str = "w1") -> str | None:
    result = JobResult(ok=True, started=1, ended=2, python=python, jobflow=jobflow)
    return store.write(lambda writer: note_versions(writer, worker, result, 7.0))


def status(store: Store, worker: str = "w1") -> WorkerStatus | None:
    with store.read() as view:
        return view.worker_status(worker)


def told(store: Store) -> list[str]:
    with store.read() as view:
        return [f"{event.about} {event.message}" for event in view.events()]


def test_the_same_minor_version_is_no_news(store: Store) -> None:
    assert note(store, f"{'.'.join(HERE.split('.')[:2])}.99") is None
    assert told(store) == []


def test_another_version_is_told_once_for_each_worker(store: Store) -> None:
    assert note(store, "0.0.7") == f"worker w1: {TEXT}"
    assert note(store, "0.0.7") is None
    assert note(store, "0.0.7", python="3.13.0") is None
    assert note(store, "0.0.7", worker="w2") == f"worker w2: {TEXT}"
    assert told(store) == [f"worker/w1 {TEXT}", f"worker/w2 {TEXT}"]


def test_two_versions_in_turns_are_told_once_each(store: Store) -> None:
    """The modules of an exec_config may bring another Python along."""
    warnings = [note(store, jobflow) for jobflow in ("0.0.7", HERE, "0.0.7", "0.0.8", "0.0.7", "0.0.8")]
    assert [warning is not None for warning in warnings] == [True, False, False, True, False, False]
    assert len(told(store)) == 2


def test_only_news_are_written_and_the_rest_of_the_status_stays(store: Store) -> None:
    unreachable = WorkerStatus(reachable=False, reason="away", failures=3, next_try=9.0)
    store.write(lambda writer: writer.put_worker_status("w1", unreachable))
    note(store, HERE)
    first = status(store)
    assert first is not None
    assert (first.python, first.jobflow) == ("3.12.1", HERE)
    assert (first.reachable, first.reason, first.failures, first.next_try) == (False, "away", 3, 9.0)
    store.write(lambda writer: writer.put_worker_status("w1", WorkerStatus(reachable=True, jobflow=HERE)))
    note(store, "")  # a job that could not import jobflow says nothing of it
    assert status(store) == WorkerStatus(reachable=True, jobflow=HERE)


def test_jobs_bring_the_versions_and_the_executor_passes_the_warning_on(world: World) -> None:
    """With a jobflow on the worker that says that it is another version."""
    python = world.root / "old-python"
    lie = "import sys, runpy, jobflow; jobflow.__version__ = '0.0.7'"
    run = "runpy.run_path(sys.argv[1], run_name='__main__')"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{lie}; {run}" "$@"\n')
    python.chmod(0o755)
    world.repository.write("workers/workers.yaml", world.worker("w1", python=str(python)))
    world.flow(
        "f", {"id": "a", "function": "give", "args": [1]}, {"id": "b", "function": "fails", "args": ["x"]}
    )
    world.reconcile()
    world.run()
    assert world.executor is not None
    assert world.executor.warnings() == [f"worker w1: {TEXT}"]
    assert world.executor.warnings() == []
    found = world.view(lambda view: view.worker_status("w1"))
    assert (found.python, found.jobflow) == (sys.version.split()[0], "0.0.7")
    assert (found.reachable, found.last_seen is not None) == (True, True)
    world.flow("g", {"id": "c", "function": "fails", "args": ["x"]})
    world.reconcile()
    world.run()
    assert world.executor.warnings() == []


@pytest.mark.usefixtures("warm")
def test_an_outage_keeps_the_versions(world: World) -> None:
    world.flow("f", {"id": "a", "function": "give", "args": [1]})
    world.reconcile()
    world.run()
    (world.work / "w1").rename(world.root / "moved")
    (world.work / "w1").write_text("a file in the way")
    world.flow("g", {"id": "a", "function": "give", "args": [2]})
    world.reconcile()
    world.advance(time.time() + 1)
    found = world.view(lambda view: view.worker_status("w1"))
    assert (found.reachable, found.jobflow) == (False, HERE)
    (world.work / "w1").unlink()
