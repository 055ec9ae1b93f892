"""Show 4 of the clusters: sshd away and slurmctld killed in mid-campaign, by the clock on the wall.

``make test`` keeps sshd away for some seconds; ``make faults`` for two minutes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import MakeSite
from tests.faults.site import Site, assert_nothing_is_left, assert_sound
from tests.services.plugin import NewSshd
from tests.services.slurm import Slurm

IS_LONG = bool(int(os.environ.get("RECONCILER_TEST_KILLS", "0")))
AWAY = 120.0 if IS_LONG else 6.0
CHAINS, LENGTH = (12, 4) if IS_LONG else (5, 2)

pytestmark = pytest.mark.timeout(0 if IS_LONG else 600)


def test_a_campaign_outlives_an_outage(
    make_site: MakeSite, new_slurm: Callable[..., Slurm], new_sshd: NewSshd, job_python: Path
) -> None:
    slurm = new_slurm(nodes=2, cpus=4)
    sshd = new_sshd(env=slurm.env)
    site = make_site()
    site.local("here")
    work_dir = sshd.login.home / f"hpc-{site.shared.name}"
    spec = {"type": "remote", "scheduler_type": "slurm", "work_dir": str(work_dir), "max_jobs": 6}
    site.put("Worker", "hpc", spec | sshd.worker_fields() | {"python": str(job_python)})
    _write_campaign(site)
    site.repository.commit()
    daemon = site.watch()
    site.wait(lambda: [job for job in site.jobs().values() if job.state == "RUNNING"])
    slurm.wait_saved()
    sshd.stop()
    sshd.kill_sessions()
    slurm.kill_controller()
    # A command that was under way reports a lost connection first.
    site.wait(lambda: "refuses connections" in site.status("hpc").reason)
    _away(site)
    slurm.start_controller()
    sshd.start()
    site.wait_completed(seconds=600)
    assert site.status("hpc").reachable
    assert {job.attempt.number for job in site.all_jobs()} == {1}, "nobody was taken for dead"
    daemon.end()
    assert_sound(site)
    assert not {"RUNNING", "PENDING"} & set(slurm.squeue("%T"))
    assert_nothing_is_left(site, work_dir)


def _write_campaign(site: Site) -> None:
    """Chains on the cluster whose jobs take a while, each with a last job on this machine.

    The first jobs outlast the wait for Slurm's saved state: a controller that is killed forgets
    submissions that it has not saved, and this test is not about those.
    """
    for number in range(CHAINS):
        jobs: list[dict[str, object]] = []
        for step in range(LENGTH):
            after = [{"$output": jobs[-1]["id"]}] if jobs else []
            seconds = 3.0 if jobs else 15.0
            jobs.append({"id": f"s{step}", "function": "span", "args": [seconds, *after], "worker": "hpc"})
        fit = {"id": "fit", "function": "line", "args": [{"$output": jobs[-1]["id"]}], "worker": "here"}
        site.jobs_flow(f"chain{number}", *jobs, fit)


def _away(site: Site) -> None:
    """While nobody answers no job of the cluster moves, and everybody is told why and until when."""
    before = {job.id: job.state for job in site.all_jobs() if job.config.value("worker") == "hpc"}
    assert len(before) == CHAINS * LENGTH
    end = time.monotonic() + AWAY
    while time.monotonic() < end:
        assert {job.id: job.state for job in site.all_jobs() if job.id in before} == before
        (row,) = (row for row in site.get("get", "workers") if row["name"] == "hpc")
        assert not row["reachable"] and row["next_try"] and "refuses connections" in row["reason"]
        time.sleep(1)
