"""Defects that users of jobflow-remote's batch workers have reported, by the numbers of their issues."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from reconciler.errors import TransientError
from reconciler.execution.batch.allocations import allocations_wanted
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.queues.base import QueueEntry
from reconciler.execution.queues.shell import ShellQueue
from reconciler.model.manifests import BatchSpec, WorkerSpec
from reconciler.model.records import Allocation
from tests.execution.batch.support import BatchWorld

pytestmark = pytest.mark.timeout(300)

Make = Callable[..., BatchWorld]
Listing = Callable[[Mapping[str, str], CommandResult], dict[str, QueueEntry]]


@pytest.fixture
def running(make_batch: Make) -> BatchWorld:
    """One job runs, one waits."""
    world = make_batch(parallel_jobs=1)
    world.waits("f", "running", "waiting")
    world.reconcile()
    world.until(lambda: world.state("f/running") == "RUNNING")
    return world


class LyingQueue:
    """Replaces the listing of the scheduler for some times."""

    def __init__(self, patch: pytest.MonkeyPatch, times: int, answer: Listing) -> None:
        self.left = times
        honest = ShellQueue.listing

        def listing(queue: ShellQueue, ids: Mapping[str, str], result: Any) -> dict[str, QueueEntry]:
            if self.left > 0:
                self.left -= 1
                return answer(ids, result)
            return honest(queue, ids, result)

        patch.setattr(ShellQueue, "listing", listing)


def silent(ids: Mapping[str, str], result: CommandResult) -> dict[str, QueueEntry]:
    raise TransientError("squeue: error: Unable to contact slurm controller")


def finish(world: BatchWorld) -> None:
    world.open("running", "waiting")
    world.run()
    assert world.logged() == ["running", "waiting"]
    assert {(job.state.value, job.attempt.number) for job in world.jobs().values()} == {("COMPLETED", 1)}
    assert len(world.allocations()) == 1


def test_391_a_queue_that_does_not_answer_leads_to_no_further_allocation(
    running: BatchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = LyingQueue(monkeypatch, 3, silent)
    running.until(lambda: queue.left == 0)
    finish(running)


@pytest.mark.parametrize("unfinished", [1, 2, 7, 1000])
@pytest.mark.parametrize("max_jobs", [1, 2, 5])
def test_391_there_are_never_more_than_max_jobs(max_jobs: int, unfinished: int) -> None:
    spec = WorkerSpec(
        type="local", scheduler_type="shell", work_dir="/w", max_jobs=max_jobs,
        batch=BatchSpec(parallel_jobs=2),
    )  # fmt: skip
    for there in range(max_jobs + 2):
        known = [
            Allocation(name=f"a{n}", closed=n % 2 == 0, busy=n, ended=1.0 if n == 4 else None)
            for n in range(there)
        ]
        alive = sum(one.ended is None for one in known)
        wanted = allocations_wanted(spec, unfinished, known)
        assert wanted == 0 or alive + wanted <= max_jobs
    assert allocations_wanted(spec, unfinished, []) == min(max_jobs, (unfinished + 1) // 2)


def test_326_what_earlier_allocations_have_left_takes_no_slot(make_batch: Make) -> None:
    world = make_batch(parallel_jobs=3)
    stale = "0a1b2c3d-0000-5000-8000-{:012}_1.1"
    for number in range(3):
        notes = world.batch / f"a000000000{number}" / "running"
        notes.mkdir(parents=True)
        (notes / stale.format(number)).touch()
    (world.batch / "waiting").mkdir()
    (world.batch / "waiting" / f"0000000000.000000000001.{stale.format(9)}").write_text("damaged")
    world.waits("f", "a", "b", "c")
    world.reconcile()
    world.until(lambda: sorted(world.logged()) == ["a", "b", "c"])
    world.until(lambda: world.states("f/a", "f/b", "f/c") == ["RUNNING"] * 3)
    world.open("a", "b", "c")
    world.run()
    assert {job.state.value for job in world.jobs().values()} == {"COMPLETED"}


def test_403_a_listing_without_the_allocation_fails_no_job_that_runs(
    running: BatchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = LyingQueue(monkeypatch, 1, lambda ids, result: {})
    running.until(lambda: queue.left == 0)
    assert running.state("f/running") == "RUNNING"
    finish(running)


def test_397_the_next_allocation_is_as_the_worker_is_described_now(make_batch: Make) -> None:
    world = make_batch(parallel_jobs=1, max_jobs_per_batch=1)
    world.waits("f", "a")
    world.open("a", "b", "c", "d")
    world.reconcile()
    world.run()
    world.set_worker(parallel_jobs=3)
    world.waits("g", "b", "c", "d")
    world.reconcile()
    world.run()
    told = [
        json.loads((world.batch / one.name / "agent.json").read_text())["parallel_jobs"]
        for one in world.allocations()
    ]
    assert told == [1, 3]
    assert sorted(world.logged()) == ["a", "b", "c", "d"]
