"""The global options: before and after the verb, how much is said, in which colours, and completion."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.world import World
from tests.support import Reconcile

ESCAPE = "\x1b["


def on_terminal(
    arguments: Sequence[str], cwd: Path, columns: int = 100, env: dict[str, str] | None = None
) -> str:
    """Run the program on a terminal of its own and return everything that it shows there."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler", *arguments],
        cwd=cwd, stdin=child, stdout=child, stderr=child,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30", **(env or {})},
    )  # fmt: skip
    os.close(child)
    shown = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(parent)
    process.wait(30)
    return shown.decode().replace("\r\n", "\n")


class TestPlacement:
    def test_before_between_and_after_the_command(self, world: World, reconcile: Reconcile) -> None:
        state = ["--state-dir", str(world.state)]
        repository = ["--repo", str(world.repository.path)]
        calls = [
            [*state, *repository, "-o", "name", "get", "workers"],
            [*state, "get", *repository, "workers", "-o", "name"],
            ["get", "-o", "name", "workers", *state, *repository],
        ]
        assert [reconcile(*call).stdout for call in calls] == ["w1\nw2\n"] * 3

    def test_last_option_wins(self, world: World) -> None:
        assert world.run("-o", "json", "get", "-o", "yaml", "workers", "-o", "name").stdout == "w1\nw2\n"

    def test_state_dir_from_the_environment(self, world: World, reconcile: Reconcile) -> None:
        variable = {"RECONCILER_STATE_DIR": str(world.state)}
        repository = ["--repo", str(world.repository.path)]
        assert reconcile(*repository, "get", "workers", "-o", "name", env=variable).stdout == "w1\nw2\n"
        elsewhere = ["--state-dir", str(world.state.parent / "elsewhere")]
        assert reconcile(*repository, *elsewhere, "get", "workers", env=variable).returncode == 2

    def test_state_dir_may_be_relative_and_begin_with_a_tilde(
        self, world: World, reconcile: Reconcile
    ) -> None:
        repository = ["--repo", str(world.repository.path)]
        call = [*repository, "get", "workers", "-o", "name", "--state-dir"]
        assert reconcile(*call, "state", cwd=world.state.parent).stdout == "w1\nw2\n"
        assert reconcile(*call, "~/state", env={"HOME": str(world.state.parent)}).stdout == "w1\nw2\n"


class TestVerbosity:
    def test_narration_is_on_stderr_and_quiet_ends_it(self, world: World) -> None:
        world.repository.write("flows/draft.yaml", "not committed")
        try:
            assert (
                "note: not committed, so not part of this revision: flows/draft.yaml"
                in world.run("plan").stderr
            )
            quiet = world.run("-q", "plan")
            other = world.run("plan", "--branch", "HEAD~1")
        finally:
            world.repository.remove("flows/draft.yaml")
        assert "note:" not in quiet.stderr
        assert "error[reference/unknown-worker]" in quiet.stderr, "an error is no narration"
        assert "note: not committed" not in other.stderr, (
            "the work tree has nothing to do with another branch"
        )

    def test_verbose_plan_shows_the_values_of_new_jobs(self, world: World) -> None:
        call = ["--state-dir", str(world.state.parent / "fresh"), "plan", "--branch", "HEAD~2"]
        assert "priority: (none) -> 3   # job: flows/flows.yaml:8" in world.run(*call, "-v").stdout
        assert "priority" not in world.run(*call).stdout


class TestColor:
    def test_none_in_a_pipe(self, world: World) -> None:
        done = world.run("plan")
        assert ESCAPE not in done.stdout + done.stderr

    def test_always(self, world: World) -> None:
        done = world.run("--color", "always", "plan")
        assert ESCAPE in done.stderr
        assert ESCAPE in world.run("get", "flows", "--color", "always").stdout

    def test_on_a_terminal(self, world: World) -> None:
        call = ["--state-dir", str(world.state), "get", "flows"]
        assert ESCAPE in on_terminal(call, world.repository.path)
        for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            assert ESCAPE not in on_terminal(call, world.repository.path, env=env)
        assert ESCAPE not in on_terminal([*call, "--color", "never"], world.repository.path)

    def test_no_colour_in_json_on_a_terminal(self, world: World) -> None:
        call = ["--state-dir", str(world.state), "get", "flows", "-o", "json"]
        assert ESCAPE not in on_terminal(call, world.repository.path)


class TestTerminal:
    @pytest.mark.parametrize("columns", [40, 80, 200])
    def test_table_is_cut_to_the_width(self, world: World, columns: int) -> None:
        call = ["--state-dir", str(world.state), "get", "jobs", "-o", "wide", "--color", "never"]
        lines = on_terminal(call, world.repository.path, columns).splitlines()
        assert len(lines) == 1 + len(world.json("get", "jobs"))
        assert max(len(line) for line in lines) <= columns

    def test_progress_only_on_a_terminal(self, world: World, tmp_path: Path) -> None:
        state = ["--state-dir", str(tmp_path / "state")]
        call = [*state, "--once", "--wait", "--timeout", "3", "--branch", "HEAD~2"]
        shown = on_terminal(call, world.repository.path)
        assert re.search(r"\d+ running|0/8|/8", shown)
        assert not re.search("[━╸╺]", world.run(*call).stderr)


def test_shell_completion(world: World, reconcile: Reconcile) -> None:
    """What bash asks when the user presses the tab key after ``reconcile get j``."""
    ask = {"_RECONCILE_COMPLETE": "bash_complete", "COMP_WORDS": "reconcile get j", "COMP_CWORD": "2"}
    assert reconcile(env=ask).stdout == "plain,jobs\n"
    ask |= {"COMP_WORDS": "reconcile d", "COMP_CWORD": "1"}
    assert reconcile(env=ask).stdout == "plain,diff\nplain,describe\nplain,doctor\n"
    script = reconcile(env={"_RECONCILE_COMPLETE": "bash_source"}).stdout
    assert "_RECONCILE_COMPLETE=bash_complete" in script
