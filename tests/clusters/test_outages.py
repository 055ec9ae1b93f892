"""Outages of a cluster change the state of no job; afterwards each has run exactly once.

Named after the rows of table D of the conformance list: D1 scheduler or ssh away, D2 a listing that omits a
job, D3 a worker removed from git, D8 a reconciler that was killed, D9 a job that dies without a result.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from reconciler.actual.store import Store
from reconciler.execution import run_files
from reconciler.execution.qtk import STDOUT
from reconciler.model.retries import Cause
from tests.clusters.support import HPC, Cluster, MakeCluster
from tests.execution.hosts.reaching import takes
from tests.execution.support import eventually, lines, reconcile_killed_at
from tests.services import processes
from tests.services.plugin import NewSshd
from tests.services.programs import SEARCH_PATH, program
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd
from tests.support import Reconcile

NewSlurm = Callable[..., Slurm]

IS_LONG = bool(int(os.environ.get("RECONCILER_TEST_KILLS", "0")))
"""Read here: a test finds none of these variables."""

NEVER_TWICE = "a job ran twice, or not at all"


def finish(world: Cluster) -> None:
    """Run everything to its end; each job must have run once, in its first attempt, and completed."""
    world.run()
    jobs = world.jobs()
    assert {path: job.state.value for path, job in jobs.items()} == dict.fromkeys(jobs, "COMPLETED")
    assert {job.attempt.number for job in jobs.values()} == {1}
    assert world.ran() == {job.key: 1 for job in jobs.values()}, NEVER_TWICE


def all_run(world: Cluster, flow: str) -> Callable[[], bool]:
    """Return a question: do all jobs of a flow run, by their records and in fact?"""

    def true() -> bool:
        jobs = [job for job in world.jobs().values() if job.flow == flow]
        return all(job.state.value == "RUNNING" and world.ran()[job.key] for job in jobs)

    return true


def shown(world: Cluster, *arguments: str) -> str:
    """Return what the program prints."""
    done = Reconcile(world.repository.path)(*arguments, "--state-dir", str(world.root / "state"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def line_of_worker(world: Cluster) -> str:
    """Return the line of the cluster in the table of workers."""
    (line,) = (line for line in shown(world, "get", "workers").splitlines() if line.startswith(f"{HPC} "))
    return line


# D1: nobody answers -----------------------------------------------------------------------------------


def test_d1_sshd_is_away_for_two_minutes(make_cluster: MakeCluster, slurm: Slurm, new_sshd: NewSshd) -> None:
    sshd = new_sshd(env=slurm.env)
    world = make_cluster(slurm, sshd, max_jobs=3)
    gate = world.gated("running", 2)
    names = world.logging("waiting", 4)
    world.reconcile()
    world.until(all_run(world, "running"))
    sshd.stop()
    sshd.kill_sessions()
    before = world.tells()
    world.offset = 20
    assert not world.advance()
    assert world.tells() == before
    _shown_as_unreachable(world)
    gate.touch()  # meanwhile the jobs end, and nobody takes them in
    world.wait_for_markers(2)
    _two_minutes_pass(world, before)
    sshd.start()
    world.offset += world.status.next_try - world.now
    finish(world)
    assert set(names) < set(world.ran())
    assert (world.status.reachable, world.status.failures) == (True, 0)
    assert line_of_worker(world).endswith(" Reachable")


def _shown_as_unreachable(world: Cluster) -> None:
    """Everywhere with the reason, the time of the next try, and when it was seen last."""
    rows = {row["name"]: row for row in json.loads(shown(world, "get", "workers", "-o", "json"))}
    row, line = rows[HPC], line_of_worker(world)
    assert (row["reachable"], row["failures"]) == (False, 1)
    assert row["next_try"] == world.status.next_try
    assert "refuses connections" in row["reason"]
    assert re.search(r"Unreachable +in \d+ s +.*refuses connections", line)
    text = shown(world, "describe", "worker", HPC)
    assert re.search(r"^status: +Unreachable$", text, re.MULTILINE)
    assert re.search(r"^next try: +in \d+ s$", text, re.MULTILINE)
    assert re.search(r"^last seen: +\d+ s ago$", text, re.MULTILINE)
    assert re.search(r"^fix: +check 'host' and 'port'", text, re.MULTILINE)


def _two_minutes_pass(world: Cluster, before: dict[str, tuple[str, str]]) -> None:
    """Let the executor try again each time that it has set itself, and never earlier."""
    began = world.now
    while world.now < began + 120:
        status = world.status
        world.advance(status.next_try - 0.1)
        assert world.status == status, "it must not be tried before its time"
        world.offset += status.next_try - world.now
        world.advance()
        assert world.status.failures == status.failures + 1
        assert world.status.next_try > world.now
        assert world.tells() == before


def test_d1_a_local_worker_goes_on_meanwhile(
    make_cluster: MakeCluster, slurm: Slurm, new_sshd: NewSshd
) -> None:
    sshd = new_sshd(env=slurm.env)
    world = make_cluster(slurm, sshd)
    sshd.stop()
    world.logging("remote", 1)
    world.logging("local", 2, worker="w1")
    world.reconcile()
    world.until(lambda: world.states("local/local-000", "local/local-001") == ["COMPLETED"] * 2)
    assert world.state("remote/remote-000") == "READY", "a patch may still reach it"
    sshd.start()
    world.offset += 300
    finish(world)


def test_d1_a_host_that_hangs(make_cluster: MakeCluster, slurm: Slurm, new_sshd: NewSshd) -> None:
    """A pass ends in time, and the next one serves the other worker."""
    sshd = new_sshd(env=slurm.env)
    world = make_cluster(slurm, sshd, timeout_execute=2, connect_timeout=2)
    gate = world.gated("remote")
    world.reconcile()
    world.until(all_run(world, "remote"))
    world.logging("local", 2, worker="w1")
    world.reconcile()
    before = world.state("remote/remote-000")
    with sshd.frozen():
        world.offset += 60
        with takes(1.9):
            world.advance()
        assert "did not answer within 2 s" in world.status.reason
        world.until(lambda: world.states("local/local-000", "local/local-001") == ["COMPLETED"] * 2)
        assert world.state("remote/remote-000") == before
        gate.touch()
    world.offset += 300
    finish(world)


def test_d1_slurmctld_is_killed_while_jobs_wait_and_run(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd
) -> None:
    slurm = new_slurm(nodes=1, cpus=2)
    world = make_cluster(slurm, new_sshd(env=slurm.env))
    gate = world.gated("jobs", 4)
    world.reconcile()
    world.until(lambda: world.count("RUNNING") == 2 and len(world.ran()) == 2)
    slurm.wait_saved()
    before = world.tells()
    assert sorted(state for state, _ in before.values()) == ["RUNNING"] * 2 + ["SUBMITTED"] * 2
    slurm.kill_controller()
    world.advance(world.now + 60)
    assert world.tells() == before
    assert not world.status.reachable
    assert "squeue gave no answer" in world.status.reason
    gate.touch()
    world.wait_for_markers(2)
    slurm.start_controller()
    world.offset = 90
    finish(world)


def test_d1_slurmctld_forgets_what_it_had_started(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd, tmp_path: Path
) -> None:
    """Killed before it has written down that jobs began, it starts again what has ended already.

    Whatever Slurm thinks of them then, and whenever it gets to it: what counts is that their scripts came to
    an end a second time, as told by the nodes.
    """
    ended = Ended(tmp_path)
    slurm = new_slurm(more=ended.config)
    world = make_cluster(slurm, new_sshd(env=slurm.env))
    names = world.logging("quick", 3, exec_config={"pre_run": "echo a word"})
    world.reconcile()
    slurm.call("scontrol", "update", "PartitionName=debug", "State=DOWN")
    world.advance()
    assert world.count("SUBMITTED") == 3
    ids = [job.attempt.queue_id or "" for job in world.jobs().values()]
    slurm.wait_saved()
    before = slurm.saved_jobs()
    slurm.call("scontrol", "update", "PartitionName=debug", "State=UP")
    for queue_id in ids:
        slurm.wait_state(queue_id, "COMPLETED")
    assert ended.times() == dict.fromkeys(ids, 1)
    slurm.kill_controller()
    slurm.forget_since(before)
    slurm.start_controller()
    slurm.call("scontrol", "update", "PartitionName=debug", "State=UP")
    assert eventually(lambda: ended.times() == dict.fromkeys(ids, 2), 200)
    assert world.ran() == dict.fromkeys(names, 1), NEVER_TWICE
    finish(world)
    logs = [Path(job.attempt.run_dir or "") / STDOUT for job in world.jobs().values()]
    assert [lines(log) for log in logs] == [["a word"]] * 3, "what was printed is still there"


class Ended:
    """Counts how often the script of each job has come to its end, which only the node knows for sure."""

    def __init__(self, directory: Path) -> None:
        self._log, program = directory / "ended", directory / "tell-the-end"
        self._log.touch()
        program.write_text(f"#!/bin/bash\necho $SLURM_JOB_ID >> {self._log}\n")
        program.chmod(0o755)
        self.config = f"TaskEpilog={program}"

    def times(self) -> Counter[str]:
        """Return the count of each job."""
        return Counter(lines(self._log))


# D2: the listing omits jobs ---------------------------------------------------------------------------


class Faults:
    """Wrappers around programs of the cluster, first on the PATH there, that misbehave when told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    @property
    def path(self) -> str:
        """The PATH for the sessions."""
        return f"{self.directory}:{SEARCH_PATH}"

    def wrap(self, name: str, text: str) -> None:
        """Put a program before the real one, which is ``$real``; ``$at`` is where its files are."""
        file = self.directory / name
        head = f"#!/bin/bash\nreal={program(name)} at={self.directory}/{name}\n"
        file.write_text(f"{head}{text}\n")
        file.chmod(0o755)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Misbehave for a while."""
        self.flag(name).touch()
        try:
            yield
        finally:
            self.flag(name).unlink()

    def flag(self, name: str, kind: str = "on") -> Path:
        """Return a file by which a wrapper and a test tell each other something."""
        return self.directory / f"{name}.{kind}"


@pytest.fixture
def faults(tmp_path: Path, slurm_sshd: Sshd) -> Faults:
    """Wrappers where the user of the cluster can run them."""
    return Faults(slurm_sshd.login.home / f"faults-{tmp_path.name}")


def clumsy(new_sshd: NewSshd, slurm: Slurm, faults: Faults) -> Sshd:
    """Return a server in whose sessions the wrappers are found first."""
    return new_sshd(env={**slurm.env, "PATH": faults.path})


@pytest.mark.parametrize(
    "omitting",
    [
        pytest.param('"$real" "$@" | sed "s/.*//"', id="blank_lines"),
        pytest.param("exit 0", id="nothing_at_all"),
        pytest.param('"$real" "$@" | grep -v "<><>R<><>"', id="running_jobs"),
    ],
)
def test_d2_a_listing_that_omits_live_jobs(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd, faults: Faults, omitting: str
) -> None:
    """Neither jobs that run nor those that wait in the queue are given up."""
    slurm = new_slurm(nodes=1, cpus=2)
    faults.wrap("squeue", f'if [ -e "$at.on" ]; then {omitting}; else exec "$real" "$@"; fi')
    world = make_cluster(slurm, clumsy(new_sshd, slurm, faults))
    gate = world.gated("jobs", 4)
    world.reconcile()
    world.until(lambda: world.count("RUNNING") == 2 and len(world.ran()) == 2)
    before = world.tells()
    with faults.on("squeue"):
        for _ in range(4):
            world.offset += 30
            world.advance()
            assert world.tells() == before
    gate.touch()
    finish(world)


IGNORANT = {
    "squeue": "exit 0",
    "scontrol": 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1',
    "sacct": "exit 0",
}
"""Programs of a Slurm that knows no job, as after it has lost its memory."""


@pytest.fixture
def forgetful(
    make_cluster: MakeCluster,
    new_slurm: NewSlurm,
    new_sshd: NewSshd,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Cluster:
    """A cluster whose scheduler knows no job while ``faults`` are on; hearts beat twice a second.

    It has two processors, or as many as its parameter says.
    """
    monkeypatch.setattr(run_files, "HEARTBEAT", 0.5)
    for name, text in IGNORANT.items():
        faults.wrap(name, f'if [ -e "$at.on" ]; then {text}; else exec "$real" "$@"; fi')
    slurm = new_slurm(nodes=1, cpus=getattr(request, "param", 2))
    return make_cluster(slurm, clumsy(new_sshd, slurm, faults))


@contextmanager
def forgotten(faults: Faults) -> Iterator[None]:
    """Let the scheduler know no job for a while."""
    with ExitStack() as stack:
        for name in IGNORANT:
            stack.enter_context(faults.on(name))
        yield


RETRIES = {"limit": 2, "backoff": "1s", "on": ["lost", "killed", "never_started"]}


def test_d2_a_job_that_the_scheduler_does_not_know_lives_by_its_heartbeat(
    forgetful: Cluster, faults: Faults
) -> None:
    """For four minutes of the executor's clock, with retries on: no second copy, and one line of the job."""
    world = forgetful
    gate = world.gated("jobs", 2, retries=RETRIES)
    world.reconcile()
    world.until(all_run(world, "jobs"))
    with forgotten(faults):
        for _ in range(24):
            world.advance()
            world.offset += 10
            time.sleep(0.6)
        assert {job.state.value for job in world.jobs().values()} == {"RUNNING"}
        assert all(job.attempt.heartbeat for job in world.jobs().values())
    gate.touch()
    finish(world)


