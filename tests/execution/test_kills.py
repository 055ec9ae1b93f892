"""``kill -9`` at any instant loses nothing and runs nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.actual.fsck.examine import examine
from tests.execution.killing import nothing_runs_below, reopened, run_with_kills
from tests.execution.support import World, lines

pytestmark = pytest.mark.timeout(600)

CHAINS, LENGTH = 1, 12
GENERATIONS = 8


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


def test_killed_at_every_step_and_at_random(world: World) -> None:
    kills = run_with_kills(world, 20240229)
    _check(world)
    assert kills.total() >= 25, kills
    assert min(kills["named"], kills["random"]) >= 8, kills


def _check(world: World) -> None:
    world = reopened(world)
    expected = [f"{chain}.{step:02}" for chain in range(CHAINS) for step in range(LENGTH)]
    assert sorted(lines(world.root / "log")) == expected
    assert {job.state.value for job in world.jobs().values()} == {"COMPLETED"}
    assert len(world.jobs()) == CHAINS * LENGTH
    assert world.view(lambda view: examine(view).problems) == []
    world.close()
    assert nothing_runs_below(world)


@pytest.fixture
def relaxation(tmp_path: Path, warm_python: Path) -> World:
    """A job that replaces itself until it has converged, and one that needs the end of it.

    How jobs start is not what this is about, so they start warm; the program itself is cold.
    """
    world = World(tmp_path)
    world.repository.write("workers/workers.yaml", world.worker("w1", python=str(warm_python)))
    log = str(tmp_path / "log")
    relax = {"id": "relax", "function": "relaxes", "args": [log, 1, GENERATIONS]}
    after = {"id": "after", "function": "log_line", "args": [log, "after", {"$output": "relax.forces"}]}
    world.flow("loop", relax, after)
    world.repository.commit()
    world.close()
    return world


def test_a_replace_loop_runs_each_generation_once(relaxation: World) -> None:
    kills = run_with_kills(relaxation, 20240301, most=40)
    world = reopened(relaxation)
    steps = [f"step {number}" for number in range(1, GENERATIONS + 1)]
    assert lines(world.root / "log") == [*steps, "after"]
    jobs = world.view(lambda view: sorted(view.jobs(), key=lambda job: (job.name, job.index)))
    assert [job.index for job in jobs] == [1, *range(1, GENERATIONS + 1)]
    assert {job.state.value for job in jobs} == {"COMPLETED"}
    assert len({job.uuid for job in jobs}) == 2
    assert world.output("loop/relax") == {"step": GENERATIONS, "forces": 0}
    assert world.view(lambda view: examine(view).problems) == []
    world.close()
    assert nothing_runs_below(world)
    assert kills.total() >= 12, kills
    assert min(kills["named"], kills["random"]) >= 5, kills
