"""Verbs on jobs that really run: the old attempt is gone before the new one begins, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.execution.support import KILLER, World, eventually, lines, processes_below

pytestmark = pytest.mark.timeout(600)
KILLS = [f"write:{moment}:{number}" for number in (1, 2, 3) for moment in ("before", "after")]


class Running:
    """A job that runs in the world of a ``reconcile`` process; verbs are processes of their own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.place = world.root / "place"
        world.flow("f", {"id": "j", "function": "verb_jobs.alone", "args": [str(self.place)]})
        world.repository.commit()
        world.store.close()

    def command(self, *arguments: str) -> list[str]:
        where = ["--repo", str(self.world.repository.path), "--state-dir", str(self.world.root / "state")]
        return [*where, *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "reconciler", *self.command(*arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def call(self, *arguments: str) -> str:
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
        return out.decode()

    def killed(self, at: str, *arguments: str) -> bool:
        """Run the program and kill it at a step; return False if it never came there."""
        try:
            done = subprocess.run(
                [sys.executable, str(KILLER), *self.command(*arguments)],
                env=os.environ | {"RECONCILER_TEST_KILL_AT": at}, stdin=subprocess.DEVNULL,
                capture_output=True, timeout=20,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        assert done.returncode in (0, 1, -signal.SIGKILL), done.stderr.decode()  # 1: the time is over
        return done.returncode == -signal.SIGKILL

    def begun(self, number: int) -> None:
        assert eventually(lambda: len(self.begins()) >= number)

    def begins(self) -> Sequence[str]:
        return lines(self.place / "begun")

    def let_go(self) -> None:
        (self.place / "go").touch()

    def job(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.call("describe", "job", "f/j", "-o", "json"))
        return found


@pytest.fixture
def running(world: World) -> Running:
    return Running(world)


def test_rerun_of_a_running_job_while_a_reconcile_waits_for_it(running: Running) -> None:
    reconcile = running.start("--once", "--wait", "--timeout", "120")
    running.begun(1)
    said = running.call("rerun", "f/j", "--yes")
    assert "cancelled, and once that is done it runs again as attempt 2" in said
    running.begun(2)
    first, second = running.begins()
    assert (second, Path(first).is_dir(), Path(second).is_dir()) == (f"{first}.2", True, True)
    running.let_go()
    out, errors = reconcile.communicate(timeout=120)
    assert reconcile.returncode == 0, out.decode() + errors.decode()
    assert lines(running.place / "done") == [second], (
        "one attempt has ended by itself, and no third one began"
    )
    job = running.job()
    assert (job["state"], job["attempt"], job["run_dir"]) == ("COMPLETED", 2, second)
    assert eventually(lambda: processes_below(running.world.work) == [])
    assert "no changes" in running.call("--once")


def test_cancel_of_a_running_job_stays_cancelled(running: Running) -> None:
    reconcile = running.start("--once", "--wait", "--timeout", "120")
    running.begun(1)
    running.call("cancel", "f/j")
    out, errors = reconcile.communicate(timeout=120)
    assert reconcile.returncode == 0, out.decode() + errors.decode()
    assert eventually(lambda: processes_below(running.world.work) == [])
    running.call("--once", "--wait")
    assert (running.job()["state"], len(running.begins())) == ("USER_STOPPED", 1)


def test_killed_at_every_write_of_a_rerun(running: Running) -> None:
    running.call("--once")
    running.begun(1)
    assert running.killed("write:before:1", "rerun", "f/j")
    assert running.job()["state"] == "RUNNING"
    assert [event["type"] for event in _events(running) if event["by"]] == []
    assert running.killed("write:after:1", "rerun", "f/j")
    assert [event["type"] for event in _events(running) if event["by"]] == ["Rerun"]
    kills = sum(running.killed(step, "--once", "--wait", "--timeout", "2") for step in KILLS)
    assert kills >= 4, kills
    reconcile = running.start("--once", "--wait", "--timeout", "120")
    running.begun(2)
    time.sleep(0.3)
    running.let_go()
    out, errors = reconcile.communicate(timeout=150)
    assert reconcile.returncode == 0, out.decode() + errors.decode()
    assert len(lines(running.place / "done")) == 1
    assert len(running.begins()) == 2, "the second attempt began once, however often who started it died"
    job = running.job()
    assert (job["state"], job["run_dir"]) == ("COMPLETED", lines(running.place / "done")[0])


def _events(running: Running) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(running.call("events", "--for", "job/f/j", "-o", "json"))
    return found
