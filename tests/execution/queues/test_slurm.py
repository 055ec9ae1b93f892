"""The Slurm queue on a real Slurm; on recorded and documented answers where that gives none on demand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qtoolkit.core.data_objects import CancelStatus, QState, SubmissionStatus
from qtoolkit.core.exceptions import InvalidJobIDError, OutputParsingError
from qtoolkit.host.local import LocalHost as TheirLocalHost
from qtoolkit.io import SlurmIO
from qtoolkit.manager import QueueManager

from reconciler.errors import TransientError
from reconciler.execution.headers import submission_header
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.queues.base import QueueEntry, QueueState, Refusal, Termination
from reconciler.execution.queues.slurm import SlurmQueue
from reconciler.model.retries import Cause
from reconciler.model.settings import Resources
from tests.execution.queues.recordings import refusal
from tests.execution.support import eventually
from tests.services.slurm import Slurm

GONE = "49999999"
PENDING, RUNNING, HELD = QueueState.PENDING, QueueState.RUNNING, QueueState.HELD


class Cluster:
    """Scripts on a real Slurm, as the executor would submit them; all are cancelled at the end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = LocalHost()
        self.queue = SlurmQueue(None)
        self.ids: list[str] = []

    def run(self, command: str) -> CommandResult:
        """Run what a queue wrote, on this machine."""
        return self.host.run(command, timeout=60)

    def submit(self, body: str, name: str = "job.1_1.1", folder: str = "", **keywords: Any) -> str:
        """Submit a script with a directory of its own."""
        directory = self.root / (folder or str(len(self.ids)))
        directory.mkdir(parents=True)
        header = submission_header("slurm", Resources(keywords), name)
        (directory / "submit.sh").write_text(f"{header}{body}\n")
        return self.submit_in(directory)

    def submit_in(self, directory: Path) -> str:
        """Submit the script of a directory."""
        done = self.run(f"cd '{directory}'; {self.queue.submit_command('submit.sh')}")
        queue_id = self.queue.submitted_id(done.stdout)
        assert queue_id is not None, done
        self.ids.append(queue_id)
        return queue_id

    def odd(self, *options: str) -> str:
        """Submit what the product would not: with options of the command line."""
        self.root.mkdir(parents=True, exist_ok=True)
        script = self.root / "odd.sh"
        script.write_text("#!/bin/bash\nsleep 300\n")
        words = " ".join(f"'{option}'" for option in (*options, "--output=/dev/null", str(script)))
        queue_id = self.queue.submitted_id(self.run(f"sbatch {words}").stdout)
        assert queue_id is not None, options
        self.ids.append(queue_id)
        return queue_id

    def entries(self, *queue_ids: str) -> dict[str, QueueEntry]:
        """Return the listing of these jobs."""
        return self.queue.listing(
            dict.fromkeys(queue_ids, ""), self.run(self.queue.listing_command(queue_ids))
        )

    def state(self, queue_id: str) -> QueueState | None:
        """Return the state of one job, None if it is not in the queue."""
        entry = self.entries(queue_id).get(queue_id)
        return entry.state if entry else None

    def wait(self, queue_id: str, state: QueueState | None) -> None:
        """Wait until a job is in a state."""
        assert eventually(lambda: self.state(queue_id) is state), self.entries(queue_id)

    def cancel(self, *queue_ids: str) -> dict[str, str]:
        """Cancel jobs; return the problems."""
        return self.queue.cancelled(queue_ids, self.run(self.queue.cancel_command(queue_ids)))

    def death(self, queue_id: str) -> Termination | None:
        """Return what is known of a job that is over."""
        return self.queue.accounting(queue_id, self.run(self.queue.accounting_command(queue_id)))


