"""The services really serve, and nothing of them is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services import PLACES, Place
from tests.services.gridengine import GridEngine
from tests.services.login import Login
from tests.services.plugin import NewSshd
from tests.services.processes import command_of, of_directory, send, wait_gone
from tests.services.programs import PATIENCE, ServiceError, is_listening, program, wait_until
from tests.services.shared import SharedServices
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd
from tests.support import ROOT


def ask(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE)


class TestSshd:
    def test_runs_a_command_as_the_user_in_a_clean_home(self, sshd: Sshd, login: Login) -> None:
        done = ask(sshd.command("bash", "-l", "-s"), "id -u; pwd; echo $HOME")
        assert done.stdout.split() == [str(login.uid), str(login.home), str(login.home)], done.stderr

    def test_the_user_can_run_jobs(self, sshd: Sshd) -> None:
        done = ask(sshd.command(sys.executable, "-c", "'import reconciler; print(reconciler.__name__)'"))
        assert done.stdout == "reconciler\n", done.stderr

    def test_listens_on_loopback_only(self, sshd: Sshd) -> None:
        rows = [row.split() for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
        listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{sshd.port:04X}")}
        assert listening == {f"0100007F:{sshd.port:04X}"}

    def test_jump(self, sshd: Sshd, gateway: Sshd) -> None:
        done = ask(sshd.command("echo $SSH_CONNECTION", config=sshd.config_through(gateway)))
        assert done.stdout.split()[3] == str(sshd.port), done.stderr
        log = gateway.log.read_text(encoding="utf-8")
        assert f"Accepted publickey for {gateway.user}" in log

    def test_a_key_of_another_server_is_refused(self, sshd: Sshd, gateway: Sshd) -> None:
        own = [
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            f"UserKnownHostsFile={sshd.known_hosts}",
            "-o",
            "BatchMode=yes",
        ]
        target = ["-p", str(sshd.port), f"{sshd.user}@{sshd.host}", "true"]
        done = ask([program("ssh"), "-F", "none", *own, "-i", str(gateway.key), *target])
        assert done.returncode == 255
        assert "Permission denied" in done.stderr

    def test_without_sftp(self, new_sshd: NewSshd, sshd: Sshd) -> None:
        bare = new_sshd(sftp=False)
        assert ask(bare.command("echo", "here")).stdout == "here\n"
        assert ask(_sftp(bare)).returncode != 0
        assert ask(_sftp(sshd)).returncode == 0

    def test_variables_also_in_a_login_shell(self, new_sshd: NewSshd) -> None:
        server = new_sshd(env={"RC_COLOUR": "dark red", "PATH": "/opt/x:/usr/bin:/bin"})
        done = ask(server.command("bash", "-l", "-s"), 'echo "$RC_COLOUR"; echo "$PATH"')
        assert done.stdout.splitlines() == ["dark red", "/opt/x:/usr/bin:/bin"], done.stderr

    def test_stop_ends_the_listener_and_restart_brings_it_back(self, new_sshd: NewSshd) -> None:
        server = new_sshd()
        server.stop()
        assert not is_listening(server.port)
        assert ask(server.command("true")).returncode == 255
        server.start()
        assert ask(server.command("true")).returncode == 0

    def test_a_session_survives_a_restart_and_not_its_kill(self, new_sshd: NewSshd) -> None:
        server = new_sshd()
        client = subprocess.Popen(server.command("echo up; exec sleep 60"), stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        server.restart()
        assert client.poll() is None
        server.kill_sessions()
        assert client.wait(PATIENCE) == 255
        client.stdout.close()
        assert ask(server.command("true")).returncode == 0

    def test_frozen(self, new_sshd: NewSshd) -> None:
        server = new_sshd()
        with server.frozen(), pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(server.command("true"), timeout=1)
        assert ask(server.command("true")).returncode == 0


def _sftp(server: Sshd) -> list[str]:
    return [program("sftp"), "-q", "-b", "/dev/null", "-F", str(server.ssh_config), server.name]


class TestAccounts:
    def test_a_plain_user_with_spaces_in_its_home(
        self, new_account: Callable[..., Login], new_sshd: NewSshd
    ) -> None:
        login = new_account(home="a home")
        text = "id -un; pwd; echo x > x; cat x"
        done = ask(new_sshd(login=login).command("bash", "-l", "-s"), text)
        assert done.stdout.splitlines() == [login.name, str(login.home), "x"], done.stderr
        assert login.home.name == "a home"

    def test_a_plain_user_runs_on_slurm(
        self, new_account: Callable[..., Login], new_sshd: NewSshd, slurm: Slurm
    ) -> None:
        server = new_sshd(login=new_account(), env=slurm.env)
        script = "#!/bin/bash\nid -un > who.new && mv who.new who\n"
        done = ask(server.command("bash -l -c 'sbatch --parsable --output=/dev/null'"), script)
        assert done.stdout.strip().isdigit(), done.stderr
        who = server.login.home / "who"
        wait_until(who.exists, "the output of the job")
        assert who.read_text(encoding="ascii").strip() == server.user


class TestSlurm:
    def test_a_job_of_each_partition_and_its_end_state(self, slurm: Slurm) -> None:
        jobs = {slurm.sbatch("exit 3", f"--partition={name}"): name for name in ("debug", "batch")}
        for job in jobs:
            slurm.wait_state(job, "FAILED")
        form = ["--noheader", "--parsable2", "--format=JobID,Partition,State"]
        rows = slurm.call("sacct", "-c", *form, "-j", ",".join(jobs)).split()
        assert set(rows) == {f"{job}|{partition}|FAILED" for job, partition in jobs.items()}

    def test_a_finished_job_is_forgotten(self, short_slurm: Slurm) -> None:
        job = short_slurm.sbatch("true")
        short_slurm.wait_state(job, "")
        with pytest.raises(ServiceError, match="Invalid job id"):
            short_slurm.call("scontrol", "show", "job", job)

    def test_jobs_survive_a_killed_controller_but_neither_their_node_nor_the_end(
        self, new_slurm: Callable[..., Slurm], tmp_path: Path
    ) -> None:
        cluster = new_slurm(nodes=2, cpus=2)
        go = tmp_path / "go"
        waits = cluster.sbatch(f"until [ -e '{go}' ]; do sleep 0.1; done", "--nodelist=n1")
        fails = cluster.sbatch("sleep 60", "--no-requeue", "--nodelist=n2")
        cluster.wait_state(waits, "RUNNING")
        cluster.wait_state(fails, "RUNNING")
        cluster.wait_saved()
        cluster.kill_controller()
        assert not is_listening(cluster.port)
        cluster.start_controller()
        assert cluster.state(waits) == cluster.state(fails) == "RUNNING"
        cluster.node_down("n2")
        cluster.wait_state(fails, "NODE_FAIL")
        go.touch()
        cluster.wait_state(waits, "COMPLETED")
        cluster.wait_state(cluster.sbatch("sleep 60"), "RUNNING")
        assert len(of_directory(cluster.directory, ["slurmd"])) >= 2
        cluster.close()
        assert [command_of(pid) for pid in of_directory(cluster.directory)] == []
        assert not is_listening(cluster.port)
        assert not cluster.directory.exists()


class TestGridEngine:
    def test_a_job_of_each_queue_and_its_record(self, sge: GridEngine) -> None:
        jobs = {sge.qsub("exit 3", "-q", name): name for name in ("all.q", "batch.q")}
        for job, queue in jobs.items():
            sge.wait_state(job, "")
            record = sge.record(job)
            assert (record["qname"], record["exit_status"], record["failed"]) == (queue, "3", "0")

    def test_slots_and_cancel(self, sge: GridEngine) -> None:
        job = sge.qsub("sleep 60", "-pe", "smp", "2")
        sge.wait_state(job, "r")
        assert f"has registered the job {job} for deletion" in sge.call("qdel", job)
        sge.wait_state(job, "")
        assert sge.record(job)["slots"] == "2"

    def test_jobs_survive_the_master_and_nothing_is_left_after_the_end(
        self, new_sge: Callable[..., GridEngine]
    ) -> None:
        cell = new_sge()
        job = cell.qsub("sleep 60")
        cell.wait_state(job, "r")
        cell.kill_master()
        with pytest.raises(ServiceError):
            cell.state(job)
        cell.start_master()
        assert cell.state(job) == "r"
        cell.close()
        assert not of_directory(cell.directory)
        assert not cell.directory.exists()


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_places_have_what_their_worker_needs(place: Place) -> None:
    """The scheduler answers where the worker's commands run: here, or at the end of the connection."""
    listing = {"shell": "true", "slurm": "squeue --noheader", "sge": "qstat"}[place.spec["scheduler_type"]]
    command = ["bash", "-c", listing]
    if place.sshd is not None:
        command = place.sshd.command("bash", "-l", "-c", f"'{listing}'")
    done = ask(command)
    assert done.returncode == 0, done.stderr
    assert place.spec["work_dir"] == str(place.work_dir)


