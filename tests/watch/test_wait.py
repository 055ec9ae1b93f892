"""``wait`` and ``get --watch`` beside a daemon: they see what it does, as it does it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.model.states import JobState
from tests.watch.support import PATIENCE, WatchWorld, eventually


@pytest.fixture
def beside(watched: WatchWorld) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a verb that goes on while the test does other things."""
    made: list[subprocess.Popen[str]] = []

    def start(*arguments: str, stdout: Path | None = None) -> subprocess.Popen[str]:
        made.append(
            subprocess.Popen(
                watched.command(*arguments),
                cwd=watched.repository.path,
                stdin=subprocess.DEVNULL,
                stdout=stdout.open("w") if stdout else subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.communicate()


def test_waiting_until_it_is_so(watched: WatchWorld, beside: Callable[..., subprocess.Popen[str]]) -> None:
    gate = watched.waiting_flow("first")
    revision = watched.commit()
    watched.start()
    applied = watched.run("wait", "--for", f"revision={revision}")
    assert applied.stdout == f"source: {revision} is applied\n"
    runs = watched.run("wait", "first/*", "--for", "state=RUNNING")
    assert (runs.returncode, runs.stdout) == (0, "job/first/wait: RUNNING\n")
    waiting = beside("wait", "first", "-o", "json")
    idle = watched.run("wait", "first", "--for", "idle", "--timeout", "0.1")
    assert idle.returncode == 1
    gate.touch()
    out, err = waiting.communicate(timeout=PATIENCE)
    assert (waiting.returncode, err) == (0, "")
    assert [entry["status"] for entry in json.loads(out)] == ["holds"]
    gone = beside("wait", "first", "--for", "deleted")
    watched.repository.remove("flows/first.yaml")
    watched.flow("second", {"id": "a", "function": "give", "args": [1]})
    watched.commit()
    assert watched.run("now", "--wait", "--allow-prune").returncode == 0
    assert gone.communicate(timeout=PATIENCE)[0] == "flow/first: it is gone from git\n"
    assert gone.returncode == 0


def test_a_flow_that_becomes_degraded_ends_the_wait_and_a_refused_revision_too(
    watched: WatchWorld, beside: Callable[..., subprocess.Popen[str]]
) -> None:
    gate = watched.waiting_flow("other")
    watched.flow("bad", {"id": "x", "function": "fails", "args": ["no luck"]}, suspend=True)
    watched.commit()
    watched.start()
    watched.until_state("other/wait", "RUNNING")
    watched.flow("bad", {"id": "x", "function": "fails", "args": ["no luck"]})
    watched.commit()
    watched.until_state("bad/x", *(state for state in JobState if state is not JobState.PAUSED))
    done = watched.run("wait", "other", "bad", "--timeout", str(PATIENCE))
    assert done.returncode == 1
    assert (
        "this cannot come without your help: flow/bad: Degraded: x FAILED: ValueError: no luck" in done.stderr
    )
    for name in ("other", "bad"):
        watched.repository.remove(f"flows/{name}.yaml")
    revision = watched.commit()
    refused = watched.run("wait", "--for", "revision=HEAD")
    assert refused.returncode == 1
    assert "source: Refused: " in refused.stderr
    listed = watched.run("get", "flows")
    assert listed.stderr.startswith(f"source: Refused at {revision}: ")
    (flow,) = json.loads(watched.run("get", "flows", "other", "-o", "json").stdout)
    ready, _, stalled = flow["conditions"]
    assert (ready["status"], stalled["status"], stalled["reason"]) == ("False", "True", "RevisionRefused")
    assert flow["lastAttemptedRevision"] == revision != flow["lastAppliedRevision"]
    gate.touch()


def test_rows_that_change_are_printed_again(
    watched: WatchWorld, beside: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    gate = watched.waiting_flow("flow")
    watched.commit()
    watched.start()
    watched.until_state("flow/wait", "RUNNING")
    files = {form: tmp_path / form for form in ("table", "json", "name")}
    followers = [beside("get", "jobs", "--watch", "-o", form, stdout=file) for form, file in files.items()]
    eventually(lambda: all(file.read_text() for file in files.values()), "the first rows")
    gate.touch()
    eventually(lambda: "COMPLETED" in files["json"].read_text(), "the last row")
    eventually(lambda: "COMPLETED" in files["table"].read_text(), "the last row")
    for follower in followers:
        follower.send_signal(signal.SIGINT)
        assert follower.wait(PATIENCE) == 0, "that is how one ends it"
    rows = [json.loads(line) for line in files["json"].read_text().splitlines()]
    states = [row["state"] for row in rows]
    assert (states[0], states[-1]) == ("RUNNING", "COMPLETED")
    assert {row["key"] for row in rows} == {"flow/wait"}
    header, *lines = files["table"].read_text().splitlines()
    assert header.split() == ["KEY", "STATE", "WORKER", "PRIORITY", "ERROR"]
    assert [line.split()[1] for line in (lines[0], lines[-1])] == ["RUNNING", "COMPLETED"]
    assert set(files["name"].read_text().split()) == {"flow/wait"}


def test_a_reader_that_goes_away_ends_the_listing(
    watched: WatchWorld, beside: Callable[..., subprocess.Popen[str]]
) -> None:
    gate = watched.waiting_flow("flow")
    watched.commit()
    watched.start()
    watched.until_state("flow/wait", "RUNNING")
    follower = beside("get", "jobs", "--watch")
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.stdout.close()
    gate.touch()
    assert follower.wait(PATIENCE) == 0
