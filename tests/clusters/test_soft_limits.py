"""The soft limits of Grid Engine end a job by a signal, and are told apart from other ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.execution.support import World, end_processes_below
from tests.services.gridengine import GridEngine


@pytest.fixture
def world(tmp_path: Path, sge: GridEngine, warm: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name, value in sge.env.items():
        monkeypatch.setenv(name, value, prepend=os.pathsep if name == "PATH" else None)
    made = World(tmp_path / "world", defaults="worker: sge")
    worker: Callable[..., str] = made.worker
    made.repository.write("workers/sge.yaml", worker("sge", scheduler_type="sge", python=sys.executable))
    yield made
    made.close()
    end_processes_below(made.work)


LIMITS: dict[str, dict[str, Any]] = {
    "generic": {"qresources": {"time_limit": 8, "processes": 1, "scheduler_kwargs": {"model": "smp"}}},
    "soft only": {"resources": {"qverbatim": "#$ -l s_rt=4"}},
    "both": {"resources": {"qverbatim": "#$ -l h_rt=30,s_rt=4"}},
    "hard only": {"resources": {"walltime": "4"}},
}


@pytest.mark.parametrize("asked", LIMITS.values(), ids=LIMITS)
def test_a_time_limit_is_the_cause(world: World, asked: dict[str, Any]) -> None:
    gate = str(world.root / "never")
    retries = {"limit": 1, "on": ["walltime"], "backoff": "1h"}
    world.flow("f", {"id": "j", "function": "wait_for", "args": [gate], "retries": retries, **asked})
    world.reconcile()
    world.until(lambda: world.state("f/j") == "FAILED", timeout=200)
    job = world.job("f/j")
    assert (job.cause, job.retry.causes) == ("walltime", ["walltime"]), job.error
    assert "exit code 0" not in (job.error or "")