def test_d2_two_minutes_in_real_time(forgetful: Cluster, faults: Faults) -> None:
    """The same by the clock on the wall; `make faults` takes the two minutes, the suite some seconds."""
    world = forgetful
    seconds = 125 if IS_LONG else 5
    gate = world.gated("jobs", 3, retries=RETRIES)
    world.reconcile()
    world.until(lambda: world.count("RUNNING") == 2 and len(world.ran()) == 2)
    end = time.monotonic() + seconds
    with forgotten(faults):
        while time.monotonic() < end:
            world.advance()
            time.sleep(0.2)
    gate.touch()
    finish(world)


def test_d2_a_job_that_waits_is_not_given_up_because_nobody_lists_it(
    forgetful: Cluster, faults: Faults
) -> None:
    world = forgetful
    gate = world.gated("jobs", 3, retries=RETRIES)  # two processors: one of them waits
    world.reconcile()
    world.until(lambda: world.count("RUNNING") == 2 and len(world.ran()) == 2)
    before = world.tells()
    with forgotten(faults):
        for _ in range(13):
            world.advance()
            world.offset += 10
            time.sleep(0.6)
        assert world.tells() == before
    gate.touch()
    finish(world)


def test_d2_a_job_that_shows_no_sign_of_life_is_lost_and_its_claim_is_taken(
    forgetful: Cluster, faults: Faults
) -> None:
    world = forgetful
    gate = world.gated("jobs", 1, retries=RETRIES)
    world.reconcile()
    world.until(all_run(world, "jobs"))
    first = world.job("jobs/jobs-000")
    with forgotten(faults):
        processes.kill_trees(lambda: processes.of_directory(Path(first.attempt.run_dir or "")))
        world.until(lambda: world.job(first.path).retry.causes or world.elapse(10))
    assert world.job(first.path).retry.causes == [Cause.LOST]
    gate.touch()
    world.until(lambda: world.state(first.path) == "COMPLETED" or world.elapse(2))
    assert world.job(first.path).attempt.number == 2
    assert (Path(first.attempt.run_dir or "") / "claim" / "withdrawn").exists()


