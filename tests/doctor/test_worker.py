"""Doctor on a worker: a real shell on this machine, whole and broken in every way."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from reconciler.doctor import worker_checks
from reconciler.doctor.check import Check, Status
from reconciler.doctor.evidence import WorkerUnderTest
from reconciler.doctor.worker import check_worker
from reconciler.doctor.worker_checks import WORKER_CHECKS
from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult, Host
from reconciler.execution.hosts.local import LocalHost, expand
from reconciler.execution.queues.registry import queue_of
from reconciler.execution.run_files import worker_paths
from reconciler.model.connections import Connection, HostKeyPolicy
from reconciler.model.manifests import WorkerSpec
from tests.execution.support import eventually

TOKEN = "0123abcd"

Data = Iterable[bytes] | None
Sink = BinaryIO | None


def worker(
    work_dir: Path | str, transfer: Host | None = None, on: Host | None = None, **spec: Any
) -> WorkerUnderTest:
    """Return a worker to examine; its Python is none, as that takes a second, unless one is given."""
    told = {"type": "local", "scheduler_type": "shell", "work_dir": str(work_dir), "python": "/bin/true"}
    made = WorkerSpec(**{**told, **spec})
    return WorkerUnderTest(
        name="w1",
        spec=made,
        host=on or LocalHost(),
        transfer=transfer,
        queue=queue_of(made.scheduler_type),
        place=worker_paths(made, expand),
        token=TOKEN,
    )


def checks(examined: WorkerUnderTest) -> dict[str, Check]:
    found = check_worker(examined)
    assert len({check.name for check in found}) == len(found)
    assert {check.subject for check in found} == {"worker/w1"}
    return {check.name: check for check in found}


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def test_all_is_well(tmp_path: Path) -> None:
    work_dir = tmp_path / "wörk dir's"
    work_dir.mkdir()
    found = checks(worker(work_dir, python=None))
    assert {name: check.status for name, check in found.items() if check.status is not Status.OK} == {}
    assert list(found) == [row.name for row in WORKER_CHECKS if row.name in found], (
        "in the order of the table"
    )
    assert found["work_dir"].message == f"{work_dir}: writable"
    assert "this machine; a command takes" in found["connection"].message
    assert found["clock"].status is Status.OK
    assert list(work_dir.iterdir()) == [], "the probe file is removed"


def test_few_commands(tmp_path: Path) -> None:
    host = LocalHost()
    check_worker(worker(tmp_path, on=host))
    assert host.commands == 3


def test_work_dir_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    found = checks(worker(tmp_path / "a" / "b"))
    assert found["work_dir"].message == f"{tmp_path}/a/b: does not exist yet, can be made in {tmp_path}"
    assert found["free space"].status is Status.OK
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


def test_file_in_place_of_work_dir(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = checks(worker(tmp_path / "file" / "work"))
    assert found["work_dir"].status is Status.FAILED
    assert (
        f"{tmp_path}/file/work cannot be a directory: {tmp_path}/file is not a directory"
        in found["work_dir"].message
    )
    assert found["free space"].status is Status.SKIPPED


def test_dangling_link_in_place_of_work_dir(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert checks(worker(tmp_path / "link"))["work_dir"].status is Status.FAILED


def test_unwritable_work_dir() -> None:
    """Nobody may make files there, root neither."""
    check = checks(worker("/proc/self"))["work_dir"]
    assert check.status is Status.FAILED
    assert check.message.startswith("cannot write to /proc/self: ")
    assert "permissions and quota" in check.fix


class TestPython:
    """The Python of the jobs."""

    def test_is_ours_by_default(self, tmp_path: Path) -> None:
        found = checks(worker(tmp_path, python=None))
        assert sys.executable in found["python"].message
        version = importlib.metadata.version("jobflow")
        assert found["jobflow"].message == f"{version} there, {version} here"

    def test_is_not_there(self, tmp_path: Path) -> None:
        found = checks(worker(tmp_path, python=f"{tmp_path}/no python"))
        assert found["python"].status is Status.FAILED
        assert f"{tmp_path}/no python does not run" in found["python"].message
        assert "No such file or directory" in found["python"].message
        assert "`python:`" in found["python"].fix
        assert found["jobflow"].status is Status.SKIPPED

    def test_may_come_from_pre_run_which_is_not_run(self, tmp_path: Path) -> None:
        trace = tmp_path / "trace"
        found = checks(worker(tmp_path, python="no-such-python", pre_run=f"touch {trace}"))
        assert found["python"].status is Status.WARNING
        assert "`pre_run`, which is not run here, may provide it" in found["python"].message
        assert not trace.exists()

    def test_is_too_old(self, tmp_path: Path) -> None:
        old = script(tmp_path / "python", "cat >/dev/null; echo; echo doctor-says python 2.7.18")
        found = checks(worker(tmp_path, python=str(old)))
        assert found["python"].status is Status.FAILED
        assert "2.7.18" in found["python"].message and "Python 3.9 or newer" in found["python"].fix

    def test_has_no_jobflow(self, tmp_path: Path) -> None:
        bare = script(tmp_path / "python", f'exec {sys.executable} -S -E "$@"')
        found = checks(worker(tmp_path, python=str(bare)))
        assert found["python"].status is Status.OK
        assert found["jobflow"].status is Status.FAILED
        assert (
            found["jobflow"].message == "cannot be imported: ModuleNotFoundError: No module named 'jobflow'"
        )
        assert found["jobflow"].fix.endswith("-m pip install jobflow, or set `python:`")

    def test_has_a_broken_jobflow(self, tmp_path: Path) -> None:
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "jobflow.py").write_text("print('noise')\nimport no_such_package\n")
        broken = script(tmp_path / "python", f'PYTHONPATH={tmp_path}/lib exec {sys.executable} "$@"')
        check = checks(worker(tmp_path, python=str(broken)))["jobflow"]
        assert check.status is Status.FAILED
        assert "No module named 'no_such_package'" in check.message

    def test_a_jobflow_beside_the_reconciler_is_not_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "jobflow.py").write_text("raise ImportError('the wrong one')\n")
        monkeypatch.chdir(tmp_path)
        assert checks(worker(tmp_path / "work", python=None))["jobflow"].status is Status.OK

    @pytest.mark.parametrize(
        ("there", "status"), [("0.4.9", Status.OK), ("0.5.0", Status.WARNING), ("1.4.0", Status.WARNING)]
    )
    def test_skew(self, tmp_path: Path, there: str, status: Status) -> None:
        answer = CommandResult(0, f"\ndoctor-says python 3.12.1\n\ndoctor-says jobflow {there}\n", "")
        found = worker_checks.jobflow(worker(tmp_path), answer, "0.4.0")
        assert (found.status, "0.4.0 here" in found.message, there in found.message) == (status, True, True)


PBS_SERVER = """\
Server: pbs01
    server_state = Active
    server_host = pbs01
    scheduling = True
    total_jobs = 2
    state_count = Transit:0 Queued:0 Held:0 Waiting:0 Running:2 Exiting:0 Begun:0
    default_queue = workq
    log_events = 511
    mail_from = adm
    resources_assigned.ncpus = 2
    default_chunk.ncpus = 1
    scheduler_iteration = 600
    resv_enable = True
    node_fail_requeue = 310
    max_array_size = 10000
    license_count = Avail_Global:10000000 Avail_Local:10000000 Used:0
    pbs_version = 23.06.06
    eligible_time_enable = False
{}    max_concurrent_provision = 5
    power_provisioning = 0
