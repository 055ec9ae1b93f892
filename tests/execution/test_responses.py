"""What jobs ask for at run time gives what jobflow itself gives; where we differ, it says so.

All flows run in one reconcile; ``jobflow.run_locally`` of the same flow is the oracle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import response_flows
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyEncoder

from reconciler.actual.jobstore import LMDBStore
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState
from tests.execution.support import World
from tests.support import isolated_module

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too

LIKE_JOBFLOW = (*response_flows.SIMPLE, "summed", "stored_apart", "updated", "missing_none", "missing_pass")


def flow_name(kind: str) -> str:
    return kind.replace("_", "-")


def make(kind: str) -> Flow:
    if kind in response_flows.SIMPLE:
        return response_flows.simple(kind)
    function, _, argument = kind.partition("missing_")
    made: Flow = response_flows.missing(argument) if argument else getattr(response_flows, function)()
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[World]:
    """Everything, run once."""
    root = tmp_path_factory.mktemp("responses")
    with isolated_module(root, tmp_path_factory, warm_python):
        world = World(root)
        for kind in response_flows.SIMPLE:
            world.factory(flow_name(kind), "response_flows.simple", kind)
        for mode in ("none", "pass"):
            world.factory(f"missing-{mode}", "response_flows.missing", mode)
        for kind in ("summed", "stored_apart", "updated"):
            world.factory(flow_name(kind), f"response_flows.{kind}")
        world.reconcile()
        world.run(500)
        yield world
        world.close()


@pytest.fixture(scope="module")
def job_store(world: World) -> JobStore:
    """The outputs, as a notebook opens them."""
    store = JobStore(
        LMDBStore(world.store.path), additional_stores={"data": LMDBStore(world.store.path, "data")}
    )
    store.connect()
    return store


def jobs_of(world: World, flow: str) -> list[JobRecord]:
    found: list[JobRecord] = world.view(lambda view: view.jobs_of(flow))
    return found


def by_name(store: JobStore, uuids: set[str]) -> list[str]:
    """Return name, index, metadata and output of the last document of each job, in a fixed order."""
    found = []
    for uuid in uuids:
        document = store.query_one({"uuid": uuid}, sort={"index": -1})
        output = store.get_output(uuid, load=True)
        facts = [document["name"], document["index"], document["metadata"], output]
        found.append(json.dumps(facts, cls=MontyEncoder, sort_keys=True))
    return sorted(found)


@pytest.mark.parametrize("kind", LIKE_JOBFLOW)
def test_outputs_are_those_of_jobflow(kind: str, world: World, job_store: JobStore, tmp_path: Path) -> None:
    oracle = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    ran = run_locally(make(kind), store=oracle, log=False, root_dir=tmp_path / "oracle")
    done = {job.uuid for job in jobs_of(world, flow_name(kind)) if job.state is JobState.COMPLETED}
    assert by_name(job_store, done) == by_name(oracle, set(ran))


@pytest.mark.parametrize("kind", [kind for kind in LIKE_JOBFLOW if not kind.startswith(("missing", "stops"))])
def test_every_job_completes(kind: str, world: World) -> None:
    assert {job.state for job in jobs_of(world, flow_name(kind))} == {JobState.COMPLETED}


def test_names_are_unique_in_a_flow(world: World) -> None:
    paths = [job.path for job in world.view(lambda view: list(view.jobs()))]
    assert len(paths) == len(set(paths))


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