def on(service: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Give a cluster whose clients find this service."""
    for name, value in service.env.items():
        monkeypatch.setenv(name, value)
    found = Cluster(tmp_path / "work")
    yield found
    if found.ids:
        service.call("scancel", *found.ids)


@pytest.fixture
def cluster(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    yield from on(slurm, tmp_path, monkeypatch)


@pytest.fixture
def forgetful(short_slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    yield from on(short_slurm, tmp_path, monkeypatch)


def answer(stdout: str = "", stderr: str = "", exit_code: int = 0) -> CommandResult:
    """Return an answer as it was recorded."""
    return CommandResult(exit_code, stdout, stderr)


def squeue_line(queue_id: str, state: str, reason: str = "None", name: str = "a.1") -> str:
    """Return a line as squeue prints it for qtoolkit's format."""
    rest = [name, "root", "debug", "1:00:00", "1", "1", "0:00", "0"]
    return "<><> ".join([queue_id, state, reason, *rest]) + "\n"


def recorded(queue: SlurmQueue, *lines: str) -> dict[str, QueueEntry]:
    """Return what a queue reads in lines; ours are the jobs 1 to 9."""
    return queue.listing({str(number): "" for number in range(1, 10)}, answer("".join(lines)))


# the life of a job ------------------------------------------------------------------------------------


def test_a_job_from_submission_to_its_end(cluster: Cluster) -> None:
    gate = cluster.root / "gate"
    queue_id = cluster.submit(f"while [ ! -e {gate} ]; do sleep 0.1; done; echo done")
    cluster.wait(queue_id, RUNNING)
    assert cluster.entries(queue_id) == {queue_id: QueueEntry(RUNNING)}
    assert cluster.death(queue_id) == Termination("Slurm: RUNNING", over=False)
    gate.touch()
    cluster.wait(queue_id, None)
    assert said(cluster.root / "0") == "done\n"
    assert cluster.death(queue_id) == Termination("Slurm: COMPLETED", exit_code=0)


def test_a_waiting_job_tells_its_reason_and_is_cancelled(cluster: Cluster) -> None:
    queue_id = cluster.odd("--begin=now+1hour")
    assert eventually(lambda: cluster.entries(queue_id)[queue_id].reason == "BeginTime")
    entry = cluster.entries(queue_id)[queue_id]
    assert (entry.state, entry.waiting) == (PENDING, "BeginTime")
    assert entry.start is not None and abs(entry.start - time.time() - 3600) < 120
    assert cluster.cancel(queue_id) == {}
    cluster.wait(queue_id, None)
    found = cluster.death(queue_id)
    assert found is not None and (found.cause, found.exit_code) == (Cause.KILLED, None)
    assert found.text == "Slurm: CANCELLED"


def test_a_held_job_is_held(cluster: Cluster) -> None:
    queue_id = cluster.odd("--hold")
    assert cluster.entries(queue_id) == {queue_id: QueueEntry(HELD, "JobHeldUser")}


@pytest.mark.parametrize(
    ("option", "reason", "fix"),
    [
        ("--time=90-00", "PartitionTimeLimit", "ask for less `time` or another `partition`"),
        ("--nodes=9", "PartitionNodeLimit", "ask for less `nodes` or another `partition`"),
        ("--ntasks=1000", "PartitionConfig", "ask for less, or another `partition`"),
    ],
)
def test_what_can_never_run_says_so(cluster: Cluster, option: str, reason: str, fix: str) -> None:
    queue_id = cluster.odd(option)
    assert eventually(lambda: cluster.entries(queue_id)[queue_id].reason == reason)
    entry = cluster.entries(queue_id)[queue_id]
    assert entry.state is PENDING and entry.never.endswith(f"{fix} ({reason})")


def test_a_job_is_found_by_its_name(cluster: Cluster) -> None:
    name = "a-relaxation.ee5ed8e4-068f-5ec8-8c2f-d451816ddb65_1.2"
    twice = [cluster.submit("sleep 300", name) for _ in range(2)]
    cluster.submit("sleep 300", f"{name}1")
    names = [f"absent{number}.{name}" for number in range(3000)] + [name]
    found = cluster.queue.found(names, cluster.run(cluster.queue.find_command(names)))
    assert found == {name: twice[0]}, "the first of two"


def test_jobs_are_listed_by_user_where_that_is_asked_for(cluster: Cluster) -> None:
    mine, other = cluster.submit("sleep 300"), cluster.submit("sleep 300")
    cluster.queue = SlurmQueue(cluster.run("id -un").stdout.strip())
    assert mine not in cluster.queue.listing_command([mine]).split()
    assert set(cluster.entries(mine, GONE)) == {mine}
    assert set(cluster.entries(mine, other)) == {mine, other}


def test_a_user_that_cannot_be_looked_up_is_no_empty_queue(cluster: Cluster) -> None:
    """Squeue ends with exit code 0 then, and an empty list."""
    cluster.queue = SlurmQueue("nobody knows'him")
    done = cluster.run(cluster.queue.listing_command(["1"]))
    assert (done.exit_code, done.stdout) == (0, "")
    with pytest.raises(TransientError, match="Invalid user: nobody knows'him"):
        cluster.queue.listing({"1": ""}, done)


def test_variables_of_the_login_shell_change_nothing(cluster: Cluster) -> None:
    odd = "export SQUEUE_STATES=SUSPENDED SQUEUE_USERS=nobody SBATCH_JOB_NAME=x SBATCH_WAIT=1\n"
    odd += "export SBATCH_REQUEUE=1 SCANCEL_STATE=SUSPENDED SBATCH_OUTPUT=/dev/null SBATCH_ARRAY_INX=1-3\n"
    plain, cluster.run = cluster.run, lambda command: plain(odd + command)  # type: ignore[method-assign]
    queue_id = cluster.submit("echo seen; sleep 300", "named.1_1.1")
    cluster.wait(queue_id, RUNNING)
    shown = plain(f"scontrol show job {queue_id}").stdout
    assert f"JobId={queue_id} JobName=named.1_1.1" in shown and "Requeue=0" in shown
    assert eventually(lambda: said(cluster.root / "0") == "seen\n")
    assert cluster.queue.found(["named.1_1.1"], cluster.run(cluster.queue.find_command(["named.1_1.1"]))) == {
        "named.1_1.1": queue_id
    }
    assert cluster.cancel(queue_id) == {}
    cluster.wait(queue_id, None)


# defects of qtoolkit ----------------------------------------------------------------------------------


def test_defect_01_no_answer_is_not_a_job_that_is_gone(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = Path(os.environ["SLURM_CONF"])
    lines = [line for line in conf.read_text().splitlines() if not line.startswith("SlurmctldPort")]
    dead = tmp_path / "slurm.conf"
    dead.write_text("\n".join([*lines, "SlurmctldPort=1", "MessageTimeout=2"]) + "\n")
    monkeypatch.setenv("SLURM_CONF", str(dead))
    assert QueueManager(SlurmIO(), TheirLocalHost()).get_job("1") is None, "qtoolkit has learned it"
    queue = cluster.queue
    with pytest.raises(TransientError, match=r"squeue gave no answer \(exit code 1\): .*Unable to contact"):
        cluster.entries("1", "2")
    with pytest.raises(TransientError, match="Unable to contact slurm controller"):
        queue.found(["a"], cluster.run(queue.find_command(["a"])))
    with pytest.raises(TransientError, match="Unable to contact slurm controller"):
        cluster.cancel("1")
    script = tmp_path / "submit.sh"
    script.write_text("#!/bin/bash\n")
    sent = cluster.run(f"cd {tmp_path}; {queue.submit_command('submit.sh')}")
    assert (sent.exit_code, queue.submitted_id(sent.stdout), queue.refusal(sent)) == (1, None, None)
    assert cluster.death(GONE) is None


def test_defect_01_no_client_and_no_configuration_are_no_answer(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded_conf = answer(stderr="squeue: fatal: Unable to process configuration file\n", exit_code=1)
    with pytest.raises(TransientError, match="Unable to process configuration file"):
        cluster.queue.listing({"1": ""}, recorded_conf)
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (cluster.entries, cluster.cancel):
        with pytest.raises(TransientError, match="command not found"):
            ask("1")


def test_defect_01_of_several_commands_one_may_fail() -> None:
    queue = SlurmQueue(None)
    mixed = "slurm_load_jobs error: Invalid job id specified\nslurm_load_jobs error: Socket timed out\n"
    with pytest.raises(TransientError, match="Socket timed out"):
        queue.listing({"1": ""}, answer(squeue_line("1", "R"), mixed, 1))
    with pytest.raises(TransientError, match="no message"):
        queue.listing({"1": ""}, answer(squeue_line("1", "R"), "", 137))


def test_defect_01_an_unknown_job_is_an_answer(cluster: Cluster) -> None:
    assert cluster.entries(GONE) == {}
    direct = cluster.run(f"squeue --noheader -j {GONE}")
    assert direct.exit_code == 1, direct
    assert cluster.queue.listing({GONE: ""}, direct) == {}


def test_defect_02_a_failed_job_tells_its_exit_code(cluster: Cluster) -> None:
    failed = cluster.submit("exit 3")
    killed = cluster.submit("kill -9 $$")
    cluster.wait(failed, None)
    cluster.wait(killed, None)
    theirs = QueueManager(SlurmIO(), TheirLocalHost()).get_job(failed)
    assert theirs is not None and theirs.exit_status is None, "qtoolkit has learned it"
    assert cluster.death(failed) == Termination("Slurm: FAILED, exit code 3", None, 3)
    assert cluster.death(killed) == Termination("Slurm: FAILED, exit code 137", Cause.KILLED, 137)


def test_defect_02_a_job_that_the_controller_forgot(forgetful: Cluster) -> None:
    queue_id = forgetful.submit("exit 4")
    forgetful.wait(queue_id, None)
    assert eventually(lambda: forgetful.run(f"scontrol show job {queue_id}").exit_code == 1)
    assert forgetful.entries(queue_id) == {}
    assert forgetful.death(queue_id) == Termination("Slurm: FAILED, exit code 4", None, 4)
    assert forgetful.death(GONE) is None


def test_defect_02_a_script_that_never_began(cluster: Cluster) -> None:
    directory = cluster.root / "late"
    directory.mkdir(parents=True)
    (directory / "submit.sh").write_text("#!/bin/bash\n#SBATCH --output=/nowhere/x\ntrue\n")
    queue_id = cluster.submit_in(directory)
    cluster.wait(queue_id, None)
    assert cluster.death(queue_id) == Termination(
        "Slurm: FAILED, its script could not be started", Cause.NEVER_STARTED
    )


def test_defect_06_cancelling_what_is_over_or_unknown(cluster: Cluster) -> None:
    over, runs = cluster.submit("true"), cluster.submit("sleep 300")
    cluster.wait(over, None)
    cluster.wait(runs, RUNNING)
    io = SlurmIO()
    done = cluster.run(io.get_cancel_cmd(GONE))
    theirs = io.parse_cancel_output(done.exit_code, done.stdout, done.stderr)
    assert theirs.status == CancelStatus.SUCCESSFUL, "qtoolkit has learned it"
    assert cluster.cancel(over, GONE, runs) == {}
    cluster.wait(runs, None)


def test_defect_06_what_may_not_be_cancelled_is_named() -> None:
    stderr = (
        "scancel: Terminating job 1\nscancel: Terminating job 5\nscancel: Terminating job 999\n"
        "scancel: error: Kill job error on job id 5: Access/permission denied\n"
        "scancel: error: Kill job error on job id 999: Invalid job id specified\n"
    )
    problems = SlurmQueue(None).cancelled(["1", "5", "999"], answer("", stderr, 210))
    assert problems == {"5": "Slurm: Access/permission denied"}


def test_defect_08_names_and_directories_with_blanks(cluster: Cluster) -> None:
    fake = "x JobState=RUNNING Reason=None Dependency=x"
    directory = cluster.root / fake
    directory.mkdir(parents=True)
    script = f"#!/bin/bash\n#SBATCH --job-name='{fake}'\n#SBATCH --comment='{fake}'\nexit 5\n"
    (directory / "submit.sh").write_text(script)
    queue_id = cluster.submit_in(directory)
    cluster.wait(queue_id, None)
    with pytest.raises(IndexError):
        QueueManager(SlurmIO(), TheirLocalHost()).get_job(cluster.submit("true", folder="a b"))
    assert cluster.death(queue_id) == Termination("Slurm: FAILED, exit code 5", None, 5)


def test_defect_08_parts_of_a_job_stand_for_it() -> None:
    lines = [squeue_line("1_[2-4%1]", "PD"), squeue_line("2+0", "R"), squeue_line("12", "R")]
    assert recorded(SlurmQueue(None), *lines) == {"1": QueueEntry(PENDING), "2": QueueEntry(RUNNING)}


def test_defect_09_an_odd_name_of_somebody_spoils_nothing(cluster: Cluster) -> None:
    odd, mine = cluster.odd("--job-name=a<><>b c<><>"), cluster.submit("sleep 300")
    user = cluster.run("id -un").stdout.strip()
    listed = cluster.run(SlurmIO().get_jobs_list_cmd(None, user))
    with pytest.raises(OutputParsingError):
        SlurmIO().parse_jobs_list_output(0, listed.stdout, "")
    assert set(cluster.entries(mine, odd)) == {mine, odd}


@pytest.mark.parametrize("code", ["LF", "RQ", "PO", "??", ""])
def test_defect_09_a_state_that_qtoolkit_does_not_know(code: str) -> None:
    lines = [squeue_line("1", code), squeue_line("2", "R")]
    with pytest.raises(OutputParsingError):
        SlurmIO().parse_jobs_list_output(0, "".join(lines), "")
    expected = PENDING if code == "RQ" else QueueState.UNKNOWN
    assert recorded(SlurmQueue(None), *lines) == {"1": QueueEntry(expected), "2": QueueEntry(RUNNING)}


@pytest.mark.parametrize(
    ("code", "reason", "entry"),
    [
        ("PD", "Priority", QueueEntry(PENDING, "Priority")),
        ("PD", "AssocMaxJobsLimit", QueueEntry(PENDING, "AssocMaxJobsLimit")),
        ("PD", "QOSMaxCpuPerUserLimit", QueueEntry(PENDING, "QOSMaxCpuPerUserLimit")),
        ("PD", "JobHeldAdmin", QueueEntry(HELD, "JobHeldAdmin")),
        ("PD", "launch failed requeued held", QueueEntry(HELD, "launch failed requeued held")),
        (
            "PD",
            "ReqNodeNotAvail, UnavailableNodes:n1",
            QueueEntry(PENDING, "ReqNodeNotAvail, UnavailableNodes:n1"),
        ),
        ("RH", "None", QueueEntry(HELD)),
        ("SE", "None", QueueEntry(HELD)),
        ("RD", "None", QueueEntry(HELD)),
        ("CF", "None", QueueEntry(PENDING)),
        ("CG", "None", QueueEntry(RUNNING)),
        ("CG", "NonZeroExitCode", QueueEntry(RUNNING)),
        ("S", "None", QueueEntry(QueueState.SUSPENDED)),
        ("ST", "None", QueueEntry(QueueState.SUSPENDED)),
        ("SO", "None", QueueEntry(RUNNING)),
    ],
)
def test_defect_09_reasons_are_not_thrown_away(code: str, reason: str, entry: QueueEntry) -> None:
    assert recorded(SlurmQueue(None), squeue_line("1", code, reason)) == {"1": entry}


@pytest.mark.parametrize(
    "reason",
    [
        *("DependencyNeverSatisfied", "BadConstraints", "AccountNotAllowed", "QOSNotAllowed", "InvalidQOS"),
        *("InvalidAccount", "MaxMemPerLimit", "AssocMaxCpuPerJobLimit", "QOSMaxWallDurationPerJobLimit"),
        *("QOSMaxGRESPerNode", "QOSMinGRES", "ReservationDeleted"),
    ],
)
def test_defect_09_can_never_run_is_not_just_queued(reason: str) -> None:
    line = squeue_line("1", "PD", reason)
    [theirs] = SlurmIO().parse_jobs_list_output(0, line, "")
    assert theirs.state == QState.QUEUED
    entry = recorded(SlurmQueue(None), line)["1"]
    assert entry.never.endswith(f" ({reason})") and len(entry.never) > 40


@pytest.mark.parametrize("code", ["CD", "F", "CA", "TO", "NF", "OOM", "PR", "BF", "DL", "RV"])
def test_what_has_ended_is_not_listed(code: str) -> None:
    assert recorded(SlurmQueue(None), squeue_line("1", code), squeue_line("2", "PD")) == {
        "2": QueueEntry(PENDING)
    }


def test_defect_10_no_ids_are_not_all_jobs(cluster: Cluster) -> None:
    assert "--jobs" not in SlurmIO().get_jobs_list_cmd([], None), "qtoolkit has learned it"
    queue_id = cluster.submit("sleep 300")
    for nobody in ((), ("", "abc", "0", "1;id x", "1;", "-1", "5\n", "٣")):
        done = cluster.run(cluster.queue.listing_command(nobody))
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        assert cluster.cancel(*nobody) == {}
    assert cluster.state(queue_id) is not None


def test_defect_10_very_many_ids(cluster: Cluster) -> None:
    queue_id = cluster.submit("sleep 300")
    many = [str(40_000_000 + number) for number in range(30_000)]
    with pytest.raises(OSError, match="Argument list too long"):
        TheirLocalHost().execute(SlurmIO().get_jobs_list_cmd(many, None))
    assert set(cluster.entries(*many, queue_id)) == {queue_id}
    command = cluster.queue.cancel_command([*many, queue_id])
    assert max(map(len, command.splitlines())) < 128 * 1024 and queue_id in command.split()


def test_defect_12_banners(cluster: Cluster) -> None:
    text = "Welcome to the cluster!\nSubmitted by: you\n\nSubmitted batch job 77\nPlease be nice.\n"
    theirs = SlurmIO().parse_submit_output(0, text, "")
    assert theirs.status == SubmissionStatus.JOB_ID_UNKNOWN, "qtoolkit has learned it"
    assert cluster.queue.submitted_id(text) == "77"
    assert cluster.queue.submitted_id("Submitted batch job 78 on cluster x") == "78;x"
    assert cluster.queue.submitted_id("your quota is 5;6\n79;c1\n") == "79;c1"
    assert cluster.queue.submitted_id("Welcome\n5\n") is None
    queue_id = cluster.submit("sleep 300", "b.1_1.1")
    noise = f"echo 'Welcome {queue_id}'; echo {queue_id}; "
    plain, cluster.run = cluster.run, lambda command: plain(noise + command)  # type: ignore[method-assign]
    assert set(cluster.entries(queue_id, GONE)) == {queue_id}
    found = cluster.queue.found(["b.1_1.1"], cluster.run(cluster.queue.find_command(["b.1_1.1"])))
    assert found == {"b.1_1.1": queue_id}


def test_defect_14_values_with_blanks_and_quotes_arrive(cluster: Cluster) -> None:
    queue_id = cluster.submit("sleep 300", account="two words\"and 'quotes'", licenses="", exclude_nodes="n2")
    shown = cluster.run(f"squeue --noheader -j {queue_id} -o '%a|%x'").stdout
    assert shown == "two words\"and 'quotes'|n2\n"


def test_defect_16_ids_are_those_that_were_given(cluster: Cluster) -> None:
    queue_id = cluster.submit("sleep 300", "c.1_1.1")
    assert type(queue_id) is str
    assert list(cluster.entries(queue_id)) == [queue_id]
    assert cluster.queue.found(["c.1_1.1"], cluster.run(cluster.queue.find_command(["c.1_1.1"]))) == {
        "c.1_1.1": queue_id
    }
    with pytest.raises(InvalidJobIDError):
        SlurmIO().get_jobs_list_cmd(["16_[2-4%1]"], None)


def test_defect_17_a_script_runs_where_it_is_submitted(cluster: Cluster) -> None:
    folders = [cluster.root / folder for folder in ("one", "two words/ü")]
    ids = [cluster.submit("pwd; sleep 300", folder=str(folder)) for folder in folders]
    shown = [cluster.run(f"squeue --noheader -j {queue_id} -o '%Z'").stdout.strip() for queue_id in ids]
    assert shown == [str(folder) for folder in folders]
    assert eventually(lambda: all(said(folder) == f"{folder}\n" for folder in folders))


def said(directory: Path) -> str:
    """Return what a job has printed so far."""
    file = directory / "queue.out"
    return file.read_text() if file.exists() else ""


# refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keywords", [{"partition": "nowhere"}, {"mem": "abc"}, {"constraint": "gold"}, {"gres": "gpu:9"}]
)
def test_what_sbatch_refuses_is_refused(cluster: Cluster, keywords: dict[str, Any]) -> None:
    directory = cluster.root / "refused"
    directory.mkdir(parents=True)
    (directory / "submit.sh").write_text(submission_header("slurm", Resources(keywords), "n.1"))
    done = cluster.run(f"cd {directory}; {cluster.queue.submit_command('submit.sh')}")
    assert cluster.queue.submitted_id(done.stdout) is None
    assert cluster.queue.refusal(done) is Refusal.FINAL, done


FAILED = "sbatch: error: Batch job submission failed:"
POLICY = f"{FAILED} Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    "stderr",
    [
        f"{FAILED} Unable to contact slurm controller (connect failure)",
        f"{FAILED} Socket timed out on send/recv operation",
        f"{FAILED} Zero Bytes were transmitted or received",
        f"{FAILED} Protocol authentication error",
        f"{FAILED} I/O error writing script/environment to file",
        "sbatch: error: Munge encode failed: Failed to access socket\n"
        f"{FAILED} Protocol authentication error",
        "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
        "sbatch: error: fetch_config: DNS SRV lookup failed\n"
        "sbatch: error: _establish_config_source: failed to fetch config\n"
        "sbatch: fatal: Could not establish a configuration source",
        "sbatch: fatal: Unable to process configuration file",
    ],
)
def test_an_outage_is_of_the_whole_worker(stderr: str) -> None:
    assert refusal(SlurmQueue(), stderr) is None


def test_a_client_that_is_missing_is_an_outage() -> None:
    assert refusal(SlurmQueue(), "bash: line 5: sbatch: command not found", 127) is None


@pytest.mark.parametrize(
    "stderr",
    [
        f"{FAILED} Required partition not available (inactive or drain)",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.",
        f"{FAILED} Job queue full",
        f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}",
        f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}",
        f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}",
        POLICY,
    ],
)
def test_a_partition_or_account_that_takes_no_jobs_now_is_no_outage(stderr: str) -> None:
    assert refusal(SlurmQueue(), stderr) is Refusal.TARGET


