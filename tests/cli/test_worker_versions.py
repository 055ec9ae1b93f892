"""Python and jobflow of workers, and events about workers, where people look for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.execution.collect import note_versions
from reconciler.jobs.job_json import JobResult
from tests.cli.conftest import Ended
from tests.execution.support import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A worker with an old jobflow, and one that was never used."""
    world = World(tmp_path / "world")
    world.repository.write("workers/workers.yaml", world.worker("w1", max_jobs=4) + world.worker("w2"))
    world.reconcile()
    result = JobResult(ok=True, started=1, ended=2, python="3.9.18", jobflow="0.0.7")
    world.store.write(lambda writer: note_versions(writer, "w1", result, 7.0))
    yield world
    world.close()


@pytest.fixture
def reconcile(
    world: World, program: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    monkeypatch.chdir(world.repository.path)
    return lambda *arguments: program(*arguments, "--state-dir", str(world.root / "state"))


def test_get_workers(reconcile: Callable[..., Ended]) -> None:
    header, w1, w2 = reconcile("get", "workers", "-o", "wide").stdout.splitlines()
    at = header.index("PYTHON")
    assert header[at:].split()[:2] == ["PYTHON", "JOBFLOW"]
    assert w1[at:].split()[:2] == ["3.9.18", "0.0.7"]
    assert w2[at:].split()[:2] == ["-", "-"]
    first, second = json.loads(reconcile("get", "workers", "-o", "json").stdout)
    assert (first["python"], first["jobflow"]) == ("3.9.18", "0.0.7")
    assert (second["python"], second["jobflow"]) == (None, None)


def test_describe_worker(reconcile: Callable[..., Ended]) -> None:
    text = reconcile("describe", "worker", "w1").stdout
    assert "3.9.18" in text
    assert "has jobflow 0.0.7, this machine " in text


def test_events(reconcile: Callable[..., Ended]) -> None:
    done = reconcile("events", "--for", "worker/w1")
    assert "worker/w1" in done.stdout
    assert "has jobflow 0.0.7" in done.stdout
    assert reconcile("events", "--for", "worker/w2") == (0, "", "")


def test_events_of_an_unknown_worker(reconcile: Callable[..., Ended]) -> None:
    done = reconcile("events", "--for", "worker/w3")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == "error: there is no worker 'w3'\n  help: known: w1, w2\n"