@pytest.mark.parametrize("forgetful", [3], indirect=True)
def test_d2_the_late_result_of_a_lost_attempt_is_taken(forgetful: Cluster, faults: Faults) -> None:
    """One comes before the next look at the cluster, the other one after it."""
    world = forgetful
    gates = [world.gated("soon"), world.gated("later")]
    other = world.gated("other")
    world.reconcile()
    world.until(lambda: world.count("RUNNING") == 3 and len(world.ran()) == 3)
    late = [world.job("soon/soon-000"), world.job("later/later-000")]
    for job in late:
        heart = Path(job.attempt.run_dir or "") / "claim" / "heartbeat"
        heart.unlink()
        heart.mkdir()  # nothing can be written there any more
    pulse = Path(world.job("other/other-000").attempt.run_dir or "") / "claim" / "heartbeat"

    def beats() -> None:
        before = lines(pulse)
        assert eventually(lambda: lines(pulse) not in (before, []), 60)

    with forgotten(faults):
        world.until(lambda: world.count("FAILED") == 2 or world.elapse(20) or beats())
        assert [world.job(job.path).cause for job in late] == [Cause.LOST] * 2
        assert world.state("other/other-000") == "RUNNING"
    for number, (gate, job) in enumerate(zip(gates, late, strict=True)):
        gate.touch()
        if number == 0:
            world.wait_for_markers(1)
        world.until(lambda job=job: world.state(job.path) == "COMPLETED" or world.elapse(2))
    other.touch()
    finish(world)


