"""Commands that only look leave alone all code that a branch, its clone and the current directory have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Repository, minimal_project

SECRET = "canary-4f1d8a"

READS_FLOWS = [
    "validate",
    "plan",
    "plan -o markdown",
    "plan --base HEAD~1",
    "diff HEAD~1 HEAD",
    "--once --dry-run",
]

COMMANDS = [
    *READS_FLOWS,
    "get flows",
    "get jobs --all",
    "get rules",
    "get workers",
    "describe flow f",
    "describe job f/a",
    "describe worker w1",
    "explain job f/a",
    "explain rule r",
    "graph f",
    "results",
    "history",
    "events",
]

DRIVER = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from reconciler.cli.main import main

trace, state, commands = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
ended = {}
for command in commands:
    sys.argv = ["reconcile", "--state-dir", state, *command.split()]
    text, code = io.TextIOWrapper(io.BytesIO(), "utf-8"), 0
    with redirect_stdout(text), redirect_stderr(text):
        try:
            main()
        except SystemExit as end:
            code = end.code
    text.flush()
    ended[command] = [code, os.path.exists(trace), text.buffer.getvalue().decode()]
json.dump(ended, sys.stdout)
"""


@pytest.fixture
def campaign(tmp_path: Path) -> Repository:
    """A clone of two commits in which every name leads to a trap that writes its name to ``ran``."""
    trace = tmp_path / "ran"
    made = Repository(tmp_path / "clone")
    minimal_project(made, tmp_path / "work")
    project = made.path / "reconciler.yaml"
    project.write_text(project.read_text().replace("spec:\n", "spec:\n  python_path: [lib]\n", 1))
    leave = f"open({str(trace)!r}, 'a').write(__name__ + ' ')\n"
    for name in ("json", "base64", "typing", "jobflow", "monty", "numpy", "lmdb", "sitecustomize", "canary"):
        made.write(f"{name}.py", leave)
        made.write(f"lib/{name}.py", leave)
    made.write_yaml(
        "rules/r.yaml",
        f"""
        apiVersion: reconciler/v1
        kind: OverrideRule
        metadata: {{name: r}}
        spec:
          order: 100
          name_glob: "*"
          set: {{exec_config: {{pre_run: "touch {trace}", export: {{A: "1"}}}}}}
        """,
    )
    flow = """
        apiVersion: reconciler/v1
        kind: Flow
        metadata: {{name: f}}
        spec:
          jobs:
          - {{id: a, function: canary.ran, args: [{0}]}}
          - {{id: b, maker: {{class: canary.Maker, kwargs: {{x: {{$maker: {{class: canary.Other}}}}}}}}}}
        """
    made.write_yaml("flows/f.yaml", flow.format(1))
    made.commit("one")
    made.write_yaml("flows/f.yaml", flow.format(2))
    made.commit("two")
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\necho {SECRET} > {trace}\n")
    trap.chmod(0o755)
    made.run("config", "core.fsmonitor", str(trap))
    return made


def test_the_traps_work(campaign: Repository, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    campaign.run("status")
    assert trace.read_text().strip() == SECRET
    for place, module in (("lib", "canary"), (".", "jobflow")):
        trace.unlink()
        subprocess.run([sys.executable, "-c", f"import {module}"], cwd=campaign.path / place, check=True)
        assert module in trace.read_text()


def looked(
    campaign: Repository, state: Path, trace: Path, commands: list[str]
) -> tuple[str, dict[str, tuple[int, bool, str]]]:
    """Run commands in one process; return all that was printed, and how each ended. No trap has run."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", DRIVER, str(trace), str(state), json.dumps(commands)],
        cwd=campaign.path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ended: dict[str, tuple[int, bool, str]] = json.loads(done.stdout)
    assert [command for command, (_, ran, _) in ended.items() if ran] == []
    return done.stdout, ended


def test_commands_that_look(campaign: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process with the search path of the installed command: the first trace would stay."""
    trace, state = tmp_path / "ran", tmp_path / "state"
    monkeypatch.setenv("MY_TOKEN", SECRET)
    printed, ended = looked(campaign, state, trace, COMMANDS)
    assert {command: code for command, (code, _, _) in ended.items() if code not in (0, 2)} == {}
    assert [command for command, (_, _, text) in ended.items() if "Traceback" in text] == []
    for command in READS_FLOWS:
        assert ended[command][0] == 0 and "1 flow" in ended[command][2], "it read the flow with the traps"
    for command in ("results", "explain rule r"):
        assert "no revision is applied" in ended[command][2]
    assert SECRET not in printed
    for file in [one for one in state.rglob("*") if one.is_file()]:
        assert SECRET.encode() not in file.read_bytes(), file


APPLIED = [*COMMANDS, "get failures", "get makers", "logs f/a", "files f/a", "output f/a", "advise", "fsck"]


def test_commands_that_look_at_an_applied_state(
    campaign: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An innocent revision is applied and has run; the next commit has the traps, and nobody applies it."""
    trace, state = tmp_path / "ran", tmp_path / "state"
    campaign.run("config", "--unset", "core.fsmonitor")
    trapped = campaign.head
    campaign.run("rm", "--quiet", "-r", "lib", "rules", "flows")
    project = campaign.path / "reconciler.yaml"
    project.write_text(project.read_text().replace("  python_path: [lib]\n", ""))
    flow = "apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: f}\nspec:\n  jobs:\n"
    jobs = "  - {id: a, function: math.sqrt, args: [4]}\n  - {id: b, function: math.sqrt, args: [-1]}\n"
    campaign.write("flows/f.yaml", flow + jobs)
    campaign.commit("innocent")
    applied = subprocess.run(
        [sys.executable, "-P", "-m", "reconciler", "--state-dir", str(state), "--once", "--wait"],
        cwd=campaign.path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert applied.returncode == 1, applied.stderr  # the job b fails
    assert not trace.exists()
    campaign.run("checkout", "--quiet", trapped, "--", "lib", "rules", "flows", "reconciler.yaml")
    campaign.commit("three")
    campaign.run("config", "core.fsmonitor", str(tmp_path / "trap.sh"))
    monkeypatch.setenv("MY_TOKEN", SECRET)
    printed, ended = looked(campaign, state, trace, APPLIED)
    named = [command for command, (_, _, text) in ended.items() if "Traceback" in text]
    assert set(named) <= {"get failures", "events"}, "only of the job that failed"
    assert {command: (code, text) for command, (code, _, text) in ended.items() if code not in (0, 2)} == {}
    for command in ("get jobs --all", "describe job f/a", "explain job f/a", "output f/a", "get failures"):
        assert ended[command][0] == 0, ended[command]
    assert "2.0" in ended["output f/a"][2] and "COMPLETED" in ended["describe job f/a"][2]
    assert "to be rebuilt" in ended["plan"][2], "the plan is that of the commit with the traps"
    assert SECRET not in printed
    for file in [one for one in state.rglob("*") if one.is_file()]:
        assert SECRET.encode() not in file.read_bytes(), file