@pytest.mark.parametrize(
    "stderr",
    [
        f"sbatch: error: AssocGrpCpuLimit\n{POLICY}",
        f"{FAILED} Required node not available (down, drained or reserved)",
        "sbatch: error: Unable to open file submit.sh",
        "Please load the module slurm first.",
        "",
    ],
)
def test_what_is_unclear_or_about_one_job_holds_up_that_job_only(stderr: str) -> None:
    assert refusal(SlurmQueue(), stderr) is Refusal.JOB


@pytest.mark.parametrize(
    "stderr",
    [
        f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}",
        f"{FAILED} Requested node configuration is not available",
        "sbatch: error: you have no more hours; contact your project leader",
        f"{FAILED} Invalid account or account/partition combination specified",
        "sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information",
        "sbatch: option '--requeue' doesn't allow an argument",
        'sbatch: error: "x" is not a valid node count',
        # hooks of a site, with words that an outage could have
        f"sbatch: error: connection to the licence server timed out\n{FAILED} Unspecified error",
        f"sbatch: error: this partition is temporarily for project xy, authentication needed\n{FAILED} Error",
        f"sbatch: error: internal communication error 17: not enabled\n{FAILED} Unspecified error",
    ],
)
def test_what_can_never_work_is_refused(stderr: str) -> None:
    assert refusal(SlurmQueue(), stderr) is Refusal.FINAL


