"""Automatic retries on a real Slurm: a job that somebody ended gets more time, one of a dead node another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.model.retries import Cause
from tests.clusters.support import HPC, MakeCluster
from tests.services.plugin import NewSshd
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd

NewSlurm = Callable[..., Slurm]


def test_a_retry_asks_for_more_each_time(make_cluster: MakeCluster, slurm: Slurm, slurm_sshd: Sshd) -> None:
    world = make_cluster(slurm, slurm_sshd)
    retries = {"limit": 2, "on": ["killed"], "backoff": "0s", "escalate": {"resources": {"time": "*2"}}}
    gate = world.gated("f", resources={"partition": "debug", "time": "00:05:00"}, retries=retries)
    world.reconcile()
    ids = []
    for attempt in (1, 2):
        world.until(lambda a=attempt: world.job("f/f-000").attempt.number == a and world.ran()["f-000"] == a)  # type: ignore[misc]
        ids.append(world.job("f/f-000").attempt.queue_id or "")
        slurm.call("scancel", ids[-1])
    world.until(lambda: world.ran()["f-000"] == 3 or world.elapse(1))
    gate.touch()
    world.run(timeout=90)
    job = world.job("f/f-000")
    assert (job.state.value, job.attempt.number, job.retry.causes) == ("COMPLETED", 3, ["killed"] * 2)
    assert job.config.worker_name == HPC
    assert "#SBATCH --time=00:20:00\n" in (Path(job.attempt.run_dir or "") / "submit.sh").read_text()
    assert "TimeLimit=00:20:00" in slurm.call("scontrol", "show", "job", job.attempt.queue_id or "")
    told = [event for event in world.events("f/f-000") if "died of killed" in event]
    assert [event.rpartition(" in ")[2] for event in told] == [
        "0 s with time=00:10:00",
        "0 s with time=00:20:00",
    ]


def test_a_job_of_a_node_that_failed_runs_again(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd
) -> None:
    slurm = new_slurm(nodes=2, cpus=1)
    world = make_cluster(slurm, new_sshd(env=slurm.env))
    gate = world.gated("lost", retries={"limit": 1, "backoff": "1s"})
    world.reconcile()
    world.until(lambda: world.state("lost/lost-000") == "RUNNING" and world.ran()["lost-000"] == 1)
    first = slurm.call(
        "squeue", "--noheader", "--format=%N", "--jobs", world.job("lost/lost-000").attempt.queue_id or ""
    )
    slurm.node_down(first.strip())
    world.until(lambda: world.ran()["lost-000"] == 2 or world.elapse(5))
    job = world.job("lost/lost-000")
    assert (job.attempt.number, job.retry.causes) == (2, [Cause.NODE_FAIL])
    gate.touch()
    world.run(timeout=90)
    assert world.state("lost/lost-000") == "COMPLETED"
