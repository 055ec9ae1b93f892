"""Closed pipes, old encodings and closed streams change neither the exit code nor a name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli.formats import as_json
from tests.cli.world import World
from tests.support import Reconcile, Repository, isolate, minimal_project

ODD = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: odd}
    spec: {jobs: [{id: text, function: reconciler.examples.value, args: ["é ✔ 世"]}]}
    """


@pytest.fixture
def invalid(repository: Repository, tmp_path: Path) -> Repository:
    """A repository whose diagnostics are far longer than a pipe."""
    minimal_project(repository, tmp_path / "work")
    repository.write("rules/x.yaml", "".join(f"kind: X{number}\n---\n" for number in range(1500)))
    repository.commit()
    return repository


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository whose only job has finished; its output is not ASCII. The state is beside it."""
    root = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, root / "home")
        made = Repository(root / "repository")
        minimal_project(made, root / "work")
        made.write_yaml("flows/odd.yaml", ODD)
        made.commit()
        done = Reconcile(made.path)("--state-dir", str(root / "state"), "--once", "--wait")
        assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def odd(ran: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """That repository and its state, which no test of it changes."""
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(ran.path.parent / "state"))
    return ran


def shell(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script; ``reconcile`` is the program under test."""
    program = f'reconcile() {{ "{sys.executable}" -m reconciler "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", program + script],
        cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip


STATUS = "; echo ${PIPESTATUS[0]}"


class TestClosedPipe:
    @pytest.mark.parametrize(
        ("call", "code"),
        [
            ("reconcile validate 2>&1 | true", 2),
            ("reconcile validate 2>&1 | head -1 >/dev/null", 2),
            ("reconcile validate -o json | true", 2),
            ("reconcile plan 2>&1 | head -c 100 >/dev/null", 2),
            ("reconcile nonsense 2>&1 | true", 2),
            ("reconcile get jobs 2>&1 | true", 2),
        ],
    )
    def test_exit_code_of_an_invalid_revision(self, invalid: Repository, call: str, code: int) -> None:
        assert shell(call + STATUS, invalid.path).stdout == f"{code}\n"

    @pytest.mark.usefixtures("warm")
    @pytest.mark.parametrize(
        "call",
        ["get jobs", "get jobs -o json", "get flows -w", "describe job arithmetic/value", "events", "--help",
         "get jobs --help", "--version", "graph arithmetic", "output arithmetic/value", "logs failing/bad",
         "doctor w1", "fsck", "history", "explain Worker", "explain job arithmetic/value"],
    )  # fmt: skip
    def test_reading_commands(self, world: World, call: str) -> None:
        call = f"reconcile --state-dir {world.state} {call} 2>&1"
        usual = (
            "0\n" if "-w" in call else shell(f"{call} | cat >/dev/null{STATUS}", world.repository.path).stdout
        )
        done = shell(f"{call} | true" + STATUS, world.repository.path)
        assert (done.stdout, done.stderr) == (usual, "")

    def test_work_is_done_all_the_same(self, invalid: Repository, reconcile: Any) -> None:
        invalid.write_yaml("flows/odd.yaml", ODD)
        invalid.commit()
        assert shell("reconcile --once --wait 2>&1 | true" + STATUS, invalid.path).stdout == "2\n"
        assert reconcile("get", "jobs", "--state", "COMPLETED", "-o", "name").stdout == "odd/text\n"


class TestClosedFromTheStart:
    @pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
    def test_exit_code(self, odd: Repository, closed: str) -> None:
        calls = ["get jobs", "describe job odd/text", "--once", "pause odd", "logs odd/text"]
        codes = [shell(f"exec 9>&1; reconcile {call} {closed} 9>&-; echo $? >&9", odd.path) for call in calls]
        assert [done.stdout.splitlines()[-1] for done in codes] == ["0", "0", "0", "4", "0"]


NAMING = ("get flows", "describe flow", "output", "retry", "plan --branch", "--state-dir", "apply")


class TestEncodings:
    @pytest.mark.parametrize(
        "env",
        [
            {"PYTHONIOENCODING": "latin-1"},
            {"PYTHONIOENCODING": "ascii"},
            {"PYTHONIOENCODING": "iso8859-15:strict"},
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
            {"LC_ALL": "POSIX"},
            {"PYTHONIOENCODING": "cp1252"},
        ],
        ids=str,
    )
    def test_every_command(self, odd: Repository, env: dict[str, str]) -> None:
        encoding = env.get("PYTHONIOENCODING", "utf-8").partition(":")[0]
        for call in ("output odd/text", "output odd/text -o yaml", "plan", "get jobs -o wide"):
            done = subprocess.run(
                [sys.executable, "-m", "reconciler", *call.split()],
                cwd=odd.path, env={**os.environ, **env}, capture_output=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            text = done.stdout.decode(encoding)
            if call.startswith("output"):  # YAML has all escapes, and those of JSON
                assert yaml.safe_load(text) == "é ✔ 世", text

    def test_a_name_that_cannot_be_encoded_is_escaped(self, odd: Repository) -> None:
        done = shell("reconcile get flows odé", odd.path, PYTHONIOENCODING="ascii")
        assert (done.returncode, "od\\xe9" in done.stderr) == (0, True)

    def test_arguments_that_are_not_utf_8(self, odd: Repository) -> None:
        for call in NAMING:
            done = shell(f"reconcile {call} $'caf\\xe9'", odd.path)
            assert done.returncode in (0, 2, 3, 4), done.stderr
            assert call == "--state-dir" or "caf\\xe9" in done.stderr


class TestJson:
    def test_no_nan_and_no_infinity(self) -> None:
        data = {"a": [float("nan"), {"b": float("inf")}], "c": -float("inf"), "d": 1.5, "nan": "NaN"}

        def refuse(text: str) -> None:
            raise AssertionError(text)

        found = json.loads(as_json(data), parse_constant=refuse)
        assert found == {"a": [None, {"b": None}], "c": None, "d": 1.5, "nan": "NaN"}
