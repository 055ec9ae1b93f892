"""Run config that Python code sets may be anything: it is taken or refused, and stops nothing else."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from reconciler.desired.schemas import load_schema
from reconciler.model.actions import ActionType
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Kind
from reconciler.model.records import JobRecord
from reconciler.model.run_config import HIGHEST_PRIORITY, LOWEST_PRIORITY, RunConfig, as_priority
from reconciler.model.settings import Level, Origin, Setting
from reconciler.plan import flow_plan, planner
from reconciler.plan.checks import worker_defaults
from reconciler.plan.configs import FlowConfigs
from reconciler.plan.cost import plan_cost
from reconciler.plan.explain import decisions
from reconciler.plan.interpreter import carried_out
from reconciler.plan.planner import make_plan
from tests.plan.plan_support import before, built, desired, flow, shown, worker

SCHEDULERS = ("shell", "slurm", "pbs", "sge")

TAKEN: list[dict[str, Any]] = [
    {"priority": 5.0}, {"priority": "5"}, {"priority": " -3 "}, {"priority": LOWEST_PRIORITY},
    {"priority": HIGHEST_PRIORITY}, {"exec_config": {}}, {"exec_config": "ec1"}, {"retries": {"limit": 0}},
    {"exec_config": {"pre_run": "echo", "export": {"A": "1"}, "modules": ["m"]}},
]  # fmt: skip

REFUSED: list[dict[str, Any]] = [
    {"priority": 2**70}, {"priority": HIGHEST_PRIORITY + 1}, {"priority": LOWEST_PRIORITY - 1},
    {"priority": True}, {"priority": "high"}, {"priority": 5.5}, {"priority": math.nan},
    {"priority": math.inf}, {"priority": []}, {"priority": {}}, {"priority": b"5"}, {"priority": "9" * 40},
    {"worker": 5}, {"worker": 5.5}, {"worker": ""}, {"worker": ["w1"]}, {"worker": {}}, {"worker": "w9"},
    {"worker": 2**70}, {"worker": True},
    {"exec_config": 5}, {"exec_config": ["ec1"]}, {"exec_config": "nosuch"}, {"exec_config": 1.5},
    {"exec_config": {"pre_runs": "x"}}, {"exec_config": {"modules": "vasp"}},
    {"exec_config": {"export": {"A": 1}}}, {"exec_config": {"export": ["A"]}},
    {"exec_config": {"pre_run": None}},
    {"resources": "x"}, {"resources": 3}, {"resources": ["nodes"]}, {"resources": 1.5},
    {"resources": {"nodez": 1}}, {"resources": {"job_name": "mine"}}, {"resources": {"nodes": [1]}},
    {"qresources": "x"}, {"qresources": {"process": 4}}, {"qresources": {"processes": "four"}},
    {"qresources": {"processes": 4, "process_placement": 3}},
    {"qresources": {"processes": 4, "process_placement": ["x"]}},
    {"qresources": {"processes": 4, "scheduler_kwargs": "x"}},
    {"qresources": {"processes": 4, "scheduler_kwargs": {"nosuch": []}}},
    {"qresources": {"processes": -1}}, {"qresources": {"processes": 4, "time_limit": "1h"}},
    {"retries": 3}, {"retries": "x"}, {"retries": []}, {"retries": {}}, {"retries": {"limit": "2"}},
    {"retries": {"limit": 2**70}}, {"retries": {"limit": -1}}, {"retries": {"limit": 1, "on": ["flu"]}},
    {"retries": {"limit": 1, "backoff": 5}}, {"retries": {"limit": 1, "escalate": {"resources": 5}}},
]  # fmt: skip

ODD: list[dict[str, Any]] = [
    {"resources": {"nodes": None}}, {"resources": {"nodes": {}}}, {"resources": {"nodes": 2**62}},
    {"resources": {"nodes": math.nan}}, {"resources": {"nodes": -1}}, {"resources": {"time": ""}},
    {"resources": {"mem": "x" * 5000}}, {"resources": {"": 1}}, {"resources": {"nodes": True}},
    {"resources": {"ntasks": "4", "time": 10**15}}, {"resources": {"select": "a:b=c"}},
    {"resources": {"walltime": "::"}}, {"resources": {"gres": ":::"}}, {"resources": {"model": "mpi x"}},
    {"qresources": {}}, {"qresources": {"processes": 4}}, {"qresources": {"nodes": None}},
    {"qresources": {"nodes": 1e308, "processes_per_node": 1e308}}, {"qresources": {"processes": 2**62}},
    {"qresources": {"processes": 4, "time_limit": -5}},
    {"qresources": {"processes": 4, "memory_per_thread": {}}},
    {"qresources": {"processes": 4, "scheduler_kwargs": None}},
    {"qresources": {"processes": 4, "scheduler_kwargs": {"model": 3}}},
    {"qresources": {"processes": 4, "email_address": "a\nb"}},
]  # fmt: skip


def planned(own: dict[str, Any], scheduler: str) -> tuple[DesiredState, ActualState]:
    """Return a revision with a flow whose first job has odd values from Python, and one without."""
    odd, other = flow("odd"), flow("other")
    form = built(odd)
    jobs = [msgspec.structs.replace(form.jobs[0], own=own), *form.jobs[1:]]
    spec = worker(scheduler_type=scheduler)
    state = desired(odd, other, workers={"w1": spec, "w2": spec})
    return state, before((odd, msgspec.structs.replace(form, jobs=jobs)), (other, built(other)))


def name(own: dict[str, Any]) -> str:
    return str(own)[:60]


@pytest.mark.parametrize("own", [*TAKEN, *REFUSED, *ODD], ids=name)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_no_value_stops_anything_else(own: dict[str, Any], scheduler: str) -> None:
    state, actual = planned(own, scheduler)
    plan = make_plan(state, actual)
    lines = shown(plan)
    assert [line for line in lines if "other" in line] == [
        "Submit other", "Submit other/a", "Submit other/b"
    ]  # fmt: skip
    refused = "Keep odd" in lines
    errors = [found for found in plan.diagnostics if found.is_error]
    assert refused == bool(errors) and not [found for found in errors if found.code == "plan/bug"]
    assert all(len(found.message) < 6000 for found in errors)
    plan_cost(plan, state, actual.jobs, state.workers)
    after = carried_out(plan, actual)
    configs = FlowConfigs(state, state.flows["odd"], worker_defaults(state))
    for record in after.jobs.get("odd", []):  # what is submitted can be stored, and read again
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=JobRecord)
        assert stored.config.priority_value == record.config.priority_value
        decisions(configs, stored, {})
        assert make_plan(state, after).effective == ()


@pytest.mark.parametrize("own", REFUSED, ids=name)
def test_what_is_impossible_is_refused_with_a_reason(own: dict[str, Any]) -> None:
    state, actual = planned(own, "slurm")
    plan = make_plan(state, actual)
    assert plan.actions[0].type is ActionType.KEEP
    errors = [found for found in plan.diagnostics if found.is_error]
    assert errors and all(found.location is not None and found.message for found in errors)


@pytest.mark.parametrize("own", TAKEN, ids=name)
def test_what_has_a_meaning_is_taken(own: dict[str, Any]) -> None:
    state, actual = planned(own, "slurm")
    submitted = next(action for action in make_plan(state, actual).actions if action.key == "odd/a")
    assert submitted.wanted is not None
    for field, value in own.items():
        expected = as_priority(value) if field == "priority" else value
        assert submitted.wanted.config.value(field) == expected


class TestOldRecords:
    """Values that an earlier version stored must not stop a plan."""

    @pytest.mark.parametrize("value", ["5", 2**62, -(2**62), "high", {}])
    def test_a_priority(self, value: Any) -> None:
        origin = Origin(Level.JOB, "Flow", "f", "/spec/factory")
        config = RunConfig(worker=Setting("w1", origin), priority=Setting(value, origin))
        assert LOWEST_PRIORITY <= config.priority_value <= HIGHEST_PRIORITY

    def test_resources_that_are_none(self) -> None:
        origin = Origin(Level.JOB, "Flow", "f", "/spec/factory")
        assert RunConfig(resources=Setting("x", origin)).resources_value is None


class TestBugs:
    """An exception while one flow is planned ends the turn of that flow, never the pass."""

    @pytest.mark.parametrize("error", [KeyError("x"), RecursionError("deep"), ZeroDivisionError()])
    def test_one_flow(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        real = flow_plan.FlowPlanner.actions

        def actions(self: flow_plan.FlowPlanner) -> Any:
            if self.flow.name == "g":
                raise error
            return real(self)

        monkeypatch.setattr(flow_plan.FlowPlanner, "actions", actions)
        one, two, three = flow(), flow("g"), flow("h")
        plan = make_plan(
            desired(one, two, three), before((one, built(one)), (two, built(two)), (three, built(three)))
        )
        assert shown(plan) == [
            "Submit f", "Submit f/a", "Submit f/b", "Keep g", "Submit h", "Submit h/a", "Submit h/b"
        ]  # fmt: skip
        (bug,) = plan.diagnostics
        assert bug.code == "plan/bug" and bug.is_error
        assert type(error).__name__ in bug.message and "flow 'g'" in bug.message
        assert "test_odd_values.py:" in bug.message and "report it" in (bug.hint or "")

    @pytest.mark.parametrize("check", ["check_desired", "unmatched_rules"])
    def test_checks_of_the_whole_revision(self, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
        def fail(*args: Any) -> Any:
            raise ValueError("boom")

        monkeypatch.setattr(planner, check, fail)
        one = flow()
        plan = make_plan(desired(one), before((one, built(one))))
        assert shown(plan) == ["Submit f", "Submit f/a", "Submit f/b"]
        assert [found.code for found in plan.diagnostics] == ["plan/bug"]


@pytest.mark.parametrize("kind", [Kind.FLOW, Kind.PROJECT, Kind.OVERRIDE_RULE])
def test_schemas_bound_a_priority_as_the_code_does(kind: Kind) -> None:
    priority = load_schema(kind)["$defs"]["priority"]
    assert (priority["minimum"], priority["maximum"]) == (LOWEST_PRIORITY, HIGHEST_PRIORITY)
