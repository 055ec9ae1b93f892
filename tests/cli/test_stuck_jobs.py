"""Jobs that can never start, and why others died: what lists and descriptions say of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from reconciler.model.records import JobAttempt
from reconciler.model.states import JobState
from tests.execution.support import World

NEVER = "its time limit is longer than its partition allows: ask for less `time` (PartitionTimeLimit)"
DIED = "Slurm: TIMEOUT: it ended without a result, exit code 143 (signal 15)"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two jobs that wait in a queue for ever, one that runs, one that was killed, by their records."""
    world = World(tmp_path / "world", defaults="worker: w1")
    jobs = [{"id": name, "function": "give", "args": [name]} for name in ("long", "longer", "runs", "killed")]
    world.flow("f", *jobs)
    world.flow("g", {"id": "runs", "function": "give", "args": [1]})
    world.reconcile()
    attempt = JobAttempt(number=1, worker="w1", run_dir="/w/1")

    def queued(queue_id: str, stuck: str | None = None) -> JobAttempt:
        return msgspec.structs.replace(attempt, queue_id=queue_id, stuck=stuck)

    world.edit("f/long", state=JobState.SUBMITTED, attempt=queued("17", NEVER))
    world.edit("f/longer", state=JobState.SUBMITTED, attempt=queued("18", NEVER))
    world.edit("f/runs", state=JobState.RUNNING, attempt=queued("19"))
    world.edit("f/killed", state=JobState.COMPLETED)
    world.edit(
        "g/runs", state=JobState.FAILED, error=f"last words\n{DIED}", cause="walltime", attempt=attempt
    )
    yield world
    world.close()


@pytest.fixture
def reconcile(world: World, program_on: Callable[[World], Callable[..., str]]) -> Callable[..., str]:
    return program_on(world)


def test_get_jobs(reconcile: Callable[..., str]) -> None:
    lines = {line.split()[0]: line for line in reconcile("get", "jobs").splitlines()}
    assert lines["f/long"].endswith(f"stuck: {NEVER}")
    assert lines["f/runs"].split()[-1] == "-"
    assert lines["g/runs"].endswith(DIED)


def test_get_jobs_wide_has_the_cause_and_the_queue_id(reconcile: Callable[..., str]) -> None:
    header, *_, last = reconcile("get", "jobs", "-o", "wide").splitlines()
    assert "CAUSE" in header
    assert last[header.index("CAUSE") :].split()[0] == "walltime"
    assert "QUEUE ID" in header


def test_json_has_both_as_they_are(reconcile: Callable[..., str]) -> None:
    jobs = {job["key"]: job for job in json.loads(reconcile("get", "jobs", "-o", "json"))}
    assert (jobs["f/long"]["stuck"], jobs["f/long"]["cause"], jobs["f/long"]["error"]) == (NEVER, None, None)
    assert (jobs["g/runs"]["stuck"], jobs["g/runs"]["cause"]) == (None, "walltime")
    assert jobs["g/runs"]["error"] == f"last words\n{DIED}"


def test_describe_job(reconcile: Callable[..., str]) -> None:
    stuck, dead = reconcile("describe", "job", "f/long"), reconcile("describe", "job", "g/runs")
    assert f"stuck:        {NEVER}\n" in stuck
    assert "cause:" not in stuck
    assert "cause:        walltime\n" in dead
    assert f"error:\n  last words\n  {DIED}\n" in dead
    assert "stuck:" not in dead


def test_get_and_describe_flow(reconcile: Callable[..., str]) -> None:
    flows = {flow["name"]: flow for flow in json.loads(reconcile("get", "flows", "-o", "json"))}
    assert (flows["f"]["health"], flows["f"]["reason"]) == (
        "Degraded",
        f"long is stuck: {NEVER} (and 1 more)",
    )
    assert flows["g"]["reason"] == f"runs FAILED: {DIED}"
    text = reconcile("describe", "flow", "f")
    assert f"reason:    long is stuck: {NEVER} (and 1 more)\n" in text
    (line,) = [line for line in text.splitlines() if line.startswith("  longer ")]
    assert line.endswith(f"  stuck: {NEVER}")