"""
"""What ``qstat -B -f`` of OpenPBS prints; an attribute that is not set is left out."""


class TestScheduler:
    """Its commands, whether it answers, its accounting."""

    @pytest.fixture
    def bin_dir(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A directory first on the PATH."""
        (tmp_path / "bin").mkdir()
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        return tmp_path / "bin"

    def test_pbs_is_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in (*worker_checks.TOOLS, "bash", "dirname", "df", "head"):
            if (real := Path("/bin") / name).exists():
                (tools / name).symlink_to(real)
        monkeypatch.setenv("PATH", str(tools))
        found = checks(worker(tmp_path, scheduler_type="pbs"))
        assert found["scheduler commands"].status is Status.FAILED
        assert found["scheduler commands"].message == "not found: qsub, qstat, qdel"
        assert "put those of PBS on the PATH" in found["scheduler commands"].fix
        assert found["scheduler"].status is Status.FAILED

    def test_controller_is_down(self, tmp_path: Path, bin_dir: Path) -> None:
        for name in ("sbatch", "scancel", "scontrol"):
            script(bin_dir / name, "exit 0")
        down = (
            "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
        )
        script(bin_dir / "squeue", down)
        script(bin_dir / "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
        found = checks(worker(tmp_path, scheduler_type="slurm"))
        assert found["scheduler commands"].status is Status.OK
        assert found["scheduler"].status is Status.FAILED
        assert "Unable to contact slurm controller" in found["scheduler"].message
        assert found["scheduler version"].status is Status.SKIPPED
        assert found["accounting"].status is Status.WARNING
        assert "Slurm accounting storage is disabled" in found["accounting"].message

    @pytest.mark.parametrize(
        ("line", "status", "message"),
        [
            ("    job_history_enable = True\n", Status.OK, "works"),
            ("    job_history_enable = False\n", Status.WARNING, "job_history_enable is not True"),
            ("", Status.WARNING, "job_history_enable is not True"),
            (None, Status.WARNING, "cannot connect to server pbs01 (errno=15010)"),
        ],
        ids=["on", "off", "unset", "away"],
    )
    def test_pbs_remembers_ended_jobs_only_with_its_history(
        self, tmp_path: Path, bin_dir: Path, line: str | None, status: Status, message: str
    ) -> None:
        for name in ("qsub", "qdel"):
            script(bin_dir / name, "exit 0")
        (tmp_path / "answer").write_text(PBS_SERVER.format(line))
        tell = f"cat {tmp_path}/answer" if line is not None else f"echo 'qstat: {message}' >&2; exit 162"
        script(bin_dir / "qstat", f'[ "$*" = "-B -f" ] || exit 0\n{tell}')
        found = checks(worker(tmp_path, scheduler_type="pbs"))["accounting"]
        assert found.status is status
        assert message in found.message
        assert ("qmgr -c 'set server job_history_enable = true'" in found.fix) == (status is Status.WARNING)

    @pytest.mark.parametrize(
        ("answer", "status", "message"),
        [
            ("echo 'error: job id 1 not found' >&2; exit 1", Status.OK, "works"),
            ("echo 'jobnumber    1'", Status.OK, "works"),
            (
                "echo '/var/lib/gridengine/default/common/accounting: No such file or directory' >&2; exit 1",
                Status.WARNING,
                "common/accounting: No such file or directory",
            ),
            (
                "echo 'error: commlib error: got select error (Connection refused)' >&2; exit 1",
                Status.WARNING,
                "got select error",
            ),
        ],
        ids=["no such job", "job", "no file", "away"],
    )
    def test_grid_engine_remembers_ended_jobs_if_its_accounting_can_be_read(
        self, tmp_path: Path, bin_dir: Path, answer: str, status: Status, message: str
    ) -> None:
        for name in ("qsub", "qstat", "qdel"):
            script(bin_dir / name, "exit 0")
        script(bin_dir / "qacct", f'[ "$*" = "-j 1" ] || exit 9\n{answer}')
        found = checks(worker(tmp_path, scheduler_type="sge"))["accounting"]
        assert found.status is status
        assert message in found.message

    def test_a_command_that_hangs_costs_only_its_own_answer(self, tmp_path: Path, bin_dir: Path) -> None:
        script(bin_dir / "squeue", '[ "$1" = --version ] || sleep 60')
        found = checks(worker(tmp_path, scheduler_type="slurm", timeout_execute=2))
        assert found["scheduler"].status is Status.FAILED
        assert found["scheduler"].message == "this check did not end: localhost did not answer within 2 s"
        assert found["accounting"].status is Status.SKIPPED
        assert found["work_dir"].status is Status.OK
        assert found["scheduler commands"].status is Status.OK

    def test_missing_tool(self, tmp_path: Path) -> None:
        found = worker_checks.tools(worker(tmp_path), CommandResult(0, "tar\nps\n", ""))
        assert (found.status, found.message) == (Status.FAILED, "not found: tar, ps")


class TestDefaultResources:
    """What the worker asks for by default must make a script."""

    def test_shown(self, tmp_path: Path) -> None:
        spec = {"scheduler_type": "slurm", "resources": {"partition": "debug", "time": "1:00:00"}}
        row = next(row for row in WORKER_CHECKS if row.name == "default resources")
        found = row.find(worker(tmp_path, **spec), None)  # type: ignore[arg-type]
        assert found.message == "--partition=debug; --time=1:00:00"

    def test_wrong(self, tmp_path: Path) -> None:
        check = checks(worker(tmp_path, resources={"partition": "debug"}))["default resources"]
        assert (check.status, check.by_user) == (Status.FAILED, True)
        assert "a plain shell cannot give 'partition'" in check.message
        assert "`resources: {}`" in check.fix


class Unreachable(LocalHost):
    """A host that cannot be reached."""

    name = "ada@far.example.org"
    is_local = False

    def run(
        self,
        script: str,
        timeout: float,
        *,
        data: Iterable[bytes] | None = None,
        sink: BinaryIO | None = None,
    ) -> CommandResult:
        self.commands += 1
        raise TransientError("ada@far.example.org refuses the connection", hint="check `port`")


def test_without_a_connection_the_rest_is_skipped() -> None:
    host = Unreachable()
    found = checks(worker("~/work", on=host, type="remote", host_key_policy=HostKeyPolicy.ACCEPT_NEW))
    assert (found["connection"].status, found["connection"].fix) == (Status.FAILED, "check `port`")
    rest = [check for check in found.values() if check.name not in ("connection", "default resources")]
    assert {(check.status, check.message) for check in rest} == {(Status.SKIPPED, "there is no connection")}
    assert host.commands == 1


class TestHostKey:
    """How keys of unknown hosts are treated, on the whole way to a worker."""

    def look(self, **spec: Any) -> Check | None:
        return checks(worker("~/work", type="remote", host="far.example.org", **spec)).get("host key")

    def test_strict(self) -> None:
        check = self.look()
        assert check is not None
        assert (check.status, check.message) == (Status.OK, "strict: only keys of known hosts")

    def test_accept_new_of_a_jump_host_is_told(self) -> None:
        gate = Connection(host="gate.example.org", host_key_policy=HostKeyPolicy.ACCEPT_NEW)
        inner = Connection(host="inner.example.org", gateway=gate)
        check = self.look(gateway=inner)
        assert check is not None and check.status is Status.WARNING
        assert check.message.startswith("`accept-new` for gate.example.org: the first key")
        assert "`host_key_policy: strict`" in check.fix

    def test_a_master_connection_has_checked_it(self) -> None:
        assert self.look(control_path="~/.ssh/master") is None


class Moved(LocalHost):
    """The same machine under another name, where the home directory is another one."""

    name = "transfer.example.org"
    is_local = False

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.home = home

    def run(
        self,
        script: str,
        timeout: float,
        *,
        data: Iterable[bytes] | None = None,
        sink: BinaryIO | None = None,
    ) -> CommandResult:
        return super().run(f"HOME={self.home}\nsleep() {{ :; }}\n{script}", timeout, data=data, sink=sink)


class TestTransfer:
    """A file that is written where jobs run must be seen by the host for files."""

    @pytest.fixture
    def homes(self, tmp_path: Path) -> tuple[Path, Path]:
        """Two homes, each with a ``work``."""
        for name in ("one", "two"):
            (tmp_path / name / "work").mkdir(parents=True)
        return tmp_path / "one", tmp_path / "two"

    def examine(self, here: Path, there: Path) -> Check:
        return checks(
            worker("~/work", Moved(there), Moved(here), type="remote", host_key_policy=HostKeyPolicy.STRICT)
        )["transfer"]

    def test_shared(self, homes: tuple[Path, Path]) -> None:
        check = self.examine(homes[0], homes[0])
        assert (check.status, check.message) == (Status.OK, "transfer.example.org sees the same work_dir")
        assert list((homes[0] / "work").iterdir()) == []

    def test_not_shared(self, homes: tuple[Path, Path]) -> None:
        check = self.examine(*homes)
        assert check.status is Status.FAILED
        assert check.message == "transfer.example.org does not see a file in work_dir"
        assert "drop `transfer`" in check.fix
        assert [list((home / "work").iterdir()) for home in homes] == [[], []]

    def test_unreachable(self, homes: tuple[Path, Path]) -> None:
        examined = worker("~/work", Unreachable(), Moved(homes[0]), type="remote")
        check = checks(examined)["transfer"]
        assert (check.status, check.fix) == (Status.FAILED, "check `port`")
        assert list((homes[0] / "work").iterdir()) == []


class Clock(LocalHost):
    """A machine whose clock is wrong."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds

    def run(
        self,
        script: str,
        timeout: float,
        *,
        data: Iterable[bytes] | None = None,
        sink: BinaryIO | None = None,
    ) -> CommandResult:
        wrong = f"date() {{ echo $(( $(command date +%s) + {self.seconds} )); }}\n{script}"
        return super().run(wrong, timeout, data=data, sink=sink)


@pytest.mark.parametrize(
    ("seconds", "status", "text"),
    [
        (30, Status.OK, "s off"),
        (-3600, Status.WARNING, "s behind this machine"),
        (300, Status.WARNING, "s ahead of this machine"),
    ],
)
def test_clock(tmp_path: Path, seconds: int, status: Status, text: str) -> None:
    check = checks(worker(tmp_path, on=Clock(seconds)))["clock"]
    assert check.status is status
    assert check.message.endswith(text)


def test_clocks_that_agree(tmp_path: Path) -> None:
    """A machine that stops for a second between two looks sees one."""
    examined = worker(tmp_path, on=Clock(0))
    assert eventually(lambda: checks(examined)["clock"].message == "in sync")


class TestLogin:
    """What login files print is harmless; how long they take is not."""

    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], CommandResult]:
        def run(profile: str) -> CommandResult:
            (tmp_path / "home" / ".bash_profile").write_text(profile)
            monkeypatch.setenv("HOME", str(tmp_path / "home"))
            return LocalHost().run(worker_checks.login_script(worker(tmp_path)), 20)

        return run

    def test_banner(self, tmp_path: Path, run: Callable[[str], CommandResult]) -> None:
        found = worker_checks.login(worker(tmp_path), run("echo 'Welcome to the cluster!'; echo more\n"))
        assert found.status is Status.OK
        assert "print `Welcome to the cluster!`: harmless" in found.message

    def test_silent(self, tmp_path: Path, run: Callable[[str], CommandResult]) -> None:
        assert worker_checks.login(worker(tmp_path), run("")).message.startswith("login files are silent; ")

    def test_slow(self, tmp_path: Path) -> None:
        found = worker_checks.login(worker(tmp_path), CommandResult(0, "", "\n3.512\n"))
        assert found.status is Status.WARNING
        assert found.message.startswith("login files take 3.5 s")

    def test_comma_of_another_language(self, tmp_path: Path) -> None:
        assert worker_checks.login(worker(tmp_path), CommandResult(0, "", "0,004\n")).message.endswith(
            "; 4 ms"
        )


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("/dev/sda1  100  50  2097152  50% /", Status.OK),
        ("a b:/c d  100  50  1000  99% /home/x y", Status.WARNING),
        ("none 0 0 5000000 - /odd", Status.OK),
        ("df: /x: Stale file handle", Status.WARNING),
    ],
)
def test_free_space(tmp_path: Path, line: str, status: Status) -> None:
    assert worker_checks.space(worker(tmp_path), CommandResult(0, f"{line}\n", "")).status is status


def test_old_bash_is_a_warning(tmp_path: Path) -> None:
    assert (
        worker_checks.bash(worker(tmp_path), CommandResult(0, "3.2.57(1)-release\n", "")).status
        is Status.WARNING
    )


def test_every_section_has_one_script() -> None:
    needed = {check.section for check in WORKER_CHECKS if check.section}
    scripts = [check.section for check in WORKER_CHECKS if check.script is not None]
    assert len(scripts) == len(set(scripts)) and set(scripts) == needed
