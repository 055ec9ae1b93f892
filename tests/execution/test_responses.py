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
import sys
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
from tests.execution.oracle import facts_of, ran_by_jobflow
from tests.execution.support import World, lines
from tests.support import isolate

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
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root / "home")
        patch.setattr(sys, "executable", str(warm_python))
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp() / "matplotlib"))
        world = World(root)
        world.repository.write("workers/workers.yaml", world.worker("w1", max_jobs=8))
        for kind, (function, arguments) in LIKE_JOBFLOW.items():
            world.factory(flow_name(kind), function, *arguments)
        world.factory("broken-detour", "response_flows.broken_detour")
        world.factory("waits-for-detour", "response_flows.waits_for_detour", str(root / "log"))
        world.factory("rest", "response_flows.waits_for_the_rest_of_a_detour", str(root / "rest"))
        world.factory("stopped", "response_flows.stopped_while_others_run", str(root / "gate"))
        world.reconcile()
        world.until(lambda: world.state("stopped/stop") == "COMPLETED")
        world.until(lambda: world.state("stopped/late") == "RUNNING")
        (root / "gate").touch()
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


def test_c11_a_replaced_job_keeps_its_uuid_and_its_dependants_wait_for_the_last(world: World) -> None:
    generations = [job for job in jobs_of(world, "counts-down") if job.name == "counts_down"]
    assert [job.index for job in generations] == list(range(1, 12))
    assert [job.key for job in generations] == ["counts_down", *[f"counts_down@{n}" for n in range(2, 12)]]
    assert len({job.uuid for job in generations}) == 1
    assert world.output("counts-down/child") == ["done"]


def test_c12_and_c13_dependants_wait_for_the_detour_but_not_the_addition(world: World) -> None:
    order = [" ".join(line.split()[:2]) for line in lines(world.root / "log")]
    assert order.index("end detour") < order.index("child")
    jobs = {job.name: job for job in jobs_of(world, "waits-for-detour")}
    assert jobs["log_span"].uuid in jobs["log_line"].parents or len(jobs) == 3
    addition = next(job for job in jobs_of(world, "waits-for-detour") if job.generated_by and not job.parents)
    assert addition.state is JobState.COMPLETED
    generated = [job for job in jobs_of(world, "waits-for-detour") if job.generated_by]
    assert [job.parents for job in generated] == [[], []]


def test_c12_a_failed_detour_holds_the_dependants(world: World) -> None:
    states = {job.name: job.state.value for job in jobs_of(world, "broken-detour")}
    assert states == {"detours_into_failure": "COMPLETED", "fails": "FAILED", "show": "WAITING"}


def test_c14_who_waits_for_a_detour_waits_for_what_of_it_was_not_stopped(world: World) -> None:
    order = [" ".join(line.split()[:2]) for line in lines(world.root / "rest")]
    assert order == ["begin replacement", "end replacement", "child"]
    states = {job.key: job.state.value for job in jobs_of(world, "rest")}
    assert (states.pop("plus"), states.pop("plus#2")) == ("STOPPED", "STOPPED")
    assert set(states.values()) == {"COMPLETED"}


def test_c14_stop_children_stops_all_descendants(world: World) -> None:
    states = {job.name: job.state.value for job in jobs_of(world, "stops-children")}
    assert states == {"stops_children": "COMPLETED", "child": "STOPPED", "grandchild": "STOPPED"}


def test_c15_stop_jobflow_also_stops_what_is_generated_later(world: World) -> None:
    states = {job.name: job.state.value for job in jobs_of(world, "stopped")}
    assert states == {"late": "COMPLETED", "stop": "COMPLETED", "after": "STOPPED", "child": "STOPPED"}


def test_c16_the_child_of_a_failed_job_waits(world: World) -> None:
    assert {job.name: job.state.value for job in jobs_of(world, "missing-error")} == {
        "fails": "FAILED",
        "show_kinds": "WAITING",
    }


@pytest.mark.parametrize(("mode", "kinds"), [("none", ["NoneType"]), ("pass", ["OutputReference"])])
def test_c17_a_child_that_does_not_mind_runs(mode: str, kinds: list[str], world: World) -> None:
    assert world.output(f"missing-{mode}/show_kinds") == kinds


def test_c18_stored_data_is_kept(world: World) -> None:
    kept = {"numbers": [1, 1.5], "why": None}
    assert world.job("stores/stores").stored_data == kept
    place = ["--repo", str(world.repository.path), "--state-dir", str(world.root / "state")]
    told = CliRunner().invoke(cli, [*place, "-o", "json", "describe", "job", "stores/stores"])
    assert json.loads(told.stdout)["stored_data"] == kept
    assert "numbers" in CliRunner().invoke(cli, [*place, "describe", "job", "stores/stores"]).stdout


def test_generated_jobs_tell_where_they_came_from(world: World) -> None:
    parent = world.job("adds/adds")
    child = next(job for job in jobs_of(world, "adds") if job.generated_by)
    assert child.generated_by == parent.uuid
    assert "addition by adds/adds" in world.events(child.path)[0]


def test_updates_reach_generated_jobs(world: World) -> None:
    jobs = jobs_of(world, "updated")
    assert all(job.name.endswith(" (late)") for job in jobs if not job.name.startswith("store_inputs"))
    for job in jobs:
        payload: dict[str, Any] = json.loads(world.view(lambda view, job=job: view.payload(job.id)))
        assert payload["metadata"] == {"campaign": "x"}
        assert payload["config"]["expose_store"] is job.name.startswith("plus")