# D3: the worker is gone from git ----------------------------------------------------------------------


def test_d3_a_worker_removed_from_git_serves_until_its_jobs_end(
    make_cluster: MakeCluster, slurm: Slurm, slurm_sshd: Sshd
) -> None:
    world = make_cluster(slurm, slurm_sshd, max_jobs=1)
    gate = world.gated("jobs", 2)
    world.reconcile()
    world.until(lambda: world.count("RUNNING") == 1 and len(world.ran()) == 1)
    world.repository.remove("workers/hpc.yaml")
    world.defaults("worker: w1")
    world.reconcile()
    world.restart()
    gate.touch()
    finish(world)
    assert sorted(job.attempt.worker or "" for job in world.jobs().values()) == [HPC, "w1"]
    world.logging("next", 1)
    world.reconcile()
    config = world.view(lambda view: view.config())
    assert HPC not in config.workers


# a queue that is full is no outage --------------------------------------------------------------------

LIMITED = """
echo call >> "$at.calls"
if [ "$(squeue --noheader --user "$(id -un)" | wc -l)" -ge 3 ]; then
echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)" >&2
exit 1
fi
exec "$real" "$@"
"""


def test_a_slurm_that_takes_no_more_jobs_of_a_user_is_waited_for(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd, faults: Faults
) -> None:
    """It is asked once, and again after a while or when a job has ended; all others can still be edited."""
    faults.wrap("sbatch", LIMITED)
    slurm = new_slurm(nodes=1, cpus=4)
    world = make_cluster(slurm, clumsy(new_sshd, slurm, faults))
    calls = faults.flag("sbatch", "calls")
    calls.touch()
    calls.chmod(0o666)
    gate = world.gated("jobs", 8)
    world.reconcile()
    assert world.advance()
    assert (world.count("SUBMITTED"), world.count("READY"), len(lines(calls))) == (3, 5, 4)
    assert all(
        "QOSMaxSubmitJob" in (job.attempt.waiting or "")
        for job in world.jobs().values()
        if job.attempt.queue_id is None
    )
    assert world.status.reachable
    assert world.executor is not None
    (warning,) = world.executor.warnings()
    assert "QOSMaxSubmitJobPerUserLimit" in warning
    assert "set max_jobs of the worker" in warning
    world.logging("later", 4)
    world.reconcile()
    begin = world.now
    for seconds, asked in ((0, 5), (29, 5), (31, 6)):  # the first, since this executor is a new one
        world.advance(begin + seconds)
        assert len(lines(calls)) == asked
    assert world.count("READY") == 9
    assert world.executor.warnings() == [], "it is told once"
    gate.touch()
    finish(world)
    assert world.status.failures == 0


