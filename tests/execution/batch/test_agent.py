"""The agent by itself: what it does when a warm interpreter ends just as jobs are handed to it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.execution.batch import agent


class EndedWarm:
    """A warm interpreter that was ready, and has ended by now; ``key`` is that of its jobs."""

    ready = True
    channel = None

    def __init__(self, key: str) -> None:
        self.key = key

    def ask(self, message: dict[str, Any]) -> bool:
        return False

    def close(self) -> None:
        pass


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """How jobs are started: handed to a new warm interpreter, or by their scripts."""
    ways: dict[str, list[str]] = {"warm": [], "cold": []}

    class NewWarm(EndedWarm):
        def __init__(self, key: str, script: Path) -> None:
            super().__init__(key)

        def ask(self, message: dict[str, Any]) -> bool:
            ways["warm"].append(message["marker"])
            return True

    monkeypatch.setattr(agent, "Warm", NewWarm)
    monkeypatch.setattr(agent.Agent, "start_cold", lambda self, job: ways["cold"].append(job.ticket.marker))
    return ways


def job(marker: str, warm: Any = None) -> agent.Job:
    ticket = SimpleNamespace(
        marker=marker, warm="key", module="m", run_dir=Path(), seconds=None, read_key=lambda: None
    )
    made = agent.Job(ticket)  # type: ignore[arg-type]
    made.warm = warm
    return made


@pytest.mark.parametrize("waiting", [[], ["first"], ["first", "second"]])
def test_a_job_that_meets_an_ended_interpreter_starts_once(
    waiting: list[str], started: dict[str, list[str]]
) -> None:
    one = agent.Agent.__new__(agent.Agent)
    warm: Any = EndedWarm("key")
    one.jobs = {marker: job(marker, warm) for marker in waiting}
    one.jobs["last"] = job("last")
    one.warm, one.broken, one.cold = {"key": warm}, set(), set()
    one.selector = SimpleNamespace(register=lambda *_: None, unregister=lambda *_: None)  # type: ignore[assignment]
    one.start(one.jobs["last"])
    assert sorted(started["warm"] + started["cold"]) == sorted([*waiting, "last"])
