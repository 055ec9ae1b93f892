"""A commit in one shell, seen in another: with real terminals, a real daemon, and a clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.terminal import Terminal
from tests.watch.support import WatchWorld


@pytest.fixture
def terminal(watched: WatchWorld) -> Iterator[Callable[..., Terminal]]:
    """Run a verb on the state of the daemon in a terminal."""
    made: list[Terminal] = []

    def run(*arguments: str, **more: int) -> Terminal:
        command = [sys.executable, "-m", "reconciler", "--state-dir", str(watched.state), *arguments]
        made.append(Terminal(command, watched.repository.path, **more))
        return made[-1]

    yield run
    for each in made:
        each.close()


def test_a_commit_shows_and_its_job_runs(
    watched: WatchWorld, terminal: Callable[..., Terminal], record_property: Callable[[str, object], None]
) -> None:
    """Within half a second and within one, on a machine that does nothing else."""
    watched.commit()
    watch = watched.start()
    watch.until("reconciled")
    flows = terminal("get", "flows", "--watch")
    flows.until("nothing to show yet")
    gate = watched.waiting_flow("fresh")
    watched.commit()
    begun = time.monotonic()
    seen = flows.until(r"fresh +Synced +Progressing") - begun
    running = flows.until(r"fresh .*1 RUNNING") - begun
    record_property("commit_shows", round(seen, 3))
    record_property("job_runs", round(running, 3))
    print(f"a commit shows after {seen:.2f} s, its job runs after {running:.2f} s")
    gate.touch()
    flows.until(r"fresh +Synced +Healthy +1 COMPLETED")
    flows.type("\x03")
    assert flows.wait() == 0
    assert "Traceback" not in flows.text
    assert seen < 30, "the figures are for a quiet machine; this is for a busy one"


def test_a_table_fits_its_terminal_whatever_size_that_gets(
    watched: WatchWorld, terminal: Callable[..., Terminal]
) -> None:
    jobs = ({"id": f"job{number}", "function": "give", "args": [1]} for number in range(30))
    watched.flow("many", *jobs, suspend=True)
    watched.commit()
    assert watched.run("--once").returncode == 0
    table = terminal("get", "jobs", "--watch", rows=12, columns=60)
    table.until("and 21 more: the terminal is not high enough")
    assert "many/job8" in table.text
    assert "many/job9" not in table.text
    place = len(table.raw)
    table.resize(40, 60)
    table.until("many/job29", after=place)
    table.type("\x03")
    assert table.wait() == 0
    assert "\x1b[?25h" in table.raw, "the cursor is there again"
    assert max(len(line.rstrip()) for line in table.text.splitlines()) <= 60
