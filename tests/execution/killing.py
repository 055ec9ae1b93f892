"""``reconcile --once --wait`` as a process that is killed, at a named step or after some time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import product
from pathlib import Path

from reconciler.actual.store import Store
from tests.execution.support import World, processes_below

KILLER = Path(__file__).with_name("killer.py")
NAMED = [
    f"{step}:{moment}:{number}"
    for step in ("write", "upload", "submit", "collect", "poll")
    for moment, number in product(("before", "after"), (1, 2))
]
"""Steps at which :mod:`tests.execution.killer` can end the program."""


def run_with_kills(world: World, seed: int, most: int = 200) -> Counter[str]:
    """Run until all is done, killed at every step and at random instants; return how often each way.

    After ``most`` kills it may end in peace. The world's store must be closed.
    """
    dice = random.Random(seed)
    named = dice.sample(NAMED, len(NAMED))
    kills: Counter[str] = Counter()
    for number in range(most):
        moment = named.pop() if named and number % 2 else None
        if not killed_after(start(world, moment), 60.0 if moment else dice.uniform(0.1, 0.6)):
            break
        kills["named" if moment else "random"] += 1
    assert not killed_after(start(world), 310)
    return kills


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


def reopened(world: World) -> World:
    """Open the store of a world again, after the programs that used it have ended."""
    world.store = Store(world.root / "state")
    return world


def nothing_runs_below(world: World) -> bool:
    """Whether all processes that work for a world end soon."""
    deadline = time.monotonic() + 5
    while processes_below(world.root) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes_below(world.root)