# several clusters -----------------------------------------------------------------------------------


def test_every_command_asks_the_cluster_of_the_job() -> None:
    """Each cluster counts for itself: 7 on ``b`` is another job than 7 here."""
    queue = SlurmQueue()
    listing = queue.listing_command(["7", "7;b", "9;b"])
    assert "--jobs=7,7" in listing and "-M b --jobs=7,9" in listing
    assert "scancel -v 7" in queue.cancel_command(["7", "9;b"])
    assert "scancel -v -M b 9" in queue.cancel_command(["7", "9;b"])
    asked = queue.accounting_command("9;b")
    assert all(words in asked for words in ("scontrol -M b show job 9", "sacct -M b -n -P -X -j 9"))
    assert queue.accounting_command("9;b; rm -rf x") == ":"


def test_a_job_of_the_same_number_elsewhere_is_another_one() -> None:
    text = squeue_line("7", "R") + "CLUSTER: b\n" + squeue_line("9", "PD", "Priority") + "CLUSTER: c\n"
    known = {"7": "", "7;b": "", "9;b": "", "9": ""}
    assert SlurmQueue().listing(known, answer(text)) == {
        "7": QueueEntry(RUNNING),
        "9;b": QueueEntry(PENDING, "Priority"),
    }


def test_a_job_is_found_on_the_cluster_where_it_is() -> None:
    text = "12 other.1\nCLUSTER: a\n12 other.1\nCLUSTER: b\n40 mine.1\n41 mine.1\n"
    assert SlurmQueue().found(["mine.1", "other.1"], answer(text)) == {"mine.1": "40;b", "other.1": "12"}


