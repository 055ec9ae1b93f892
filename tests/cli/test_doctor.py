"""``reconcile doctor``: as a user meets it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reconciler.actual.state_dir import Lease
from reconciler.doctor.check import Status
from tests.support import ROOT, Reconcile, Repository, minimal_project

SCHEMA = json.loads((ROOT / "schemas/output/doctor.schema.json").read_text(encoding="utf-8"))

WARM = pytest.mark.usefixtures("warm")


@pytest.fixture
def ready(repository: Repository, tmp_path: Path) -> Repository:
    """Two workers whose Python has jobflow at once; to import the real one takes a second."""
    minimal_project(repository, tmp_path / "work")
    version = importlib.metadata.version("jobflow")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho doctor-says python 3.12.1\necho doctor-says jobflow {version}\n")
    python.chmod(0o755)
    file = repository.path / "reconciler.yaml"
    file.write_text(file.read_text().replace("max_jobs: 4", f"python: {python}"))
    repository.commit()
    return repository


def as_data(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert list(Draft202012Validator(SCHEMA).iter_errors(found)) == []
    by_name = {(check["subject"], check["name"]): check for check in found}
    assert len(by_name) == len(found), "names are unique"
    return by_name


def break_worker(repository: Repository, name: str, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    file = repository.path / "reconciler.yaml"
    file.write_text(file.read_text().replace(str(tmp_path / "work" / name), f"{tmp_path}/work/x"))
    repository.commit(f"break {name}")


def test_all_is_well(ready: Repository, reconcile: Reconcile, state_dir: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = reconcile("--state-dir", str(state_dir), "doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[:-1] == [
        "this machine", "repository", "worker w1 (this machine, shell)", "worker w2 (this machine, shell)",
    ]  # fmt: skip
    assert f"  ✔ work_dir: {tmp_path}/work/w1: does not exist yet, can be made in {tmp_path}" in lines
    assert re.fullmatch(r"\d+ ok, 3 skipped", titles[-1])
    assert sorted(tmp_path.rglob("*")) == before, "nothing is made"


@WARM
def test_named_workers_only(ready: Repository, reconcile: Reconcile, state_dir: Path) -> None:
    found = as_data(reconcile("--state-dir", str(state_dir), "doctor", "w2", "-o", "json"))
    assert {subject for subject, _ in found} == {"machine", "repository", "worker/w2"}
    assert {check["status"] for check in found.values()} <= {"ok", "skipped"}
    assert {check["fix"] for check in found.values()} == {None}


@WARM
def test_unknown_worker(ready: Repository, reconcile: Reconcile, state_dir: Path) -> None:
    done = reconcile("--state-dir", str(state_dir), "doctor", "w11")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no worker 'w11'\n  help: did you mean 'w1'?\n"


@WARM
def test_failure_has_its_fix_below_it(
    ready: Repository, reconcile: Reconcile, state_dir: Path, tmp_path: Path
) -> None:
    break_worker(ready, "w1", tmp_path)
    done = reconcile("--state-dir", str(state_dir), "doctor", "w1")
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    at = lines.index(
        f"  ✗ work_dir: {tmp_path}/work/x cannot be a directory: {tmp_path}/work is not a directory"
    )
    assert lines[at + 1] == "      fix: move that file away, or change `work_dir`"
    assert "1 failed" in lines[-1]


def test_ascii_terminal(ready: Repository, reconcile: Reconcile, state_dir: Path, tmp_path: Path) -> None:
    break_worker(ready, "w1", tmp_path)
    done = reconcile("--state-dir", str(state_dir), "doctor", "w1", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 3
    assert done.stdout.isascii()
    assert "  + git: " in done.stdout
    assert "  x work_dir: " in done.stdout


def test_colour_when_asked_for(ready: Repository, reconcile: Reconcile, state_dir: Path) -> None:
    done = reconcile("--state-dir", str(state_dir), "doctor", "w1", "--color", "always")
    assert "\x1b[32m✔\x1b[0m git: " in done.stdout


def test_progress_on_a_terminal_only(ready: Repository, state_dir: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "reconciler", "--state-dir", str(state_dir), "doctor", "w1"]
    done = subprocess.run(
        command, cwd=ready.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, timeout=60
    )
    os.close(theirs)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "repository ..." in said
    assert "worker w1, 1 of 1 ..." in said
    assert said.endswith("\r\x1b[K"), "the last one is gone at the end"


@WARM
def test_invalid_revision(ready: Repository, reconcile: Reconcile, state_dir: Path) -> None:
    """The valid workers of it are examined all the same."""
    ready.write_yaml("workers/w3.yaml", "kind: Worker\nmetadata: {name: w3}\nspec: {typo: local}\n")
    ready.commit("a mistake")
    done = reconcile("--state-dir", str(state_dir), "doctor", "-o", "json")
    assert done.returncode == 2
    found = as_data(done)
    manifests = found["repository", "manifests"]
    assert re.fullmatch(r"\d+ errors?", manifests["message"])
    assert (manifests["status"], manifests["fix"]) == ("failed", "`reconcile validate` shows them")
    assert found["worker/w1", "work_dir"]["status"] == "ok"
    validated = json.loads(reconcile("validate", "-o", "json").stdout)
    errors = [problem for problem in validated if problem["severity"] == "error"]
    assert manifests["message"].split()[0] == str(len(errors))


def test_no_repository(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = Reconcile(tmp_path / "empty")("doctor")
    assert done.returncode == 2
    assert "✗ repository: " in done.stdout
    assert "is not inside a git repository" in done.stdout
    assert "fix: run `git init` and commit your manifests, or name a repository with --repo" in done.stdout
    assert "✔ git: " in done.stdout


@WARM
def test_no_commit(repository: Repository, reconcile: Reconcile, state_dir: Path) -> None:
    done = reconcile("--state-dir", str(state_dir), "doctor")
    assert done.returncode == 2
    assert "✗ branch: the repository" in done.stdout


@WARM
def test_uncommitted_manifest_is_a_warning(ready: Repository, reconcile: Reconcile, state_dir: Path) -> None:
    ready.write("flows/new.yaml", "kind: Flow\n")
    done = reconcile("--state-dir", str(state_dir), "doctor", "w1")
    assert done.returncode == 0
    assert "⚠ work tree: not committed, so not part of the revision: flows/new.yaml" in done.stdout


@WARM
def test_without_network(ready: Repository, reconcile: Reconcile, state_dir: Path, tmp_path: Path) -> None:
    """What was fetched before still tells which workers there are."""
    url = f"file://{ready.path}"
    given = ("--repo", url, "--state-dir", str(state_dir))
    assert reconcile(*given, "validate", cwd=tmp_path).returncode == 0
    ready.path.rename(tmp_path / "elsewhere")
    done = reconcile(*given, "doctor", "-o", "json", cwd=tmp_path)
    assert done.returncode == 3
    found = as_data(done)
    assert found["repository", "repository"]["status"] == "failed"
    assert f"cannot fetch {url}" in found["repository", "repository"]["message"]
    assert found["worker/w2", "work_dir"]["status"] == "ok"


def test_interrupted_while_a_host_does_not_answer(ready: Repository, state_dir: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fields = {"type": "remote", "host": "127.0.0.1", "port": silent.getsockname()[1], "user": "ada"}
        spec = {**fields, "scheduler_type": "shell", "work_dir": "~/work"}
        manifest = {
            "apiVersion": "reconciler/v1",
            "kind": "Worker",
            "metadata": {"name": "far"},
            "spec": spec,
        }
        ready.write("workers/far.yaml", json.dumps(manifest))
        ready.commit()
        command = [sys.executable, "-m", "reconciler", "--state-dir", str(state_dir), "doctor", "far"]
        with subprocess.Popen(
            command, cwd=ready.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            assert "repository\n" in running.stdout
            silent.settimeout(20)
            connection = silent.accept()[0]
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=10)
            connection.close()
    assert (running.returncode, said.strip()[:11]) == (130, "interrupted")


@WARM
class TestState:
    """With a state there is more to say, and it stays as it is."""

    @pytest.fixture
    def applied(self, ready: Repository, reconcile: Reconcile, state_dir: Path) -> Repository:
        done = reconcile("--state-dir", str(state_dir), "--once")
        assert done.returncode == 0, done.stderr
        return ready

    def test_applied_revision(self, applied: Repository, reconcile: Reconcile, state_dir: Path) -> None:
        before = (state_dir / "lmdb" / "data.mdb").read_bytes()
        found = as_data(reconcile("--state-dir", str(state_dir), "doctor", "w1", "-o", "json"))
        assert (
            found["machine", "store"]["message"] == f"opens, schema 3; last applied main@{applied.head[:7]}"
        )
        assert found["machine", "permissions"]["message"] == "mode 0700"
        assert found["repository", "state"]["message"] == "belongs to project 'minimal' of this repository"
        assert {check["status"] for check in found.values()} == {Status.OK}
        assert (state_dir / "lmdb" / "data.mdb").read_bytes() == before

    def test_while_a_reconcile_is_at_work(
        self, applied: Repository, reconcile: Reconcile, state_dir: Path
    ) -> None:
        with Lease(state_dir) as lease:
            lease.acquire(time.time())
            done = reconcile("--state-dir", str(state_dir), "doctor", "w1")
        assert done.returncode == 0
        assert f"✔ lease: held by pid {os.getpid()} on " in done.stdout

    def test_workers_of_an_unreadable_revision(
        self, applied: Repository, reconcile: Reconcile, state_dir: Path
    ) -> None:
        """Those of the last applied one are examined."""
        applied.remove("reconciler.yaml")
        applied.commit("all gone")
        done = reconcile("--state-dir", str(state_dir), "doctor", "-o", "json")
        assert done.returncode == 2
        found = as_data(done)
        assert "no longer has a reconciler.yaml" in found["repository", "manifests"]["message"]
        assert found["worker/w1", "work_dir"]["status"] == "ok"

    def test_state_of_another_repository(self, applied: Repository, state_dir: Path, tmp_path: Path) -> None:
        other = Repository(tmp_path / "other")
        minimal_project(other, tmp_path / "work")
        other.commit("of somebody else")
        done = Reconcile(other.path)("--state-dir", str(state_dir), "doctor", "w1")
        assert done.returncode == 3
        assert "✗ state: belongs to project 'minimal' (repository with root " in done.stdout
        assert "fix: choose another --state-dir for this repository" in done.stdout
