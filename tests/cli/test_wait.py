"""``reconcile wait`` on a state in which nothing moves; where something does, see ``tests/watch``."""

from __future__ import annotations

import json

import pytest

from tests.cli.world import World

pytestmark = pytest.mark.usefixtures("warm")

ARITHMETIC = "flow/arithmetic: Healthy: 4 of 4 jobs completed"


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["arithmetic"], [ARITHMETIC]),
        (["arith*/val*"], ["job/arithmetic/value: COMPLETED"]),
        (["worker:w1,w2"], ["worker/w1: Reachable", "worker/w2: Reachable"]),
        (["arithmetic", "worker:w1"], [ARITHMETIC, "worker/w1: Reachable"]),
        (["label:campaign=tests"], [ARITHMETIC]),
        (["*/val*", "label:campaign=tests"], ["job/arithmetic/value: COMPLETED"]),
        (["arith*", "label:campaign=tests", "worker:w1"], [ARITHMETIC, "worker/w1: Reachable"]),
        (["flowset:pair", "--for", "synced"], ["flow/pair-1: Synced"]),
        (["item.n=1", "--for", "synced"], ["flow/pair-1: Synced"]),
        (["failing", "--for", "idle"], ["flow/failing: 2 of 2 jobs idle"]),
        (["failing/bad", "--for", "state=failed,completed"], [None]),
        (["gener*", "--for", "synced"], ["flow/generating: Synced"]),
    ],
)  # fmt: skip
def test_condition_that_holds_already(world: World, arguments: list[str], answer: list[str | None]) -> None:
    done = world.run("wait", *arguments, "--timeout", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if None not in answer] == [one for one in answer if one]


def test_revision_and_descendant(world: World) -> None:
    head = world.repository.head
    for name in ("HEAD", head, head[:7], f"main@{head[:7]}", "HEAD~1"):
        done = world.run("wait", "--for", f"revision={name}", "--timeout", "0")
        assert (done.returncode, done.stdout) == (0, f"source: main@{head[:7]} is applied\n"), name
    done = world.run("wait", "arithmetic", "held", "--for", "revision=HEAD", "--timeout", "0")
    assert done.returncode == 1
    assert done.stdout == f"flow/arithmetic: as main@{head[:7]} wants it\n"
    assert "flow/held: it cannot be submitted: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["failing"], "flow/failing: Degraded: bad FAILED: RuntimeError: no luck today; 1 job waiting"),
        (["held"], "flow/held: it cannot be submitted: waits: there is no Worker named 'w9'"),
        (["failing/never"], "WAITING; failing/never needs failing/bad, which is FAILED"),
        (["arithmetic/add", "--for", "state=RUNNING"], "job/arithmetic/add: COMPLETED"),
    ],
)
def test_impossible_condition_ends_the_wait(world: World, arguments: list[str], why: str) -> None:
    done = world.run("wait", *arguments, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("stopped waiting, this cannot come without your help: ")
    assert why in done.stderr


def test_timeout(world: World) -> None:
    done = world.run("wait", "slow", "arithmetic", "--timeout", "0.2")
    assert (done.returncode, done.stdout) == (1, f"{ARITHMETIC}\n")
    note, last = done.stderr.splitlines()
    assert note.startswith("note: no reconcile is running on this state, so nothing changes")
    assert last == "timed out after 0.2 s: flow/slow: Progressing: 0 of 1 job completed"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["arithmetik"], "error: no flow matches 'arithmetik'\n  help: did you mean 'arithmetic'?\n"),
        (
            ["arithmetic/ad"],
            "error: no job matches 'arithmetic/ad'\n  help: did you mean 'arithmetic/add'?\n",
        ),
        (["worker:w3"], "error: there is no worker 'w3'\n  help: known: w1, w2\n"),
        (
            ["slow", "--for", "healty"],
            "error: 'healty' is not something to wait for\n  help: did you mean 'healthy'?\n",
        ),
        (["slow", "--for", "state=DONE"], "error: there is no state 'DONE'\n"),
        (
            ["slow/nap", "--for", "healthy"],
            "error: 'slow/nap' is a job: it is never healthy\n"
            "  help: conditions for a job: completed, deleted, idle, state\n",
        ),
        (["slow", "--for", "reachable"], "error: 'slow' is a flow: it is never reachable\n"),
        (["--for", "revision=mian"], "error: there is no branch or commit 'mian'\n"),
        ([], "error: name what to wait for\n  help: for all flows: `reconcile wait '*'`\n"),
    ],
)
def test_selectors_that_match_nothing(world: World, arguments: list[str], error: str) -> None:
    done = world.run("wait", *arguments, "--timeout", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(error)


def test_json_has_all_targets(world: World) -> None:
    done = world.run("wait", "slow", "failing", "-o", "json", "--timeout", "0")
    assert done.returncode == 1
    assert json.loads(done.stdout) == [
        {
            "target": "flow/slow",
            "status": "pending",
            "message": "Progressing: 0 of 1 job completed",
        },
        {
            "target": "flow/failing",
            "status": "never",
            "message": "Degraded: bad FAILED: RuntimeError: no luck today; 1 job waiting",
        },
    ]