# D8: interrupted in the middle ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "slow"),
    [
        pytest.param("tar", 'touch "$at.runs"; sleep 1; exec "$real" "$@"', id="upload"),
        pytest.param("sbatch", 'touch "$at.runs"; sleep 1; exec "$real" "$@"', id="before_sbatch"),
        pytest.param("sbatch", '"$real" "$@"; touch "$at.runs"; sleep 1', id="after_sbatch"),
    ],
)
def test_d8_connection_lost_in_the_middle(
    make_cluster: MakeCluster, slurm: Slurm, new_sshd: NewSshd, faults: Faults, name: str, slow: str
) -> None:
    """What was uploaded or submitted half is found again, or done again; each job runs once."""
    faults.wrap(name, f'if [ -e "$at.on" ]; then {slow}; else exec "$real" "$@"; fi')
    sshd = clumsy(new_sshd, slurm, faults)
    world = make_cluster(slurm, sshd)
    world.logging("jobs", 3)
    world.reconcile()
    with faults.on(name), sshd.cut_when(faults.flag(name, "runs").exists):
        world.advance()
    assert not world.status.reachable
    assert world.count("CHECKED_OUT" if name == "tar" else "UPLOADED") == 3
    finish(world)


STEPS = ("upload", "submit", "poll", "collect")
MOMENTS = [f"{step}:{moment}:1" for step in STEPS for moment in ("before", "after")]