class TestEndOfARun:
    """What is started for a run ends with it, whatever happens to the process that owns it."""

    @pytest.fixture
    def run_of_a_process(self) -> tuple[subprocess.Popen[str], SharedServices]:
        """A process that owns a run with an sshd, and waits."""
        code = (
            "import sys; from tests.services.shared import SharedServices as S;"
            "from tests.services.login import present_login as l; from tests.services.sshd import Sshd;"
            "s = S.of_this_process(); s.once('sshd', lambda d: Sshd(d, l(s.directory)).start());"
            "print(s.directory, flush=True); sys.stdin.read(); s.close()"
        )
        owner = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert owner.stdout is not None
        return owner, SharedServices(Path(owner.stdout.readline().strip()), owner.pid)

    def test_normal_end(self, run_of_a_process: tuple[subprocess.Popen[str], SharedServices]) -> None:
        owner, run = run_of_a_process
        assert _daemons(run)
        owner.communicate("")
        assert not run.directory.exists()
        assert not of_directory(run.directory)

    def test_killed_owner(self, run_of_a_process: tuple[subprocess.Popen[str], SharedServices]) -> None:
        owner, run = run_of_a_process
        owner.kill()
        owner.communicate()
        wait_until(lambda: not run.directory.exists(), "the keeper")
        assert wait_gone(of_directory(run.directory), PATIENCE)

    def test_killed_owner_and_keeper(
        self, run_of_a_process: tuple[subprocess.Popen[str], SharedServices]
    ) -> None:
        owner, run = run_of_a_process
        send(_keepers(run), signal.SIGKILL)
        owner.kill()
        owner.communicate()
        assert _daemons(run)
        following = SharedServices.of_this_process()
        following.open()
        try:
            assert not run.directory.exists()
            assert not of_directory(run.directory)
        finally:
            following.close()


def _daemons(run: SharedServices) -> set[int]:
    return of_directory(run.directory, ["sshd"])


def _keepers(run: SharedServices) -> set[int]:
    return of_directory(run.directory) - _daemons(run) - {run.owner}


def test_a_missing_program_fails_with_the_fix() -> None:
    with pytest.raises(ServiceError, match="'no-such-daemon' is not installed; run: make services"):
        program("no-such-daemon")


def test_a_service_that_does_not_start_is_tried_once() -> None:
    run = SharedServices.of_this_process()
    tries = []

    def start(place: Path) -> None:
        tries.append(place)
        raise ServiceError("no way")

    try:
        for _ in range(2):
            with pytest.raises(ServiceError, match="no way"):
                run.once("broken", start)
    finally:
        run.close()
    assert len(tries) == 1
