"""The log of the daemon, as programs read it, and how signals and rotation reach it."""

from __future__ import annotations

import signal
from typing import Any

from tests.watch.support import WatchWorld, eventually

_BROKEN = {"jobs": [{"id": "x", "function": "simple_jobs.give", "args": [1]}], "worker": "w9"}


def test_every_line_is_an_object_and_all_lines_of_a_pass_have_its_id(watched: WatchWorld) -> None:
    watched.flow("good", {"id": "a", "function": "give", "args": [1]})
    watched.put("Flow", "broken", _BROKEN)
    revision = watched.commit()
    watch = watched.start("-v")
    watch.until("reconciled")
    watched.until_state("good/a", "COMPLETED")
    watch.send(signal.SIGHUP)
    watch.until("reconciled", 2)
    assert watch.end() == 0
    lines = watch.lines()
    for line in lines:
        assert isinstance(line["time"], float)
        assert line["level"] in ("debug", "info", "warning", "error")
        assert line["event"]
        assert line["message"]
    first, second = _passes(lines)
    assert {"reconcile-begun", "narration", "diagnostic", "action", "reconciled"} <= {
        line["event"] for line in first
    }
    assert [line["result"] for line in (first[-1], second[-1])] == ["Invalid", "Invalid"]
    (problem,) = [line for line in first if line["event"] == "diagnostic"]
    assert (problem["level"], problem["code"]) == ("error", "reference/unknown-worker")
    assert first[0]["message"] == f"reconciling {revision}"
    loose = {line["event"] for line in lines if "reconcile" not in line}
    assert not loose & {"reconcile-begun", "narration", "diagnostic", "action", "reconciled"}
    assert {"begun", "State", "ending", "ended"} <= loose


def _passes(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the lines of each pass, which has a beginning and an end."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if "reconcile" in line:
            found.setdefault(line["reconcile"], []).append(line)
    for each in found.values():
        assert (each[0]["event"], each[-1]["event"]) == ("reconcile-begun", "reconciled")
    return list(found.values())


def test_a_log_file_that_was_moved_away_is_begun_anew(watched: WatchWorld) -> None:
    revision = watched.commit()
    log = watched.root / "reconcile.log"
    watch = watched.start("--log-format", "text", "--log-file", str(log), ready=False)
    eventually(lambda: log.exists() and f"{revision}:" in log.read_text(), "the log", watch)
    old = log.rename(watched.root / "reconcile.log.1")
    before = old.read_text()
    watch.send(signal.SIGHUP)
    eventually(lambda: log.exists() and f"{revision}:" in log.read_text(), "a new log", watch)
    assert old.read_text() == before
    assert watch.end() == 0
    assert log.read_text().splitlines()[-1].endswith("  stopped")
    assert not watch.log.read_text(), "nothing goes to stderr"


def test_a_log_file_that_cannot_be_written_is_said_at_once(watched: WatchWorld) -> None:
    watched.commit()
    log = watched.root / "no-such-directory" / "log"
    done = watched.run("watch", "--log-file", str(log))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write the log {log}: No such file")


def test_a_hangup_makes_a_pass_though_nothing_has_changed(watched: WatchWorld) -> None:
    watched.commit()
    watch = watched.start()
    watch.until("reconciled")
    for count in (2, 3):
        watch.send(signal.SIGHUP)
        watch.until("reconciled", count)
    assert watch.end() == 0
