"""Show 1: the daemon is killed again and again; every job runs once, and nothing is lost or left.

The short form has one seed and a sample of the boundaries. ``make faults`` plays the long one.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from random import Random

import pytest

from tests.faults.boundaries import BOUNDARIES, RARE, WRITES, functions_that_write
from tests.faults.campaign import Campaign, Goals
from tests.faults.conftest import MakeSite
from tests.faults.site import Site, assert_nothing_is_left, assert_sound
from tests.services.plugin import NewSshd
from tests.services.slurm import Slurm

KILLS = int(os.environ.get("RECONCILER_TEST_KILLS", "0"))
JOBS = int(os.environ.get("RECONCILER_TEST_JOBS", "200"))
SEED = int(os.environ.get("RECONCILER_TEST_SEED", "20240229"))
EACH = 3
"""Kills at each boundary in the long form."""


def goals() -> Goals:
    if KILLS:
        return Goals(random=KILLS, boundaries=BOUNDARIES * EACH, jobs=JOBS)
    return Goals(random=12, boundaries=tuple(Random(SEED).sample(BOUNDARIES, 13)), jobs=40)


def test_all_that_writes_is_killed_at() -> None:
    assert functions_that_write() == set(WRITES) | set(RARE)


@pytest.fixture
def site(make_site: MakeSite, slurm_env: Slurm) -> Site:
    site = make_site()
    site.local("here", cleanup="completed")
    site.local("hpc", scheduler_type="slurm", max_jobs=8)
    return site


@pytest.mark.timeout(0 if KILLS else 900)
def test_campaign(
    site: Site, slurm_env: Slurm, new_sshd: NewSshd, job_python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = new_sshd()
    work_dir = far.login.home / f"far-{site.shared.name}"
    spec = {"type": "remote", "scheduler_type": "shell", "work_dir": str(work_dir), "max_jobs": 4}
    site.put("Worker", "far", spec | far.worker_fields() | {"python": str(job_python)})
    campaign = Campaign(site, far, slurm_env, SEED, goals())
    began = time.monotonic()
    try:
        campaign.play()
        campaign.assert_all_ended_well()
        campaign.assert_queue_is_empty()
        assert_sound(site)
        assert_nothing_is_left(site, work_dir)
    except BaseException as error:
        error.add_note(f"to repeat it: RECONCILER_TEST_SEED={SEED}; so far {campaign.figures()}")
        raise
    if KILLS:
        with capsys.disabled():
            print(
                json.dumps({"seed": SEED, "seconds": round(time.monotonic() - began), **campaign.figures()})
            )