def test_d8_killed_at_every_step(make_cluster: MakeCluster, slurm: Slurm, slurm_sshd: Sshd) -> None:
    world = make_cluster(slurm, slurm_sshd)
    names = world.chain("chain", len(MOMENTS))
    world.repository.commit()
    world.store.close()
    for moment in MOMENTS:
        assert reconcile_killed_at(world, moment) == -signal.SIGKILL, moment
    assert reconcile_killed_at(world, "write:before:100000") == 0
    world.store = Store(world.root / "state")
    assert lines(world.log) == names, NEVER_TWICE
    assert {(job.state.value, job.attempt.number) for job in world.jobs().values()} == {("COMPLETED", 1)}


# D9: no result ----------------------------------------------------------------------------------------


def test_d9_a_node_that_fails(make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd) -> None:
    """A death is told from an outage: the scheduler answers, and says what became of the job."""
    slurm = new_slurm(nodes=1, cpus=1)
    world = make_cluster(slurm, new_sshd(env=slurm.env))
    world.gated("lost")
    world.reconcile()
    world.until(all_run(world, "lost"))
    slurm.node_down("n1")
    world.until(lambda: world.state("lost/lost-000") == "FAILED" or world.elapse(5))
    job = world.job("lost/lost-000")
    assert job.cause == Cause.NODE_FAIL
    assert "NODE_FAIL" in (job.error or "")
    assert world.status.reachable


def test_d9_cancelled_by_somebody_else_before_it_started(
    make_cluster: MakeCluster, new_slurm: NewSlurm, new_sshd: NewSshd
) -> None:
    """Given up for good: its claim is taken, so that no late script of it can run."""
    slurm = new_slurm(nodes=1, cpus=1)
    world = make_cluster(slurm, new_sshd(env=slurm.env))
    world.logging("never", 1)
    world.reconcile()
    slurm.call("scontrol", "update", "PartitionName=debug", "State=DOWN")
    world.advance()
    job = world.job("never/never-000")
    slurm.call("scancel", job.attempt.queue_id or "")
    world.until(lambda: world.state(job.path) == "REMOTE_ERROR" or world.elapse(5))
    assert "CANCELLED" in (world.job(job.path).error or "")
    assert "it never started" in (world.job(job.path).error or "")
    late = {"PATH": SEARCH_PATH, "SLURM_JOB_ID": job.attempt.queue_id or ""}
    subprocess.run(["bash", f"{job.attempt.run_dir}/submit.sh"], check=True, env=late)
    assert world.ran() == {}
