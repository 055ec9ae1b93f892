"""No argument, option or variable of the user ends a command as a bug of the program (exit code 70)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.store import Store
from reconciler.model.applied import AppliedConfig
from tests.cli.members import member, put
from tests.support import Repository, minimal_project

Program = Callable[..., Any]

ODD = [
    "", " ", "-", "--", ".", "..", "/", "//", "a/", "/b", "f/job", "f/job/x", "f/job.x[0]", "f/job[",
    "*", "[", "[!",
    "**/**", "\\", "~", "~nobody", "{", "{}", "'", "$HOME", "%s", "\n", "a\nb", "\t", "\x1b[31m", "é",
    "\u202e", "世",
    "\U0001f600", os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xff/\xfe"), "x" * 5000, "HEAD", "main@{0}",
    "-1", "1e999",
    "nan", "99999999999999999999", "state:", "state:FAILED,", "flow:=", "worker:", "a:b", ":", "f@1",
    "2a5413c4",
    "2a5413c4-0000-4000-8000-000000000001_99999999999999999999", "ffffffff_", "2A5413C4-",
]  # fmt: skip

CALLS = [
    "get flows", "get jobs", "get jobs --state", "get jobs --flow", "get jobs --worker", "get jobs --limit",
    "describe flow", "describe job", "describe worker", "graph", "graph -o dot", "output",
    "output -o yaml", "logs",
    "events --for", "events --limit", "history", "wait --timeout 0", "wait --timeout",
    "wait --timeout 0 --for",
    "wait --timeout 0 f --for", "render job", "render job --worker w1", "explain", "explain job",
    "explain job f/job",
    "explain rule", "retry --dry-run", "rerun --dry-run", "pause --dry-run", "cancel --dry-run",
    "forget --dry-run",
    "set worker f --dry-run", "set priority --dry-run f", "set resources f --dry-run",
    "set exec-config f --dry-run",
    "set suspend --dry-run", "set suspend f on --dry-run --reason", "set priority f 1 --dry-run -m",
    "set priority f 1 --dry-run --label", "set priority f 1 --dry-run --function", "plan --base",
    "plan --branch",
    "plan --base HEAD --head", "plan --path", "plan --repo", "diff HEAD", "validate --branch",
    "validate --path",
    "apply", "backup", "restore", "fsck --state-dir", "get jobs --state-dir", "systemd --name",
    "systemd --branch",
    "doctor", "now --timeout", "plan -o", "plan --color",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a repository and a state."""
    path = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("HOME", str(path))
        repository = Repository(path / "repository")
        minimal_project(repository, path / "work")
        head = repository.commit("no flows")
    store = Store(path / "state")
    put(store, member("job", flow="f", uuid="2a5413c4-0000-4000-8000-000000000001"))
    store.write(lambda writer: writer.put_config(AppliedConfig(revision="main@1234567", commit=head)))
    store.close()
    return path


@pytest.mark.parametrize("call", CALLS)
def test_arguments(place: Path, program: Program, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.chdir(place / "repository")
    for argument in ODD:
        if call in ("backup", "restore") and argument in ("~", "x" * 5000):
            continue
        done = program("--state-dir", str(place / "state"), *call.split(), argument)
        assert done.code in (0, 1, 2, 3, 4), (argument, done.stderr)
        assert "Traceback" not in done.stderr


VARIABLES = [
    {"HOME": ""}, {"HOME": "/nonexistent"}, {"HOME": None}, {"XDG_STATE_HOME": "relative"},
    {"XDG_STATE_HOME": "FILE/x"}, {"XDG_CACHE_HOME": "FILE/x"},
    {"XDG_CACHE_HOME": os.fsdecode(b"/tmp/\xff")},
    {"XDG_STATE_HOME": os.fsdecode(b"STATE\xff")}, {"RECONCILER_STATE_DIR": "FILE"},
    {"RECONCILER_STATE_DIR": os.fsdecode(b"STATE\xff")}, {"RECONCILER_STATE_DIR": "~nobody/x"},
    {"TMPDIR": "FILE"},
    {"TMPDIR": os.fsdecode(b"/tmp/\xff")}, {"TZ": "Nowhere/Land"}, {"COLUMNS": "-1"},
    {"COLUMNS": "wide", "LINES": "0"},
    {"TERM": os.fsdecode(b"\xff")}, {"LANG": "xx_YY.utf-99", "LC_ALL": "xx"}, {"PATH": ""},
    {"NO_COLOR": "\xff"},
    {"USER": os.fsdecode(b"caf\xe9"), "LOGNAME": os.fsdecode(b"caf\xe9")},
    {"GIT_AUTHOR_NAME": os.fsdecode(b"caf\xe9"), "GIT_AUTHOR_EMAIL": "a@b"}, {"GIT_DIR": "/nonexistent"},
    {"GIT_CONFIG_GLOBAL": "FILE"},
]  # fmt: skip


@pytest.mark.parametrize("variables", VARIABLES, ids=lambda variables: ",".join(variables))
def test_environment(place: Path, tmp_path: Path, variables: dict[str, str | None]) -> None:
    (tmp_path / "file").write_text("not a directory")
    env = dict(os.environ)
    for name, value in variables.items():
        env.pop(name, None)
        if value is not None:
            value = value.replace("FILE", str(tmp_path / "file")).replace("STATE", str(tmp_path / "state"))
            env[name] = value
    for call in ("get flows", "plan", "--once", "validate", "pause --dry-run f"):
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", *call.split()],
            cwd=place / "repository", env=env, capture_output=True, timeout=60,
        )  # fmt: skip
        assert done.returncode in (0, 1, 2, 3, 4), done.stderr.decode(errors="backslashreplace")


@pytest.mark.parametrize("gone", [False, True])
def test_working_directory(place: Path, tmp_path: Path, gone: bool) -> None:
    """It has a name that is not UTF-8, or does not exist any more."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    leave = f"rmdir '{folder}';" if gone else ""
    program = f"cd '{folder}'; {leave} exec '{sys.executable}' -m reconciler --state-dir '{place}/state'"
    for call in ("get flows", "plan", "--once", "retry --dry-run f", "doctor"):
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            ["bash", "-c", f"{program} {call}"],
            capture_output=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, timeout=60,
        )  # fmt: skip
        assert done.returncode in (0, 1, 2, 3, 4), done.stderr.decode(errors="backslashreplace")


def test_a_bug_is_reported_whatever_the_arguments(
    place: Path, program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Arguments that are not UTF-8, an unusable TMPDIR, an exception that cannot be printed."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    monkeypatch.chdir(place / "repository")
    for error in (ZeroDivisionError("boom\udce9"), UnprintableError(), RecursionError("x" * 100_000)):
        for temporary in ("/tmp", str(tmp_path / "none")):

            def boom(*_: object, error: Exception = error, **__: object) -> None:
                raise error

            with monkeypatch.context() as patched:
                patched.setattr("reconciler.desired.source.git.Source.revision", boom)
                patched.setattr("tempfile.mkstemp", partial(tempfile.mkstemp, dir=temporary))
                done = program("--state-dir", str(place / "state"), "plan", "--branch", os.fsdecode(b"\xff"))
            assert done.code == 70
            first, *rest = done.stderr.splitlines()
            assert first.startswith("error: this is a bug in reconciler") and len(first) < 2000
            if temporary == "/tmp":
                Path(rest[0].rpartition(" ")[2]).unlink()
            else:
                assert "Traceback (most recent call last)" in done.stderr
