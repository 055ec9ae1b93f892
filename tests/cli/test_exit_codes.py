"""The exit code of every verb, and the one form that all errors have."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import reconciler.actual.state_dir as state_dir_module
from reconciler.actual.state_dir import Lease
from tests.cli.world import World
from tests.support import Reconcile, Repository, minimal_project

ERROR = re.compile(r"error: [^\n]+\n(  help: [^\n]+\n)?")

VALUE = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: one}
    spec: {jobs: [{id: value, function: reconciler.examples.value, args: [1]}]}
    """

NAP = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: one}
    spec: {jobs: [{id: nap, function: reconciler.examples.sleep, args: [SECONDS]}]}
    """

GATED = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: one}
    spec:
      exec_config: {pre_run: "until [ -e 'GATE' ]; do sleep 0.1; done"}
      jobs: [{id: value, function: reconciler.examples.value, args: [1]}]
    """


@pytest.fixture
def ready(repository: Repository, tmp_path: Path) -> Repository:
    """A repository with one flow of one job that is soon done."""
    minimal_project(repository, tmp_path / "work")
    repository.write_yaml("flows/one.yaml", VALUE)
    repository.commit()
    return repository


def nap(repository: Repository, seconds: float) -> None:
    repository.write_yaml("flows/one.yaml", NAP.replace("SECONDS", str(seconds)))
    repository.commit()


class TestDone:
    def test_plan_and_dry_run_change_nothing(self, ready: Repository, reconcile: Reconcile) -> None:
        assert reconcile("plan").returncode == 0
        assert reconcile("plan", "--exit-code").returncode == 1
        done = reconcile("--dry-run")
        assert (done.returncode, "1 flow and 1 job to submit" in done.stdout) == (0, True)
        assert reconcile("get", "jobs").stdout == ""

    def test_once_is_done_while_jobs_run(self, ready: Repository, reconcile: Reconcile) -> None:
        done = reconcile("--once")
        assert done.returncode == 0
        assert "1 flow, 1 job; jobs are running" in done.stdout

    @pytest.mark.parametrize(
        "verb", [["--help"], ["--version"], ["get", "jobs", "-h"], ["describe", "--help"], []]
    )
    def test_help(self, reconcile: Reconcile, verb: list[str]) -> None:
        done = reconcile(*verb)
        assert (done.returncode, done.stderr) == (0, "")
        assert "reconcile" in done.stdout

    def test_pipe_that_closes(self, ready: Repository, state_dir: Path, reconcile: Reconcile) -> None:
        """``reconcile ... | head -0`` is no failure, and stops no reconcile halfway."""
        assert closed_pipe(ready.path, "explain", "Flow") == (0, b"")
        code, error = closed_pipe(ready.path, "--state-dir", str(state_dir), "-q", "--once", "--wait")
        assert (code, error) == (0, b"")
        assert "COMPLETED" in reconcile("--state-dir", str(state_dir), "get", "jobs").stdout


def closed_pipe(cwd: Path, *arguments: str) -> tuple[int, bytes]:
    """Run the program with a stdout that nobody reads; return its exit code and stderr."""
    command = [sys.executable, "-m", "reconciler", *arguments]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, error = process.communicate(timeout=60)
    return process.returncode, error


class TestNegativeAnswer:
    def test_timeout(self, ready: Repository, reconcile: Reconcile) -> None:
        nap(ready, 30)
        done = reconcile("--once", "--wait", "--timeout", "0.5")
        assert done.returncode == 1
        assert "timed out after 0.5 s; jobs keep running" in done.stderr
        ready.remove("flows/one.yaml")
        ready.commit()
        assert reconcile("--once", "--wait", "--allow-prune").returncode == 0
        assert "one/" not in reconcile("get", "jobs", "-o", "name").stdout, "the flow is history now"
        assert "one/" in reconcile("get", "jobs", "--all", "-o", "name").stdout

    @pytest.mark.usefixtures("warm")
    def test_degraded_counts_only_with_wait(
        self, world: World, ready: Repository, reconcile: Reconcile
    ) -> None:
        ready.write_yaml("flows/one.yaml", VALUE.replace("value, args: [1]", "fail"))
        ready.commit()
        assert reconcile("--once", "--wait").returncode == 1
        done = reconcile("--once", "--wait")
        assert (done.returncode, "no changes" in done.stdout) == (1, True)
        assert "Degraded: one; see `reconcile describe flow one`" in done.stdout
        assert reconcile("--once").returncode == 0


