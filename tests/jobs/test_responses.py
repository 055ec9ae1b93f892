"""What jobs ask for at run time gives what jobflow itself gives; where we differ, it says so.

All flows run in one reconcile; ``jobflow.run_locally`` of the same flow is the oracle. It runs one job after
the other, all that a job asks for before the jobs that need it. So it cannot tell the cases in which this
differs from jobflow-remote on purpose, which have tests of their own:

- C12 who waits for a detour waits on if that fails, while ``run_locally`` goes on
- C13 an addition waits for nothing, and nobody waits for it, unless an output refers to it
- C14 ``stop_children`` stops all descendants, where jobflow-remote lets them wait for ever; as with
  ``run_locally``, who only waits for a detour is no child of its jobs
- C15 ``stop_jobflow`` also stops what jobs that run at that time ask for later; ``run_locally`` has none
- C16 who needs a failed job waits, and runs after a ``retry``; ``run_locally`` has no later
- C17 holds also for who needs a job that waits for a failed one: there jobflow-remote waits for ever
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import config_flows
import pytest
import response_flows
from click.testing import CliRunner
from jobflow import Flow

from reconciler.cli.main import cli
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState
from tests.execution.support import World, lines
from tests.jobs.oracle import facts_of, ran_by_jobflow
from tests.support import isolated_module

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too

Call = tuple[str, list[str]]
"""The function that makes a flow, and its arguments."""

LIKE_JOBFLOW: dict[str, Call] = (
    {kind: ("response_flows.simple", [kind]) for kind in response_flows.SIMPLE}
    | {kind: (f"response_flows.{kind}", []) for kind in response_flows.WHOLE}
    | {f"missing_{mode}": ("response_flows.missing", [mode]) for mode in ("none", "pass", "error")}
    | {kind: (f"config_flows.{kind}", []) for kind in config_flows.FLOWS}
)

NOT_ALL_COMPLETE = (
    "reads_what",
    "comes_after",
    "stops",
    "missing",
    "replaces_and_stops",
    "detours_and_stops",
    "schema_",
    "configs_updated",
)
"""Beginnings of the kinds in which a job fails or is stopped."""


def flow_name(kind: str) -> str:
    return kind.replace("_", "-")


def make(kind: str) -> Flow:
    function, arguments = LIKE_JOBFLOW[kind]
    module, name = function.split(".")
    made: Flow = getattr({"response_flows": response_flows, "config_flows": config_flows}[module], name)(
        *arguments
    )
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[World]:
    """Everything, run once."""
    root = tmp_path_factory.mktemp("responses")
    with isolated_module(root, tmp_path_factory, warm_python):
        world = World(root)
        world.repository.write("workers/workers.yaml", world.worker("w1", max_jobs=8))
        for kind, (function, arguments) in LIKE_JOBFLOW.items():
            world.factory(flow_name(kind), function, *arguments)
        world.factory("rest", "response_flows.waits_for_the_rest_of_a_detour", str(root / "rest"))
        world.reconcile()
        world.run(500)
        yield world
        world.close()


def jobs_of(world: World, flow: str) -> list[JobRecord]:
    found: list[JobRecord] = world.view(lambda view: view.jobs_of(flow))
    return found


@pytest.mark.parametrize("kind", LIKE_JOBFLOW)
def test_outputs_are_those_of_jobflow(kind: str, world: World, tmp_path: Path) -> None:
    assert facts_of(world, flow_name(kind)) == ran_by_jobflow(make(kind), tmp_path / "oracle")


@pytest.mark.parametrize("kind", [kind for kind in LIKE_JOBFLOW if not kind.startswith(NOT_ALL_COMPLETE)])
def test_every_job_completes(kind: str, world: World) -> None:
    assert {job.state for job in jobs_of(world, flow_name(kind))} == {JobState.COMPLETED}


def test_names_are_unique_in_a_flow(world: World) -> None:
    paths = [job.path for job in world.view(lambda view: list(view.jobs()))]
    assert len(paths) == len(set(paths))


def test_who_waits_for_a_detour_waits_for_what_of_it_was_not_stopped(world: World) -> None:
    order = [" ".join(line.split()[:2]) for line in lines(world.root / "rest")]
    assert order == ["begin replacement", "end replacement", "child"]
    states = {job.key: job.state.value for job in jobs_of(world, "rest")}
    assert (states.pop("plus"), states.pop("plus#2")) == ("STOPPED", "STOPPED")
    assert set(states.values()) == {"COMPLETED"}


def test_stored_data_is_kept_and_shown(world: World) -> None:
    kept = {"numbers": [1, 1.5], "why": None}
    assert world.job("stores/stores").stored_data == kept
    place = ["--repo", str(world.repository.path), "--state-dir", str(world.root / "state")]
    told = CliRunner().invoke(cli, [*place, "-o", "json", "describe", "job", "stores/stores"])
    assert json.loads(told.stdout)["stored_data"] == kept
    assert "numbers" in CliRunner().invoke(cli, [*place, "describe", "job", "stores/stores"]).stdout


def test_generated_jobs_tell_where_they_came_from(world: World) -> None:
    parent = world.job("adds/adds")
    child = next(job for job in jobs_of(world, "adds") if job.generated_by)
    assert child.generated_by is not None and child.generated_by.uuid == parent.uuid
    assert "addition by adds/adds" in world.events(child.path)[0]


def test_updates_reach_generated_jobs(world: World) -> None:
    jobs = jobs_of(world, "updated")
    assert all(job.name.endswith(" (late)") for job in jobs if not job.name.startswith("store_inputs"))
    for job in jobs:
        payload: dict[str, Any] = json.loads(world.view(lambda view, job=job: view.payload(job.id)))
        assert payload["metadata"] == {"campaign": "x"}
        assert payload["config"]["expose_store"] is job.name.startswith("plus")
