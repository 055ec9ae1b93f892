"""A scheduler that requeues a job starts the same attempt again; its state follows the queue."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.clusters.support import Cluster, MakeCluster
from tests.services.plugin import NewSshd
from tests.services.programs import attempt, program
from tests.services.slurm import Slurm

NewSlurm = Callable[..., Slurm]
PREEMPTION = "PreemptType=preempt/partition_prio\nPreemptMode={mode}"


def run_once_more(world: Cluster, requeue: Callable[[str], None]) -> None:
    """Let a running job be requeued, see it wait and run again, and finish as its first attempt."""
    gate = world.gated("f", resources={"requeue": True, "partition": "batch"})
    world.reconcile()
    world.until(lambda: world.ran()["f-000"] == 1 and world.state("f/f-000") == "RUNNING")
    queue_id = world.job("f/f-000").attempt.queue_id or ""
    requeue(queue_id)

    # Slurm waits for two minutes before it starts it again. Not within the second of its end: then slurmd
    # takes the new start for the former one, whose credential is revoked, and the job fails.
    hurried = [time.monotonic() - 2.5]

    def runs_again() -> bool:
        assert world.state("f/f-000") != "FAILED", world.events("f/f-000")
        if time.monotonic() - hurried[0] > 5:
            hurried[0] = time.monotonic()
            command = [program("scontrol"), "update", f"JobId={queue_id}", "StartTime=now"]
            attempt(command, env=world.slurm.env)
        return world.ran()["f-000"] == 2 or world.elapse(5)

    world.until(runs_again, timeout=300)
    world.until(lambda: world.state("f/f-000") == "RUNNING" or world.elapse(5))
    gate.touch()
    world.until(lambda: world.state("f/f-000") not in ("SUBMITTED", "RUNNING") or world.elapse(2))
    job = world.job("f/f-000")
    assert (job.state.value, job.attempt.number, job.attempt.queue_id) == ("COMPLETED", 1, queue_id)
    assert world.ran() == {"f-000": 2}


def test_requeued_by_a_person(make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd) -> None:
    slurm = new_slurm()
    world = make_cluster(slurm, new_sshd(env=slurm.env))
    run_once_more(world, lambda queue_id: slurm.call("scontrol", "requeue", queue_id) and None)


def test_requeued_and_held(make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd) -> None:
    slurm = new_slurm()
    world = make_cluster(slurm, new_sshd(env=slurm.env))

    def requeue(queue_id: str) -> None:
        slurm.call("scontrol", "requeuehold", queue_id)
        world.until(lambda: world.state("f/f-000") == "SUBMITTED" or world.elapse(1))
        assert any("requeued it" in event for event in world.events("f/f-000"))
        slurm.call("scontrol", "release", queue_id)

    run_once_more(world, requeue)


def test_requeued_since_its_node_failed(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd
) -> None:
    # A node that came back at once could get the job while its slurmd still ends the former run of it.
    slurm = new_slurm(nodes=2, cpus=1, more="ReturnToService=0")
    world = make_cluster(slurm, new_sshd(env=slurm.env))

    def fail(queue_id: str) -> None:
        node = slurm.call("squeue", "--noheader", "--format=%N", "--jobs", queue_id).strip()
        slurm.node_down(node)

    run_once_more(world, fail)


def test_preempted_and_requeued(make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd) -> None:
    slurm = new_slurm(nodes=1, cpus=1, more=PREEMPTION.format(mode="REQUEUE"))
    world = make_cluster(slurm, new_sshd(env=slurm.env))

    def preempt(queue_id: str) -> None:
        slurm.call("sbatch", "--partition=debug", "--output=/dev/null", "--wrap=sleep 3")

    run_once_more(world, preempt)


@pytest.mark.parametrize("retries", [0, 1])
def test_preempted_for_good(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd, retries: int
) -> None:
    slurm = new_slurm(nodes=1, cpus=1, more=PREEMPTION.format(mode="CANCEL"))
    world = make_cluster(slurm, new_sshd(env=slurm.env))
    policy = {"limit": retries, "backoff": "0s"}
    gate = world.gated("f", resources={"partition": "batch"}, retries=policy)
    world.reconcile()
    world.until(lambda: world.ran()["f-000"] == 1 and world.state("f/f-000") == "RUNNING")
    slurm.call("sbatch", "--partition=debug", "--output=/dev/null", "--wrap=sleep 3")
    world.until(lambda: world.job("f/f-000").attempt.number == 2 or world.count("FAILED") or world.elapse(2))
    job = world.job("f/f-000")
    if retries:
        assert job.retry.causes == ["preempted"]
        gate.touch()
        world.until(lambda: world.count("COMPLETED") == 1 or world.elapse(2))
    else:
        assert (job.state.value, job.cause) == ("FAILED", "preempted")