USAGE = [
    ["--nonsense"],
    ["plann"],
    ["get"],
    ["get", "job", "--bad"],
    ["get", "jobs", "--limit", "0"],
    ["get", "jobs", "-o", "xml"],
    ["describe", "job"],
    ["describe", "job", "a/b", "c/d"],
    ["output"],
    ["events", "--for", "arithmetic"],
    ["explain", "Nothing"],
    ["--wait"],
    ["--once", "--timeout", "5"],
    ["--once", "--wait", "--timeout", "-1"],
    ["--once", "plan"],
    ["--repo"],
    ["--repo", "/nowhere", "plan"],
    ["--branch", "nowhere", "plan"],
    ["--branch", "-x", "plan"],
    ["--branch", "a\nb", "plan"],
    ["--path", "nowhere", "plan"],
    ["--path", "reconciler.yaml", "plan"],
    ["--color", "mauve", "plan"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=[" ".join(arguments) for arguments in USAGE])
def test_usage_errors_have_the_form_of_all_errors(world: World, arguments: list[str]) -> None:
    done = world.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert ERROR.fullmatch(done.stderr), done.stderr


@pytest.mark.parametrize("verb", [["get", "flows"], ["get", "jobs"], ["events"], ["describe", "job", "a/b"]])
def test_nothing_applied_yet(ready: Repository, reconcile: Reconcile, verb: list[str]) -> None:
    done = reconcile(*verb)
    assert done.returncode == 2
    assert "error: there is no state in " in done.stderr
    assert "run `reconcile --once` first" in done.stderr


class TestExternalFailure:
    def test_state_directory_cannot_be_made(
        self, ready: Repository, reconcile: Reconcile, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        done = reconcile("--state-dir", str(tmp_path / "file"), "--once")
        assert done.returncode == 3
        assert ERROR.fullmatch(done.stderr), done.stderr

    def test_damaged_state(self, ready: Repository, reconcile: Reconcile, state_dir: Path) -> None:
        (state_dir / "lmdb").mkdir(parents=True)
        (state_dir / "lmdb/data.mdb").write_bytes(b"no store" * 2000)
        done = reconcile("--state-dir", str(state_dir), "--once")
        assert done.returncode == 3
        assert ERROR.fullmatch(done.stderr), done.stderr

    def test_no_git(self, ready: Repository, reconcile: Reconcile, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        done = reconcile("plan", env={"PATH": str(tmp_path / "empty")})
        assert done.returncode == 3
        assert done.stderr == "error: the command `git` is not installed\n  help: install git\n"

    def test_lost_object(self, ready: Repository, reconcile: Reconcile) -> None:
        blob = ready.run("rev-parse", "HEAD:flows/one.yaml")
        (ready.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
        done = reconcile("plan")
        assert done.returncode == 3
        assert f"git has lost the object {blob}" in done.stderr


@pytest.mark.usefixtures("warm")
class TestRefused:
    def test_lease_is_held(self, ready: Repository, reconcile: Reconcile, state_dir: Path) -> None:
        lease = Lease(state_dir)
        lease.acquire(time.time())
        try:
            done = reconcile("--state-dir", str(state_dir), "--once")
        finally:
            lease.release()
        assert (done.returncode, done.stdout) == (4, "")
        assert re.search(
            rf"error: another reconcile is at work on this state: pid {os.getpid()} on \S+, since ",
            done.stderr,
        )
        assert reconcile("--state-dir", str(state_dir), "--once").returncode == 0

    def test_lease_of_the_dead_is_free(
        self, ready: Repository, reconcile: Reconcile, state_dir: Path
    ) -> None:
        code = "import sys, os, fcntl; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); os._exit(9)"
        state_dir.mkdir()
        subprocess.run([sys.executable, "-c", code, str(state_dir / "lease")], check=False)
        assert reconcile("--state-dir", str(state_dir), "--once").returncode == 0

    def test_readers_need_no_lease(self, ready: Repository, reconcile: Reconcile, state_dir: Path) -> None:
        assert reconcile("--state-dir", str(state_dir), "--once", "--wait").returncode == 0
        with (state_dir / "lease").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for verb in (["get", "jobs"], ["plan"], ["output", "one/value"], ["events"]):
                assert reconcile("--state-dir", str(state_dir), *verb).returncode == 0

    def test_state_of_another_repository(
        self, ready: Repository, reconcile: Reconcile, state_dir: Path, tmp_path: Path
    ) -> None:
        assert reconcile("--state-dir", str(state_dir), "--once", "--wait").returncode == 0
        other = Repository(tmp_path / "other")
        minimal_project(other, tmp_path / "work")
        other.commit("another first commit")
        done = reconcile("--state-dir", str(state_dir), "--repo", str(other.path), "--once")
        assert done.returncode == 4
        first = [repository.run("rev-list", "--max-parents=0", "HEAD")[:7] for repository in (ready, other)]
        assert all(commit in done.stderr for commit in first)
        assert done.stderr.count("'minimal'") == 2

    def test_moved_repository_keeps_its_state(
        self, ready: Repository, reconcile: Reconcile, state_dir: Path, tmp_path: Path
    ) -> None:
        assert reconcile("--state-dir", str(state_dir), "--once", "--wait").returncode == 0
        moved = shutil.move(ready.path, tmp_path / "moved")
        done = reconcile("--state-dir", str(state_dir), "--repo", str(moved), "--once", cwd=tmp_path)
        assert (done.returncode, "no changes" in done.stdout) == (0, True)

    def test_mass_prune(self, ready: Repository, reconcile: Reconcile) -> None:
        assert reconcile("--once", "--wait").returncode == 0
        ready.remove("flows/one.yaml")
        ready.commit()
        assert reconcile("plan").returncode == 4
        done = reconcile("--once")
        assert done.returncode == 4
        assert "has no flows" in done.stderr
        assert "--allow-prune" in done.stderr
        assert reconcile("--once", "--allow-prune").returncode == 0


@pytest.mark.parametrize("timeout", [[], ["--timeout", "200"]])
def test_interrupted(
    ready: Repository, reconcile: Reconcile, state_dir: Path, tmp_path: Path, timeout: list[str]
) -> None:
    """Ctrl-C leaves at once and says what becomes of the jobs; the next reconcile takes them in."""
    gate = tmp_path / "gate"
    ready.write_yaml("flows/one.yaml", GATED.replace("GATE", str(gate)))
    ready.commit()
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler", "--state-dir", str(state_dir), "--once", "--wait", *timeout],
        cwd=ready.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while "RUNNING" not in reconcile("--state-dir", str(state_dir), "get", "jobs").stdout:
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; running jobs continue" in error
    assert "Traceback" not in error
    gate.touch()
    assert reconcile("--state-dir", str(state_dir), "--once", "--wait").returncode == 0
    assert "COMPLETED" in reconcile("--state-dir", str(state_dir), "get", "jobs").stdout


def patched(path: Path, code: str) -> dict[str, str]:
    """Return an environment in which Python runs ``code`` before the program begins."""
    (path / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_network_file_system(
    ready: Repository, reconcile: Reconcile, tmp_path: Path, state_dir: Path
) -> None:
    """The one of this machine is declared to be one: what matters is how it is found and refused."""
    found = state_dir_module._file_system(state_dir)
    assert found
    code = f"import reconciler.actual.state_dir as s\ns._NETWORK_FILE_SYSTEMS = frozenset(['{found}'])\n"
    done = reconcile("--state-dir", str(state_dir), "--once", env=patched(tmp_path, code))
    assert done.returncode == 4
    assert f"is on a network file system ({found}), where LMDB loses data" in done.stderr
    assert "choose a local disk with --state-dir or RECONCILER_STATE_DIR" in done.stderr


def test_internal_error_writes_a_report(ready: Repository, reconcile: Reconcile, tmp_path: Path) -> None:
    code = (
        "import reconciler.desired.source.git as g\n"
        "def boom(self, commit=None): raise ZeroDivisionError('boom')\n"
        "g.Source.revision = boom\n"
    )
    done = reconcile("plan", env=patched(tmp_path, code))
    assert done.returncode == 70
    assert "Traceback" not in done.stderr
    assert "error: this is a bug in reconciler, not your mistake: ZeroDivisionError: boom" in done.stderr
    found = re.search(r"contents of (\S+)", done.stderr)
    assert found is not None
    report = Path(found[1])
    assert "Traceback (most recent call last)" in report.read_text()
    report.unlink()
