"""``stop_children`` stops the jobs of its own flow only."""

from __future__ import annotations

import pytest

from reconciler.jobs.flow_health import health_of
from reconciler.model.states import Health
from tests.jobs.bench import Bench, new_job


@pytest.fixture
def flows(bench: Bench) -> Bench:
    """Flow ``f``: a -> b -> c; flow ``g``: x reads f/a, y reads f/b, z reads g/y."""
    bench.flow("f", {"a": [], "b": ["a"], "c": ["b"]})
    bench.flow("g", {"x": ["f/a"], "y": ["f/b"], "z": ["y"]})

    def refer(writer: object) -> None:
        for job, parent in (("f-c", "f-b"), ("g-y", "f-b"), ("g-z", "g-y")):
            reference = f'{{"@class": "OutputReference", "uuid": "{parent}"}}'
            writer.put_payload(f"{job}_1", f'{{"function_args": [{reference}]}}'.encode())  # type: ignore[attr-defined]

    bench.store.write(refer)
    return bench


def test_jobs_of_another_flow_are_not_stopped(flows: Bench) -> None:
    flows.start("f/a")
    flows.end("f/a", stop_children=True)
    assert flows.states("f/b", "f/c") == ["STOPPED", "STOPPED"]
    assert flows.states("g/x", "g/y", "g/z") == ["READY", "WAITING", "WAITING"]
    flows.run("g/x")
    with flows.store.read() as view:
        flow = view.flow("g")
        assert flow is not None
        status = health_of(view, flow, view.summary("g"))
    assert (status.health, status.fix) == (Health.DEGRADED, "`reconcile rerun f/b`")
    flows.operate("rerun", "f/b")
    flows.run("f/b", "g/y", "g/z")


def test_jobs_of_another_flow_that_tolerate_missing_inputs_run(flows: Bench) -> None:
    flows.edit("g/y", on_missing="none")
    flows.start("f/a")
    flows.end("f/a", stop_children=True)
    assert flows.states("g/x", "g/y", "g/z") == ["READY", "READY", "WAITING"]


def test_generated_children_are_stopped_and_other_flows_are_not(flows: Bench) -> None:
    flows.start("f/a")
    flows.end("f/a", detour=[new_job("one", name="one"), new_job("two", name="two", parents=["one"])])
    flows.start("f/one")
    flows.end("f/one", stop_children=True)
    assert flows.states("f/two", "f/b", "g/x", "g/y") == ["STOPPED", "READY", "READY", "WAITING"]
