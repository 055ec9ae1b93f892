"""``kill -9`` at any instant loses nothing and runs nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from reconciler.actual.fsck.examine import examine
from reconciler.actual.store import Store
from tests.execution.support import World, eventually, lines, processes_below

KILLER = Path(__file__).with_name("killer.py")
CHAINS, LENGTH = 1, 12
NAMED = [
    f"{step}:{moment}:{number}"
    for step in ("write", "upload", "submit", "collect", "poll")
    for moment, number in product(("before", "after"), (1, 2))
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    for chain in range(CHAINS):
        jobs = []
        for step in range(LENGTH):
            after = [{"$output": f"j{step - 1}"}] if step else []
            args = [str(tmp_path / "log"), f"{chain}.{step:02}", *after]
            jobs.append({"id": f"j{step}", "function": "log_line", "args": args})
        world.flow(f"chain{chain}", *jobs)
    world.repository.commit()
    world.close()
    return world


def start(world: World, kill_at: str | None = None) -> subprocess.Popen[bytes]:
    """Start ``reconcile --once --wait``; with ``kill_at`` it ends itself there."""
    program = ["-m", "reconciler"] if kill_at is None else [str(KILLER)]
    arguments = ["--repo", str(world.repository.path), "--state-dir", str(world.root / "state"), "-q"]
    return subprocess.Popen(
        [sys.executable, *program, *arguments, "--once", "--wait", "--timeout", "300"],
        env=os.environ | ({"RECONCILER_TEST_KILL_AT": kill_at} if kill_at else {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def killed_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Kill a process after some time unless it has ended before; return whether a kill ended it."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode == -signal.SIGKILL


@pytest.mark.timeout(900)
def test_killed_at_every_step_and_at_random(world: World) -> None:
    dice = random.Random(20240229)
    named = dice.sample(NAMED, len(NAMED))
    kills: Counter[str] = Counter()
    for number in range(200):
        moment = named.pop() if named and number % 2 else None
        if not killed_after(start(world, moment), 60.0 if moment else dice.uniform(0.1, 0.6)):
            break
        kills["named" if moment else "random"] += 1
    assert not killed_after(start(world), 310)
    _check(world)
    assert kills.total() >= 25, kills
    assert min(kills["named"], kills["random"]) >= 8, kills


def _check(world: World) -> None:
    world = _reopened(world)
    expected = [f"{chain}.{step:02}" for chain in range(CHAINS) for step in range(LENGTH)]
    assert sorted(lines(world.root / "log")) == expected
    assert {job.state.value for job in world.jobs().values()} == {"COMPLETED"}
    assert len(world.jobs()) == CHAINS * LENGTH
    assert world.view(lambda view: examine(view).problems) == []
    world.close()
    assert eventually(lambda: processes_below(world.root) == [])


def _reopened(world: World) -> World:
    world.store = Store(world.root / "state")
    return world
