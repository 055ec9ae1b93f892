"""``kill -9`` of the program, of agents, of warm interpreters and of whole allocations: every job once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from reconciler.actual.fsck.examine import examine
from tests.execution.batch.support import BatchWorld
from tests.execution.killing import NAMED, killed_after, reopened, start
from tests.execution.support import end_processes_below

pytestmark = pytest.mark.timeout(900)

JOBS, KILLS = 18, 4
"""Every third job waits until the killing is over, so that there is always something to kill."""

VICTIMS = (r"agent-\w+\.py", r"warm-\w+\.py", r"submit\.sh reconciler:a\w+$")


@pytest.fixture
def world(tmp_path: Path) -> BatchWorld:
    world = BatchWorld(tmp_path, parallel_jobs=3, max_wait=1)
    jobs = []
    for number in range(JOBS):
        name = f"j{number:02}"
        if number % 3:
            jobs.append({"id": name, "function": "log_line", "args": [str(world.log), name]})
        else:
            args = [str(world.log), name, str(world.root / "over")]
            jobs.append({"id": name, "function": "log_and_wait", "args": args})
    world.flow("f", *jobs)
    world.repository.commit()
    world.close()
    return world


def test_every_job_begins_once(world: BatchWorld) -> None:
    dice = random.Random(20261130)
    kills: Counter[str] = Counter()
    named = dice.sample(NAMED, len(NAMED))
    while kills["others"] < KILLS:
        program = start(world, named.pop() if named and kills["program"] % 2 else None)
        victims: list[int] = []
        deadline = time.monotonic() + 60
        while program.poll() is None and not victims and time.monotonic() < deadline:
            time.sleep(dice.uniform(0.1, 0.5))
            victims = [pid for pattern in VICTIMS for pid in world.pids(pattern)[:1]]
        assert killed_after(program, 0)
        kills["program"] += 1
        for victim in dice.sample(victims, min(1, len(victims))):
            with contextlib.suppress(ProcessLookupError):
                kill = os.killpg if dice.random() < 0.3 else os.kill
                kill(victim, signal.SIGKILL)
                kills["others"] += 1
    world.open("over")
    try:
        program = start(world)
        _, errors = program.communicate(timeout=310)
        assert program.returncode in (0, 1), errors.decode()  # 1: a job that was killed has failed
    finally:
        end_processes_below(world.work)
    reopened(world)
    try:
        states = {path[-3:]: (job.state.value, job.cause) for path, job in world.jobs().items()}
        assert len(states) == JOBS
        assert max(Counter(world.logged()).values()) == 1
        completed = {name for name, (state, _) in states.items() if state == "COMPLETED"}
        assert completed <= set(world.logged())
        others = {end for name, end in states.items() if name not in completed}
        assert others <= {("FAILED", "killed"), ("FAILED", "lost")}, states
        assert len(completed) >= JOBS // 2, states
        assert world.view(lambda view: examine(view).problems) == []
    finally:
        world.store.close()