def test_what_cannot_be_cancelled_is_named_with_its_cluster() -> None:
    text = "scancel: error: Kill job error on job id 9: Access/permission denied\n"
    assert list(SlurmQueue().cancelled(["9;b"], answer("", text, 210))) == ["9;b"]


def test_a_job_knows_its_number_only() -> None:
    assert SlurmQueue().same_job("9", "9;b") and not SlurmQueue().same_job("8", "9;b")


def test_the_expected_start_is_kept() -> None:
    line = "1<><> PD<><> Resources<><> 1796054400\n"
    assert recorded(SlurmQueue(), line) == {"1": QueueEntry(PENDING, "Resources", "", 1796054400.0)}
    assert recorded(SlurmQueue(), "1<><> PD<><> Priority<><> N/A\n") == {"1": QueueEntry(PENDING, "Priority")}


# how jobs die -----------------------------------------------------------------------------------------


def scontrol(state: str, reason: str = "None", exit_code: str = "0:0", limit: str = "00:01:00") -> str:
    """Return the beginning of `scontrol show job` of Slurm 22.05."""
    return (
        "=scontrol\nJobId=10 JobName=relax.ee5ed8e4-068f_1.1\n"
        "   UserId=root(0) GroupId=root(0) MCS_label=N/A\n"
        "   Priority=4294901752 Nice=0 Account=(null) QOS=(null)\n"
        f"   JobState={state} Reason={reason} Dependency=(null)\n"
        f"   Requeue=0 Restarts=0 BatchFlag=1 Reboot=0 ExitCode={exit_code}\n"
        f"   RunTime=00:01:23 TimeLimit={limit} TimeMin=N/A\n"
    )


