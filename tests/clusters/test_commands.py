"""What a run costs its cluster: at most four commands a pass, however many jobs there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clusters.support import Cluster, MakeCluster
from tests.services.plugin import NewSshd
from tests.services.slurm import Slurm

A_PASS, BESIDES = 4, 10

NewSlurm = Callable[..., Slurm]


@pytest.mark.parametrize("count", [20, 100])
def test_commands_of_a_whole_run(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd, count: int
) -> None:
    slurm = new_slurm(cpus=32)
    world = make_cluster(slurm, new_sshd(env=slurm.env))
    names = world.logging("many", count)
    world.reconcile()
    world.run()
    assert world.ran() == dict.fromkeys(names, 1)
    assert world.count("COMPLETED") == count
    assert max(world.passes) <= A_PASS
    assert world.commands <= BESIDES + A_PASS * len(world.passes)


def test_the_number_of_jobs_does_not_matter(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd
) -> None:
    """Started together and taken in together, forty jobs cost the very commands that two cost."""
    slurm = new_slurm(cpus=16)
    sshd = new_sshd(env=slurm.env)
    assert _commands_of_one_batch(make_cluster(slurm, sshd), 40) == [3, 2, 1]
    assert _commands_of_one_batch(make_cluster(slurm, sshd), 2) == [3, 2, 1]


def _commands_of_one_batch(world: Cluster, count: int) -> list[int]:
    """Return the commands: to look, upload and submit; to look and collect; to tidy up."""
    world.logging("batch", count)
    world.reconcile()
    world.advance()
    assert world.count("SUBMITTED") == count
    world.wait_for_markers(count)
    world.offset = 60
    world.advance()
    assert world.count("COMPLETED") == count
    before = world.commands
    assert world.executor is not None
    world.executor.tidy_up()
    return [*world.passes, world.commands - before]
