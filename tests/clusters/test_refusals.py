"""A refusal concerns the job, or what it asked for: everything else of the worker goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.clusters.support import HPC, Cluster, MakeCluster
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd


@contextmanager
def partition(slurm: Slurm, name: str, state: str) -> Iterator[None]:
    """Keep a partition in a state, as administrators do for a maintenance."""
    slurm.call("scontrol", "update", f"PartitionName={name}", f"State={state}")
    try:
        yield
    finally:
        slurm.call("scontrol", "update", f"PartitionName={name}", "State=UP")


@pytest.fixture
def world(make_cluster: MakeCluster, slurm: Slurm, slurm_sshd: Sshd) -> Cluster:
    return make_cluster(slurm, slurm_sshd, max_jobs=2)


def give(key: str, **more: object) -> dict[str, object]:
    return {"id": key, "function": "give", "args": [1], "worker": HPC, **more}


@pytest.mark.parametrize("state", ["INACTIVE", "DRAIN"])
def test_a_partition_in_maintenance_holds_up_only_its_own_jobs(
    world: Cluster, slurm: Slurm, state: str
) -> None:
    """More jobs wait for it than ``max_jobs``, and they come first: a chain elsewhere goes on."""
    held = [give(f"b{number}", resources={"partition": "batch"}, priority=9) for number in range(4)]
    world.flow("held", *held)  # type: ignore[arg-type]
    chain = [give("c0", resources={"partition": "debug"})]
    chain += [
        give(f"c{n}", resources={"partition": "debug"}, args=[{"$output": f"c{n - 1}"}]) for n in (1, 2)
    ]
    world.flow("chain", *chain)  # type: ignore[arg-type]
    with partition(slurm, "batch", state):
        world.reconcile()
        world.until(lambda: world.job("chain/c2").state.value == "COMPLETED")
        assert world.status.reachable and world.status.failures == 0
        waiting = [world.job(f"held/b{number}") for number in range(4)]
        assert {job.state.value for job in waiting} == {"READY"}
        assert all("Required partition not available" in (job.attempt.waiting or "") for job in waiting[:1])
        assert {job.attempt.number for job in waiting} == {0}
    world.until(lambda: world.count("COMPLETED") == 7 or world.elapse(10))
    assert {job.attempt.number for job in world.jobs().values()} == {1}
    assert {job.attempt.waiting for job in world.jobs().values()} == {None}


def test_a_commit_that_names_another_partition_helps_at_once(world: Cluster, slurm: Slurm) -> None:
    world.flow("f", give("j", resources={"partition": "batch"}))  # type: ignore[arg-type]
    with partition(slurm, "batch", "INACTIVE"):
        world.reconcile()
        world.until(lambda: world.job("f/j").attempt.waiting)
        world.flow("f", give("j", resources={"partition": "debug"}))  # type: ignore[arg-type]
        world.reconcile()
        world.until(lambda: world.job("f/j").state.value == "COMPLETED")


def test_what_is_never_accepted_fails_with_the_words_of_the_scheduler(world: Cluster) -> None:
    world.flow(  # type: ignore[arg-type]
        "f", give("bad", resources={"partition": "nosuch"}), give("good", resources={"partition": "debug"})
    )
    world.reconcile()
    world.until(lambda: world.job("f/good").state.value == "COMPLETED")
    bad = world.job("f/bad")
    assert bad.state.value == "REMOTE_ERROR" and "invalid partition specified" in (bad.error or "")
    world.flow(  # type: ignore[arg-type]
        "f", give("bad", resources={"partition": "debug"}), give("good", resources={"partition": "debug"})
    )
    world.reconcile()
    assert world.job("f/bad").config.resources_value is not None


def test_why_a_job_waits_is_kept_until_it_runs(world: Cluster, slurm: Slurm) -> None:
    gate = world.gated("f", 1, resources={"partition": "batch"})

    def waits() -> str | None:
        return world.job("f/f-000").attempt.waiting

    with partition(slurm, "batch", "DOWN"):
        world.reconcile()
        world.until(lambda: waits() == "PartitionDown" or world.elapse(2))
        queue_id = world.job("f/f-000").attempt.queue_id or ""
        slurm.call("scontrol", "hold", queue_id)
        world.until(lambda: waits() == "held: JobHeldAdmin" or world.elapse(2))
        slurm.call("scontrol", "release", queue_id)
    world.until(lambda: world.state("f/f-000") == "RUNNING" or world.elapse(2))
    assert waits() is None
    slurm.call("scontrol", "suspend", queue_id)
    world.until(lambda: (waits() or "").startswith("suspended") or world.elapse(2))
    slurm.call("scontrol", "resume", queue_id)
    gate.touch()
    world.until(lambda: world.state("f/f-000") == "COMPLETED" or world.elapse(2))
    assert waits() is None