def accounted(*lines: str) -> str:
    """Return what follows when the controller has forgotten the job."""
    return "=scontrol\n=sacct\n" + "".join(f"{line}\n" for line in lines) + "=jobcomp\n"


@pytest.mark.parametrize(
    ("output", "death"),
    [
        (
            scontrol("TIMEOUT", "TimeLimit", "0:1"),
            Termination("Slurm: TIMEOUT, time limit 00:01:00", Cause.WALLTIME),
        ),
        (
            scontrol("DEADLINE", "DeadLine"),
            Termination("Slurm: DEADLINE, time limit 00:01:00", Cause.WALLTIME),
        ),
        (scontrol("OUT_OF_MEMORY", "OutOfMemory", "0:125"), Termination("Slurm: OUT_OF_MEMORY", Cause.OOM)),
        (scontrol("NODE_FAIL", "NodeDown", "0:15"), Termination("Slurm: NODE_FAIL", Cause.NODE_FAIL)),
        (scontrol("BOOT_FAIL"), Termination("Slurm: BOOT_FAIL", Cause.NODE_FAIL)),
        (scontrol("PREEMPTED", "None", "0:15"), Termination("Slurm: PREEMPTED", Cause.PREEMPTED)),
        (scontrol("CANCELLED", "Priority"), Termination("Slurm: CANCELLED", Cause.KILLED)),
        (
            scontrol("FAILED", "RaisedSignal:53(Real-time_signal_19)", "0:53"),
            Termination("Slurm: FAILED, its script could not be started", Cause.NEVER_STARTED),
        ),
        (
            scontrol("FAILED", "BadConstraints", "0:1"),
            Termination("Slurm: FAILED, BadConstraints", Cause.NEVER_STARTED),
        ),
        (
            scontrol("FAILED", "JobLaunchFailure", "0:9"),
            Termination("Slurm: FAILED, exit code 137", Cause.KILLED, 137),
        ),
        (scontrol("FAILED", "NonZeroExitCode", "1:0"), Termination("Slurm: FAILED, exit code 1", None, 1)),
        (scontrol("COMPLETING"), Termination("Slurm: COMPLETING", over=False)),
        (scontrol("PENDING", "Resources"), Termination("Slurm: PENDING", over=False)),
        ("Welcome!\n" + scontrol("COMPLETED"), Termination("Slurm: COMPLETED", None, 0)),
        (
            accounted("CANCELLED by 1000|0:0|1-00:00:00"),
            Termination("Slurm: CANCELLED by user 1000", Cause.KILLED),
        ),
        (
            accounted("TIMEOUT|0:0|00:10:00", "TIMEOUT|0:0|10"),
            Termination("Slurm: TIMEOUT, time limit 00:10:00", Cause.WALLTIME),
        ),
        (
            accounted("FAILED|0:53|00:10:00"),
            Termination("Slurm: FAILED, its script could not be started", Cause.NEVER_STARTED),
        ),
        (
            "=scontrol\n=sacct\n=jobcomp\nTIMEOUT|0:0|1\n",
            Termination("Slurm: TIMEOUT, time limit 1 min", Cause.WALLTIME),
        ),
        (accounted("RUNNING|0:0|1", "garbage", "FAILED|x|1"), None),
        (accounted(), None),
        ("", None),
    ],
)
def test_why_a_job_died(output: str, death: Termination | None) -> None:
    assert SlurmQueue(None).accounting("10", answer(output)) == death


@pytest.fixture
def breakable(
    new_slurm: Callable[..., Slurm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Slurm, Cluster]]:
    service = new_slurm(nodes=1)
    for cluster in on(service, tmp_path, monkeypatch):
        yield service, cluster


def test_a_job_is_not_started_again_behind_our_back(breakable: tuple[Slurm, Cluster]) -> None:
    service, cluster = breakable
    queue_id = cluster.submit("sleep 300")
    cluster.wait(queue_id, RUNNING)
    service.node_down("n1")
    cluster.wait(queue_id, None)
    assert cluster.death(queue_id) == Termination("Slurm: NODE_FAIL", Cause.NODE_FAIL)
