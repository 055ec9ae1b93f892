"""Columns, order, headers and times of ``reconcile get``, and ``-o csv``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cli.views.words import duration_text
from tests.cli.world import World
from tests.support import Reconcile, Repository, minimal_project

Lines = Callable[..., list[str]]


@pytest.fixture
def lines(world: World) -> Lines:
    """Run ``reconcile get`` and return the lines that it prints."""

    def get(*arguments: str) -> list[str]:
        done = world.run("get", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return get


def test_columns_are_fields_of_the_json_output(lines: Lines) -> None:
    shown = lines("jobs", "arithmetic", "--columns", "state,key,priority")
    assert shown[0].split() == ["STATE", "KEY", "PRIORITY"]
    assert "COMPLETED  arithmetic/add" in shown[2]
    assert lines("flows", "arithmetic", "--columns", "name,labels.campaign", "--no-headers") == [
        "arithmetic  tests"
    ]
    assert lines("workers", "--columns", "name", "--no-headers")[0] == "w1"
    assert lines("rules", "--columns", "name,order", "--no-headers") == ["hurry  100"]


def test_rows_are_sorted_and_missing_values_are_last(lines: Lines) -> None:
    arguments = ("jobs", "--columns", "key,priority,seconds", "--no-headers", "-o", "csv")
    up = [row.split(",") for row in lines(*arguments, "--sort-by", "seconds")]
    times = [float(row[2]) for row in up if row[2]]
    assert times == sorted(times) and len(times) > 5
    assert not up[-1][2], "the job that never ran has no time"
    down = [row.split(",") for row in lines(*arguments, "--sort-by", "-seconds")]
    assert [float(row[2]) for row in down if row[2]] == sorted(times, reverse=True)
    assert not down[-1][2]
    assert lines("jobs", "arithmetic", "--sort-by", "-key", "-o", "name")[0] == "arithmetic/value"


def test_csv_reads_back(world: World, lines: Lines) -> None:
    rows = list(csv.DictReader(io.StringIO("\n".join(lines("jobs", "-o", "csv")))))
    assert [row["key"] for row in rows] == [row["key"] for row in world.json("get", "jobs")]
    assert {"state", "worker", "uuid", "started", "seconds"} <= rows[0].keys()
    assert "key,state" not in lines("jobs", "-o", "csv", "--no-headers")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("jobs", "--columns", "stat"), "there is no column 'stat'"),
        (("jobs", "--columns", "key.name"), "there is no column 'key.name'"),
        (("flows", "--sort-by", "helth"), "did you mean 'health'?"),
        (("jobs", "--since", "soon"), "is not a duration"),
    ],
)
def test_what_does_not_exist_is_told(world: World, arguments: tuple[str, ...], words: str) -> None:
    done = world.run("get", *arguments)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_csv_is_only_for_listings(world: World) -> None:
    done = world.run("describe", "flow", "arithmetic", "-o", "csv")
    assert (done.returncode, "-o csv is for listings" in done.stderr) == (2, True)


def test_times_of_an_attempt(world: World) -> None:
    jobs = {job["key"]: job for job in world.json("get", "jobs")}
    done, failed, never = (jobs[key] for key in ("arithmetic/add", "failing/bad", "failing/never"))
    for job in (done, failed):
        assert job["submitted"] <= job["ended"]
        assert 0 <= job["seconds"] < 600
    assert jobs["slow/nap"]["started"] >= jobs["slow/nap"]["submitted"]
    assert jobs["slow/nap"]["ended"] is None
    assert {never[field] for field in ("submitted", "started", "ended", "seconds")} == {None}
    text = world.run("describe", "job", "arithmetic/add").stdout
    assert "submitted:" in text and "ended:" in text and "(ran " in text


def test_since_leaves_out_what_has_not_moved(world: World, lines: Lines) -> None:
    assert len(lines("jobs", "--since", "1d", "-o", "name")) == len(lines("jobs", "-o", "name"))
    assert lines("jobs", "--since", "0.001", "-o", "name") == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7320, "2 h 2 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


BLOCKED = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: unbuilt}
    spec: {factory: {function: reconciler.examples.nowhere}}
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: dependent}
    spec:
      jobs: [{id: a, function: reconciler.examples.value, args: [{$output: unbuilt/x}]}]
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: invalid}
    spec: {jobs: 5}
    """


@pytest.mark.parametrize(
    ("flow", "why"),
    [
        ("unbuilt", "cannot be built: 'reconciler.examples' does not have 'nowhere'"),
        ("dependent", "waits: a flow that it refers to cannot be built"),
        ("invalid", "its document is invalid: flows/blocked.yaml:15:14"),
    ],
)
def test_jobs_of_a_flow_that_is_not_submitted(
    repository: Repository, reconcile: Reconcile, state_dir: Path, tmp_path: Path, flow: str, why: str
) -> None:
    minimal_project(repository, tmp_path / "work")
    repository.write_yaml("flows/blocked.yaml", BLOCKED)
    repository.commit()
    reconcile("--state-dir", str(state_dir), "--once")
    for arguments in (["--flow", flow], [flow], [f"{flow}/a"]):
        done = reconcile("--state-dir", str(state_dir), "get", "jobs", *arguments, "-o", "json")
        assert (done.returncode, json.loads(done.stdout)) == (0, [])
        assert f"flow {flow} is not submitted: {why}" in done.stderr
