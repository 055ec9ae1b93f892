"""A job that can never start says so, and a commit that puts it right is enough."""

from __future__ import annotations

from tests.clusters.support import HPC, MakeCluster
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd


def test_a_stuck_job_is_submitted_anew_once_its_resources_are_right(
    make_cluster: MakeCluster, slurm: Slurm, slurm_sshd: Sshd
) -> None:
    world = make_cluster(slurm, slurm_sshd)
    work = {"id": "j", "function": "give", "args": [1], "worker": HPC}
    world.flow("f", work | {"resources": {"partition": "debug", "time": "2-00:00:00"}})
    world.reconcile()
    world.until(lambda: world.job("f/j").attempt.stuck)
    first = world.job("f/j")
    assert (first.state.value, first.attempt.number) == ("SUBMITTED", 1)
    world.flow("f", work | {"resources": {"partition": "debug", "time": "00:01:00"}})
    world.reconcile()
    world.run()
    second = world.job("f/j")
    assert (second.state.value, second.attempt.number, second.attempt.stuck) == ("COMPLETED", 2, None)
    assert second.attempt.queue_id != first.attempt.queue_id
    assert slurm.state(first.attempt.queue_id or "") == "CANCELLED"
    assert any("as submitted it can never start" in event for event in world.events("f/j"))
