"""Shell completion, as the shells ask for it, and the groups of the help."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from reconciler.cli.main import COMMANDS, SECTIONS
from tests.cli.conftest import Ended
from tests.cli.world import World

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(world: World) -> Complete:
    """Return what bash offers for the last word of a command line."""

    def run(*words: str, state: str | None = None) -> list[str]:
        line = ["reconcile", "--state-dir", state or str(world.state), *words]
        variables = {
            "_RECONCILE_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(line),
            "COMP_CWORD": str(len(line) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from reconciler.cli.main import cli; cli(prog_name='reconcile')"],
            env=os.environ | variables, cwd=world.repository.path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stderr == ""
        return [item.partition(",")[2] for item in done.stdout.splitlines() if item]

    return run


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("describe", "flow", "ari"), ["arithmetic"]),
        (("describe", "job", "arithmetic/a"), ["arithmetic/add"]),
        (("describe", "worker", "w"), ["w1", "w2"]),
        (("output", "fail"), ["failing", "failing/"]),
        (("retry", "state:REM"), ["state:REMOTE_ERROR"]),
        (("retry", "state:FAILED,COMP"), ["state:FAILED,COMPLETED"]),
        (("get", "jobs", "worker:w2"), ["worker:w2"]),
        (("get", "jobs", "flow:camp"), ["flow:campaign=tests"]),
        (("get", "jobs", "label:camp"), ["label:campaign=tests"]),
        (("results", "flowset:"), ["flowset:pair"]),
        (("wait", "lab"), ["label:"]),
        (("set", "worker", "label:"), ["label:campaign=tests"]),
        (("describe", "maker", "a"), ["adder"]),
        (("get", "flows", "nothing-like-it"), []),
        (("doctor", "w1"), ["w1"]),
        (("fil",), ["files"]),
        (("describe", "job", "no-flow/"), []),
    ],
)
def test_names_of_the_state_are_completed(
    complete: Complete, words: tuple[str, ...], offered: list[str]
) -> None:
    assert complete(*words) == offered


def test_without_a_state_nothing_is_offered_and_nothing_printed(complete: Complete) -> None:
    assert complete("describe", "flow", "", state="/nonexistent/state") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_printed(shell: str, program: Callable[..., Ended]) -> None:
    done = program("completion", shell)
    assert done.code == 0
    assert f"_RECONCILE_COMPLETE={shell}_complete" in done.stdout
    assert "to use it" in done.stderr
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_every_command_is_in_one_group_of_the_help(program: Callable[..., Ended]) -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)
    shown = program("--help").stdout
    assert all(f"{title}:" in shown for title in SECTIONS)
    assert all(text in " ".join(shown.split()) for _, text in COMMANDS.values())


@pytest.mark.parametrize("command", [("logs",), ("get", "jobs"), ("retry",)])
def test_help_of_a_command_is_about_the_command(
    command: tuple[str, ...], program: Callable[..., Ended]
) -> None:
    shown = " ".join(program(*command, "--help").stdout.split())
    assert "--state-dir" not in shown and "reconcile options" in shown
    everywhere = program("options").stdout
    assert all(option in everywhere for option in ("--repo", "--state-dir", "--branch", "--color"))
