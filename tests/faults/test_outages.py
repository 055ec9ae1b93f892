"""Show 2: what fails on a host, a scheduler, a disk or a clock hurts only itself, and passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.execution.support import eventually
from tests.faults.clocked import MovedClock
from tests.faults.conftest import MakeSite, SmallDisk
from tests.faults.site import (
    PYTHON,
    Daemon,
    Site,
    assert_nothing_is_left,
    assert_sound,
)
from tests.services import processes
from tests.services.plugin import NewSshd
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    site = make_site()
    site.local("here")
    return site


@pytest.fixture
def clock(tmp_path: Path) -> MovedClock:
    return MovedClock(tmp_path / "clock")


@pytest.fixture
def add_far(site: Site, new_sshd: NewSshd, job_python: Path) -> Callable[..., Sshd]:
    """Give the site a worker ``far`` behind a server of its own, which is returned."""

    def add(**spec: object) -> Sshd:
        sshd = new_sshd()
        work_dir = sshd.login.home / f"far-{site.shared.name}"
        fields = {"type": "remote", "scheduler_type": "shell", "work_dir": str(work_dir)}
        site.put("Worker", "far", fields | sshd.worker_fields() | {"python": str(job_python), **spec})
        return sshd

    return add


def gated(site: Site, name: str, worker: str, count: int = 1) -> Path:
    """Write a flow of jobs that wait for the file that is returned, and one that waits for them."""
    gate = site.shared / f"gate-{name}"
    jobs = [{"id": f"j{n}", "function": "gated", "args": [str(gate), name, n]} for n in range(count)]
    after = {"id": "after", "function": "line", "args": [{"$output": job["id"]} for job in jobs]}
    site.jobs_flow(name, *jobs, after, worker=worker)
    return gate


def all_run(site: Site, name: str, count: int = 1) -> Callable[[], bool]:
    """Return a question: do all jobs of :func:`gated` run, by their records and in fact?"""

    def true() -> bool:
        jobs = [job for job in site.jobs().values() if job.flow == name and job.key != "after"]
        return len(jobs) == count and all(job.state == "RUNNING" and site.ran()[job.id] for job in jobs)

    return true


def finish(site: Site, daemon: Daemon, *work_dirs: Path) -> None:
    """Everything completes, in its first attempt; the daemon ends; nothing is left."""
    site.wait_completed()
    assert {job.attempt.number for job in site.all_jobs()} == {1}
    daemon.end()
    assert_sound(site)
    assert_nothing_is_left(site, *work_dirs)


# hosts and schedulers ---------------------------------------------------------------------------------


def test_sshd_is_away_for_ten_minutes(site: Site, add_far: Callable[..., Sshd], clock: MovedClock) -> None:
    sshd = add_far(max_jobs=2)
    gate = gated(site, "running", "far", 2)
    site.chain("waiting", 2, worker="far")
    site.repository.commit()
    daemon = site.watch(clock=clock.file)
    site.wait(all_run(site, "running", 2))
    before = {job.id: job.state for job in site.all_jobs()}
    sshd.stop()
    sshd.kill_sessions()
    site.chain("meanwhile", 3)
    site.repository.commit()
    site.wait(lambda: not site.status("far").reachable or clock.elapse(2))
    began, tries = clock.time(), site.status("far").failures
    while clock.time() < began + 600:
        failures, wait = site.status("far").failures, site.status("far").next_try - clock.time()
        clock.elapse(max(1.0, wait))
        site.wait(lambda failures=failures: site.status("far").failures > failures)
    assert tries + 7 <= site.status("far").failures <= tries + 12, "it backs off"
    assert {job.id: job.state for job in site.all_jobs() if job.id in before} == before
    (row,) = (row for row in site.get("get", "workers") if row["name"] == "far")
    assert not row["reachable"] and row["next_try"] > began and "refuses connections" in row["reason"]
    site.wait_completed("meanwhile")
    gate.touch()
    sshd.start()
    clock.elapse(300)
    finish(site, daemon)
    assert site.status("far").reachable


def test_a_host_that_hangs(site: Site, add_far: Callable[..., Sshd]) -> None:
    """Its deadline is ten minutes: so whoever waited for it would not get ready in this test."""
    sshd = add_far(timeout_execute=600)
    gate = gated(site, "far", "far")
    site.repository.commit()
    daemon = site.watch()
    site.wait(all_run(site, "far"))
    with sshd.frozen():
        gate.touch()
        time.sleep(1)  # by now it is looked at, and hangs
        site.chain("here", 10)
        site.repository.commit()
        site.wait_completed("here")
        assert site.state("far/j0") == "RUNNING"
        began = time.monotonic()
        daemon.end()
        assert time.monotonic() - began < 15, "it ends within ten seconds, whatever hangs"
    finish(site, site.watch())


def test_slurmctld_is_restarted(
    site: Site, new_slurm: Callable[..., Slurm], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = new_slurm(nodes=1, cpus=2)
    monkeypatch.setenv("SLURM_CONF", slurm.env["SLURM_CONF"])
    site.local("hpc", scheduler_type="slurm", max_jobs=8)
    gate = gated(site, "jobs", "hpc", 4)
    site.repository.commit()
    daemon = site.watch()
    site.wait(lambda: len(site.ran()) == 2)
    slurm.wait_saved()
    slurm.kill_controller()
    site.wait(lambda: not site.status("hpc").reachable)
    site.chain("here", 3)
    site.repository.commit()
    gate.touch()
    site.wait_completed("here")
    assert {job.state for job in site.all_jobs() if job.flow == "jobs" and job.key != "after"} <= {
        "SUBMITTED",
        "RUNNING",
    }
    slurm.start_controller()
    finish(site, daemon)
    assert not {"RUNNING", "PENDING"} & set(slurm.squeue("%T"))


def test_a_worker_is_removed_while_its_jobs_run(site: Site, add_far: Callable[..., Sshd]) -> None:
    """It serves until they have ended; what had not started goes to another one."""
    add_far(max_jobs=1)
    site.project(defaults={"worker": "far"})
    gate = site.shared / "gate"
    jobs = [{"id": f"j{n}", "function": "gated", "args": [str(gate), n]} for n in range(2)]
    site.jobs_flow("jobs", *jobs)
    site.repository.commit()
    daemon = site.watch()
    site.wait(lambda: "RUNNING" in [job.state for job in site.all_jobs()] and len(site.ran()) == 1)
    site.repository.remove("workers/far.yaml")
    site.project()
    site.repository.commit()
    site.wait(lambda: len(site.ran()) == 2)
    gate.touch()
    site.wait_completed()
    assert sorted(job.attempt.worker or "" for job in site.all_jobs()) == ["far", "here"]
    site.chain("next", 1)
    site.repository.commit()
    site.wait_completed("next")
    assert [row["name"] for row in site.get("get", "workers")] == ["here"]
    finish(site, daemon)


# builds -----------------------------------------------------------------------------------------------


def test_a_build_that_hangs(site: Site) -> None:
    site.project(build_timeout=3)
    gate = gated(site, "running", "here")
    site.repository.commit()
    daemon = site.watch()
    site.wait(all_run(site, "running"))
    site.factory("a-hangs", "fault_jobs.hanging", str(site.shared / "hangs"))
    site.chain("other", 2)
    site.repository.commit()
    gate.touch()
    site.wait_completed("running")
    site.wait_completed("other")
    assert "took longer" in site.told(), "it is told why"
    assert site.get("get", "flows")
    site.repository.remove("flows/a-hangs.yaml")
    site.repository.commit()
    finish(site, daemon)


def test_a_build_that_hangs_ends_with_the_daemon(site: Site, tmp_path: Path) -> None:
    """However that ends: nobody is left who waits for its answer."""
    hangs = site.shared / "hangs"
    site.factory("hangs", "fault_jobs.hanging", str(hangs))
    site.repository.commit()
    for ends in (Daemon.kill, Daemon.end):
        daemon = Daemon(site, ["watch"], env={"RECONCILER_TEST_PYTHON": PYTHON})
        site.wait(hangs.exists)
        assert _builders(tmp_path)
        ends(daemon)
        assert eventually(lambda: not _builders(tmp_path), 30)
        hangs.unlink()


def _builders(directory: Path) -> set[int]:
    return {
        pid
        for pid in processes.of_directory(directory)
        if b"build.server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    }


# disks ------------------------------------------------------------------------------------------------


def test_the_disk_of_the_state_is_full(make_site: MakeSite, small_disk: SmallDisk) -> None:
    disk = small_disk(16)
    site = make_site(disk.path / "state")
    site.local("here")
    gate = gated(site, "jobs", "here", 3)
    site.repository.commit()
    daemon = site.watch()
    site.wait(all_run(site, "jobs", 3))
    with disk.full():
        gate.touch()
        site.wait(lambda: "no space is left" in site.told())
        assert site.call("get", "jobs").returncode == 0, "who reads is not hurt"
        asked = site.call("now", "--wait", "--timeout", "20")
        assert asked.returncode in (1, 3) and "Traceback" not in asked.stderr, asked.stderr
        assert daemon.process.poll() is None
    finish(site, daemon)


def test_the_disk_of_a_worker_is_full(site: Site, small_disk: SmallDisk, clock: MovedClock) -> None:
    """Jobs wait for room there: those that are to start, and one that has a result to write."""
    disk = small_disk(4)
    work = disk.path / "work"
    site.local("small", work_dir=str(work))
    gate = gated(site, "running", "small")
    site.repository.commit()
    daemon = site.watch(clock=clock.file)
    site.wait(all_run(site, "running"))
    with disk.full():
        gate.touch()
        site.wait(lambda: list(work.glob("*/*/*/*/claim/.result.json.partial")))
        site.chain("small", 3, worker="small")
        site.chain("here", 3)
        site.repository.commit()
        site.wait_completed("here")
        site.wait(lambda: not site.status("small").reachable)
        assert "o space left" in site.status("small").reason
        assert set(site.states_by_job().values()) == {"RUNNING ", "CHECKED_OUT ", "WAITING "}
    clock.elapse(300)
    finish(site, daemon)


# clocks -----------------------------------------------------------------------------------------------


def test_the_clock_jumps(
    site: Site, add_far: Callable[..., Sshd], clock: MovedClock, slurm_env: Slurm
) -> None:
    """An hour ahead, and back: jobs that run are not lost, and those that come are not forgotten."""
    add_far()
    site.local("hpc", scheduler_type="slurm")
    workers = ("here", "far", "hpc")
    gates = {
        (number, worker): gated(site, f"{worker}-{number}", worker)
        for number in range(3)
        for worker in workers
    }
    for worker in workers:
        site.chain(f"chain-{worker}", 3, worker=worker)
    site.repository.commit()
    daemon = site.watch(clock=clock.file)
    for number, seconds in enumerate((3600.0, -3600.0, -3600.0)):
        for worker in workers:
            site.wait(all_run(site, f"{worker}-{number}"))
        clock.jump(seconds)
        began = time.monotonic()
        for worker in workers:
            gates[number, worker].touch()
        site.wait_completed(*(f"{worker}-{number}" for worker in workers))
        print(f"after a jump of {seconds:g} s: {time.monotonic() - began:.1f} s")
    finish(site, daemon)
