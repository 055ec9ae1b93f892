"""Retries in plans: presence decides, patches, and what escalation may ask for, told with its place."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.diagnostics import Diagnostic, Severity
from reconciler.model.actions import ActionType
from reconciler.model.manifests import Kind
from reconciler.model.records import FlowRecord, RetryStatus
from reconciler.model.run_config import RunConfig, layer_of
from reconciler.model.settings import Level, Origin
from reconciler.model.states import JobState
from reconciler.plan.checks import check_config, check_desired
from reconciler.plan.configs import FlowConfigs
from reconciler.plan.planner import make_plan
from reconciler.plan.retries import next_retry
from tests.plan.plan_support import (
    applied,
    before,
    built,
    built_job,
    desired,
    flow,
    record,
    rule,
    with_jobs,
    worker,
)
from tests.support import Reconcile, Repository

SLURM = worker(scheduler_type="slurm")
MORE_TIME = {"limit": 1, "escalate": {"resources": {"time": "*2"}}}


# who wins ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["project", "flow", "job", "rule"])
@pytest.mark.parametrize("value", [{"limit": 3}, {"limit": 0}])
def test_each_level_may_give_retries_and_zero_is_a_value(level: str, value: dict[str, Any]) -> None:
    below: dict[str, Any] = {"retries": {"limit": 9}}
    defaults = {"worker": "w1"} | ({"retries": value} if level == "project" else below)
    own = {"a": {"retries": value}} if level == "job" else {}
    of_flow = {"retries": value} if level == "flow" else {}
    one = flow(values=of_flow, own=own)
    state = desired(one, defaults=defaults, rules=[rule("r", {"retries": value})] if level == "rule" else [])
    config = FlowConfigs(state, one, {}).of_preview(one.preview[0])
    assert config.value("retries") == value
    assert config.retries is not None
    assert config.retries.origin.level == level
    assert config.policy is not None and config.policy.limit == value["limit"]


def test_an_edit_patches_what_it_reaches_and_is_deferred_on_its_way() -> None:
    one = flow(values={"retries": {"limit": 1}})
    state = desired(one)
    actual = applied(make_plan(state, before((one, built(one)))), before((one, built(one))))
    actual = with_jobs(actual, "f", b={"state": JobState.RUNNING})
    new = flow(values={"retries": {"limit": 2}})
    plan = make_plan(desired(new), actual)
    jobs = {a.key: (a.type, [(c.field, c.old, c.new) for c in a.changes]) for a in plan.actions if a.record}
    change = [("retries", {"limit": 1}, {"limit": 2})]
    assert jobs == {"f/a": (ActionType.PATCH, change), "f/b": (ActionType.DEFER, change)}


def test_a_removed_flow_takes_jobs_with_it_that_wait_for_a_retry() -> None:
    one = flow()
    actual = applied(make_plan(desired(one), before((one, built(one)))), before((one, built(one))))
    waiting = {"state": JobState.FAILED, "retry": RetryStatus(at=9.0, causes=["oom"])}
    actual = with_jobs(actual, "f", a=waiting, b={"state": JobState.FAILED})
    plan = make_plan(desired(), actual, allow_prune=True)
    assert [a.key for a in plan.actions if a.type is ActionType.CANCEL] == ["f", "f/a"]


def test_no_retry_without_a_flow() -> None:
    origin = Origin(Level.FLOW, Kind.FLOW, "f", "")
    config = RunConfig(**layer_of({"retries": {"limit": 1}}, origin, "/spec"))
    job = record(built_job("a", "a"), config=config)
    gone = FlowRecord(name="f", identity="", build_key="", removed=True)
    orphan = FlowRecord(name="f", identity="", build_key="", removed=True, orphaned=True)
    assert next_retry(job, None, "oom", 0.0) is None
    assert next_retry(job, gone, "oom", 0.0) is None
    found = next_retry(job, orphan, "oom", 5.0)
    assert found is not None
    assert (found.at, found.number, found.limit) == (15.0, 1, 1)


# what may be escalated --------------------------------------------------------------------------------


def complaints(
    retries: Any,
    resources: dict[str, Any] | None = None,
    *,
    scheduler: str = "slurm",
    form: str = "resources",
) -> list[Diagnostic]:
    one = flow(values={"retries": retries} | ({form: resources} if resources is not None else {}))
    state = desired(one, workers={"w1": worker(scheduler_type=scheduler)})
    config = FlowConfigs(state, one, {}).of_preview(one.preview[0])
    return [*check_config(state, one, config), *check_desired(state)]


def escalate(form: str, **factors: str) -> dict[str, Any]:
    return {"limit": 1, "escalate": {form: factors}}


@pytest.mark.parametrize(
    ("retries", "resources", "scheduler", "form"),
    [
        ({"limit": 0}, {}, "slurm", "resources"),
        (escalate("resources", time="*2", mem="*1.5"), {"time": "1:00:00"}, "slurm", "resources"),
        (escalate("resources", walltime="*2"), {"walltime": "1:00:00"}, "pbs", "resources"),
        (escalate("resources", time="*2"), {}, "shell", "resources"),
        (escalate("qresources", time_limit="*2"), {"processes": 1, "time_limit": 60}, "sge", "qresources"),
        # Of two forms that of the resources counts: so one policy may serve jobs of both.
        (escalate("resources", walltime="*2"), {"processes": 1, "time_limit": 60}, "slurm", "qresources"),
    ],
)
def test_what_fits(retries: Any, resources: dict[str, Any], scheduler: str, form: str) -> None:
    assert complaints(retries, resources, scheduler=scheduler, form=form) == []


def test_a_keyword_of_another_scheduler() -> None:
    (found,) = complaints(escalate("resources", walltime="*2"), {"time": "1:00:00"})
    assert found.code == "retries/unknown-keyword"
    assert found.message == "'walltime' cannot be escalated: it is not a Slurm keyword"
    assert found.related[0].label == "worker 'w1' is chosen here"


@pytest.mark.parametrize("form", ["resources", "qresources"])
def test_a_keyword_that_nobody_knows_is_told_without_any_job(form: str) -> None:
    found = complaints(escalate(form, tiem_limit="*2"))
    assert [one.code for one in found] == ["retries/unknown-keyword"]


def test_a_field_that_this_scheduler_does_not_have() -> None:
    retries = escalate("qresources", gpus_per_job="*2")
    (found,) = complaints(retries, {"processes": 1}, scheduler="pbs", form="qresources")
    assert "it is not a field of qresources for PBS" in found.message


def test_what_cannot_be_multiplied() -> None:
    retries = escalate("resources", select="*2", walltime="*2")
    (found,) = complaints(retries, {"select": "1:ncpus=4", "walltime": "1:00:00"}, scheduler="pbs")
    assert found.code == "retries/no-amount"
    assert "'1:ncpus=4' cannot be multiplied" in found.message


@pytest.mark.parametrize(
    ("resources", "scheduler", "message"),
    [
        ({"time": "0:10:00"}, "slurm", None),
        ({"walltime": "0:10:00"}, "pbs", None),
        ({"time": "0:05:00"}, "slurm", "the time limit of the job is 300 s"),
        ({"time": "0:00:30"}, "slurm", "the time limit of the job is 30 s"),
        ({"ntasks": 4}, "slurm", "the time limit of the job is not in the resources"),
        (None, "shell", "the time limit of the job is not in the resources"),
    ],
)
def test_a_signal_needs_a_time_limit_that_is_longer(
    resources: dict[str, Any] | None, scheduler: str, message: str | None
) -> None:
    retries = {"limit": 1, "continue": {"signal": "TERM@300"}}
    found = complaints(retries, resources, scheduler=scheduler)
    assert [(one.code, one.severity) for one in found] == (
        [("retries/no-signal", Severity.WARNING)] if message else []
    )
    assert all(message is not None and message in one.message for one in found)


@pytest.mark.parametrize("scheduler", ["slurm", "shell"])
@pytest.mark.parametrize(
    ("given", "message"), [({"limit": 1, "backoff": "soon"}, "'soon' is not a duration"), (3, "got `int`")]
)
def test_what_python_code_gives_is_checked_as_well(scheduler: str, given: Any, message: str) -> None:
    one = flow(jobs=["a"])
    state = desired(one, workers={"w1": worker(scheduler_type=scheduler)})
    job = built_job("a", "a", own={"retries": given})
    _, config = FlowConfigs(state, one, {}).of_built(job)
    (found,) = check_config(state, one, config)
    assert found.code == "retries/invalid"
    assert message in found.message


def test_every_problem_has_its_place(repository: Repository, reconcile: Reconcile) -> None:
    repository.write_yaml(
        "reconciler.yaml",
        """
        apiVersion: reconciler/v1
        kind: Project
        metadata: {name: p}
        spec: {defaults: {worker: hpc}}
        ---
        apiVersion: reconciler/v1
        kind: Worker
        metadata: {name: hpc}
        spec: {type: local, scheduler_type: slurm, work_dir: /w}
        """,
    )
    repository.write_yaml(
        "flows/f.yaml",
        """
        apiVersion: reconciler/v1
        kind: Flow
        metadata: {name: f}
        spec:
          resources:
            time: 1:00:00
            gres: gpu:a100:2
          jobs: [{id: j, function: reconciler.examples.value, args: [1]}]
        """,
    )
    repository.write_yaml(
        "rules/r.yaml",
        """
        apiVersion: reconciler/v1
        kind: OverrideRule
        metadata: {name: r}
        spec:
          set:
            retries:
              limit: 1
              escalate:
                resources: {tiem: "*2", gres: "*2"}
        """,
    )
    repository.commit()
    text = reconcile("plan").stderr + reconcile("plan").stdout
    assert "'tiem' cannot be escalated: it is not a Slurm keyword\n  --> rules/r.yaml:9:21\n" in text
    assert "did you mean 'time'?" in text
    assert "'gres' cannot be escalated: 'gpu:a100:2' cannot be multiplied" in text
    assert "  --> rules/r.yaml:9:33\n" in text
    assert "note: 'gres' is set here: flows/f.yaml:7:11" in text
    file = repository.path / "rules/r.yaml"
    file.write_text(file.read_text().replace('{tiem: "*2", gres: "*2"}', "{time: *2}"))
    repository.commit()
    assert 'write text that begins with * in quotes: time: "*2"' in reconcile("validate").stderr
    file.write_text(file.read_text().replace("*2", "twice"))
    repository.commit()
    assert "a factor is a '*' and a number, in quotes: '*2' or '*1.5'" in reconcile("validate").stderr
