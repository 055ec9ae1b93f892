"""What becomes of jobs that ended while nobody looked, and that Slurm has forgotten since.

Beside the contract: Slurm forgets a job after minutes, here after two seconds, and only what is in the run
directory tells how it ended.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.execution.run_files import OUTBOX, marker_name
from tests.execution.support import World, eventually
from tests.services import processes
from tests.services.slurm import Slurm

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too

JOBS = ("marked", "unmarked", "ended", "wiped")


@pytest.fixture(scope="class")
def forgotten(
    short_slurm: Slurm, tmp_path_factory: pytest.TempPathFactory, warm_python: Path
) -> Iterator[World]:
    """Jobs that ran alone: well, well but without a marker, ended by somebody else, without a directory."""
    root = tmp_path_factory.mktemp("forgotten")
    world = World(root / "world", workers=" ")
    spec = {
        "type": "local",
        "scheduler_type": "slurm",
        "work_dir": str(world.work),
        "python": str(warm_python),
    }
    world.put("Worker", "w1", spec)
    for name in JOBS:
        world.put("Flow", name, {"jobs": [{"id": "j", "function": "contract_jobs.waits"}]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(short_slurm.conf))
        patch.setattr(sys, "executable", str(warm_python))
        try:
            world.reconcile()
            world.until(lambda: all(_runs(world, name) for name in JOBS))
            _let_them_end(world, short_slurm)
            world.restart()
            world.run()
            yield world
        finally:
            world.close()
            processes.end(processes.of_directory(world.work), grace=0)


def _runs(world: World, name: str) -> bool:
    job = world.job(f"{name}/j")
    return job.state.value == "RUNNING" and (Path(job.attempt.run_dir or "") / "pids").exists()


def _let_them_end(world: World, slurm: Slurm) -> None:
    """Nobody looks meanwhile; then take away what a crash of the cluster's disk may."""
    jobs = {name: world.job(f"{name}/j") for name in JOBS}
    for name in ("marked", "unmarked"):
        (Path(jobs[name].attempt.run_dir or "") / "go").touch()
    for name in ("ended", "wiped"):
        slurm.call("scancel", jobs[name].attempt.queue_id or "")
    assert eventually(lambda: not {job.attempt.queue_id for job in jobs.values()} & set(slurm.squeue("%i")))
    (world.work / OUTBOX / marker_name(jobs["unmarked"])).unlink()
    for name in ("ended", "wiped"):
        (world.work / OUTBOX / marker_name(jobs[name])).unlink(missing_ok=True)
    directory = Path(jobs["wiped"].attempt.run_dir or "")
    directory.rename(directory.with_name("elsewhere"))


class TestForgotten:
    """Each of the jobs."""

    @pytest.mark.parametrize("name", ["marked", "unmarked"])
    def test_a_result_counts_although_nobody_remembers_the_job(self, forgotten: World, name: str) -> None:
        job = forgotten.job(f"{name}/j")
        assert (job.state.value, job.attempt.number, forgotten.output(f"{name}/j")) == (
            "COMPLETED",
            1,
            "went on",
        )

    def test_no_result_is_a_failure_and_never_run_again(self, forgotten: World) -> None:
        job = forgotten.job("ended/j")
        assert (job.state.value, job.attempt.number, job.cause) == ("FAILED", 1, "killed")
        assert "Slurm: CANCELLED" in (job.error or "")

    def test_no_directory_is_a_failure_that_says_so(self, forgotten: World) -> None:
        job = forgotten.job("wiped/j")
        assert (job.state.value, job.attempt.number) == ("FAILED", 1)
        assert "its run directory is gone" in (job.error or "")
