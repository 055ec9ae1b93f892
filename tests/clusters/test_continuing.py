"""A job that needs more than one time limit, on a real Slurm: each attempt continues the one before it."""

from __future__ import annotations

import pytest

from tests.clusters.support import MakeCluster
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd


@pytest.mark.timeout(400)
def test_a_job_ends_that_needs_three_time_limits(
    make_cluster: MakeCluster, slurm: Slurm, slurm_sshd: Sshd
) -> None:
    world = make_cluster(slurm, slurm_sshd)
    retries = {
        "limit": 3, "on": ["walltime"], "backoff": "0s",
        "continue": {"keep": ["*.ckpt"], "signal": "USR1@52"},
    }  # fmt: skip
    world.flow(
        "f",
        {"id": "a", "function": "counts_until_signalled", "args": [3]},
        resources={"partition": "debug", "time": "00:01:00"},
        retries=retries,
    )
    world.reconcile()
    world.run(timeout=300)
    job = world.job("f/a")
    assert (job.state.value, job.attempt.number, job.retry.causes) == ("COMPLETED", 3, ["walltime"] * 2)
    assert world.output("f/a") == ["1", "2", "3"]
    assert [run_dir.rpartition("_")[2] for run_dir in job.retry.run_dirs] == ["1", "1.2"]
