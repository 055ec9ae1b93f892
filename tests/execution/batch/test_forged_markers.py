"""A marker that another job has left ends no job: its own files and its queue tell the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.execution.run_files import marker_name
from reconciler.model.records import Cancellation
from tests.execution.batch.support import BatchWorld
from tests.execution.support import World, eventually, processes_below

pytestmark = pytest.mark.timeout(300)


def forge(world: World, worker: str, path: str) -> None:
    """Leave the marker of the present attempt of a job, as another job of the account can."""
    outbox = world.work / worker / ".outbox"
    (outbox / marker_name(world.job(path))).touch()


def test_a_forged_marker_of_a_job_that_runs(world: World, tmp_path: Path) -> None:
    gates = {name: tmp_path / name for name in ("one", "two")}
    for name, gate in gates.items():
        world.flow(name, {"id": "j", "function": "wait_for", "args": [str(gate)]})
    world.reconcile()
    world.until(lambda: world.states("one/j", "two/j") == ["RUNNING", "RUNNING"])
    for _ in range(3):
        forge(world, "w1", "two/j")
        world.advance()
    assert world.states("one/j", "two/j") == ["RUNNING", "RUNNING"]
    for gate in gates.values():
        gate.touch()
    world.run()
    assert world.states("one/j", "two/j") == ["COMPLETED", "COMPLETED"]
    assert world.job("two/j").attempt.number == 1


@pytest.mark.parametrize("victim", ["second", "third"])
def test_a_forged_marker_of_a_batch_job(make_batch: Callable[..., BatchWorld], victim: str) -> None:
    """The second job runs in the same allocation, the third one waits for a slot."""
    world = make_batch(parallel_jobs=2, max_wait=60)
    names = ["first", "second", "third"]
    world.waits("f", *names)
    world.reconcile()
    world.until(lambda: len(world.logged()) == 2 and len(world.waiting()) == 1)
    by_ticket = {marker_name(world.job(f"f/{name}")): name for name in names}
    late = by_ticket[world.waiting()[0].split(".", 2)[2]]
    name = late if victim == "third" else next(one for one in names if one != late)
    before = world.state(f"f/{name}")
    for _ in range(3):
        forge(world, "b", f"f/{name}")
        world.advance()
    assert world.state(f"f/{name}") in (before, "RUNNING")
    world.open(*names)
    world.run()
    assert world.states(*(f"f/{one}" for one in names)) == ["COMPLETED"] * 3
    assert sorted(world.logged()) == sorted(names), "each ran once"
    assert world.job(f"f/{name}").attempt.number == 1


def test_a_job_with_a_forged_marker_can_be_cancelled(world: World, tmp_path: Path) -> None:
    world.flow("f", {"id": "j", "function": "wait_for", "args": [str(tmp_path / "gate")]})
    world.reconcile()
    world.until(lambda: world.state("f/j") == "RUNNING")
    forge(world, "w1", "f/j")
    world.advance()
    world.edit("f/j", cancellation=Cancellation(reason="no longer wanted"))
    world.run()
    assert world.state("f/j") == "USER_STOPPED"
    assert eventually(lambda: processes_below(world.work) == [])
