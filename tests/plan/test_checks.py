"""What a run config may ask for: names, workers, and resources by scheduler."""

from __future__ import annotations

import time
from textwrap import dedent, indent
from typing import Any

import msgspec
import pytest

from reconciler.desired.yaml.reader import parse_file
from reconciler.diagnostics import Diagnostic
from reconciler.errors import InputError
from reconciler.execution.headers import submission_header
from reconciler.model.applied import ActualState
from reconciler.model.manifests import Manifest, WorkerSpec
from reconciler.model.reasons import ReasonCode
from reconciler.model.run_config import layer_of
from reconciler.model.settings import Level, Origin, Resources
from reconciler.plan.checks import check_config, check_desired, worker_defaults
from reconciler.plan.configs import FlowConfigs
from reconciler.plan.planner import make_plan
from reconciler.plan.resources import check_resources
from tests.plan.plan_support import applied, before, built, desired, flow, rule, worker

RULE = Origin(Level.RULE, "OverrideRule", "r", "")


def complaints(scheduler: str, values: dict[str, Any], *, generic: bool = False) -> list[Diagnostic]:
    """Return what is wrong with resources for a scheduler."""
    form = "qresources" if generic else "resources"
    layer = layer_of({form: values}, RULE, "/spec/set")
    return list(check_resources(desired(rules=[rule("r", {})]), scheduler, layer["resources"], None))


def codes(found: list[Diagnostic]) -> list[str]:
    return [diagnostic.code for diagnostic in found]


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("scheduler", ["shell", "slurm", "pbs", "sge"])
def test_empty_resources_are_always_fine(scheduler: str, generic: bool) -> None:
    assert complaints(scheduler, {}, generic=generic) == []


@pytest.mark.parametrize(
    ("scheduler", "values"),
    [
        ("slurm", {"nodes": 1, "ntasks": 4, "time": "1:00:00", "gpus_per_node": 2}),
        ("pbs", {"select": "2:ncpus=4", "walltime": "1:00:00", "queue": "q"}),
        ("sge", {"soft_walltime": "1:00:00", "device": "x"}),
        ("shell", {"qverbatim": "echo one\necho two"}),
    ],
)
def test_each_scheduler_takes_its_own_keywords(scheduler: str, values: dict[str, Any]) -> None:
    assert complaints(scheduler, values) == []


@pytest.mark.parametrize(
    ("scheduler", "key", "hint"),
    [
        ("slurm", "ntask", "did you mean 'ntasks'?"),
        ("slurm", "Partition", "did you mean 'partition'?"),
        ("pbs", "wall_time", "did you mean 'walltime'?"),
        ("sge", "softwalltime", "did you mean 'soft_walltime'?"),
    ],
)
def test_an_unknown_keyword_has_a_hint(scheduler: str, key: str, hint: str) -> None:
    (found,) = complaints(scheduler, {key: 1})
    assert (found.code, found.hint) == ("resources/unknown-keyword", hint)
    title = {"slurm": "Slurm", "pbs": "PBS", "sge": "Grid Engine"}[scheduler]
    assert found.message == f"'{key}' is not a {title} keyword"


def test_an_unlike_keyword_names_those_that_may_be_set() -> None:
    (found,) = complaints("slurm", {"xyzzy": 1})
    assert found.hint is not None and found.hint.startswith("known: account, ")
    assert "job_name" not in found.hint


@pytest.mark.parametrize(
    "values",
    [
        {"processes": 4},
        {"nodes": 2, "processes_per_node": 8},
        {"processes": 2, "process_placement": "SCATTERED"},
        {"nodes": 2, "processes_per_node": 8, "process_placement": "EVENLY_DISTRIBUTED"},
    ],
)
def test_generic_resources(values: dict[str, Any]) -> None:
    assert complaints("slurm", values, generic=True) == []


@pytest.mark.parametrize(
    ("scheduler", "values", "code"),
    [
        ("slurm", {"ntasks": 4, "processes": 1}, "resources/unknown-keyword"),
        ("slurm", {"nodes": 1}, "resources/placement"),
        ("slurm", {"nodes": 1, "processes": 4, "processes_per_node": 4}, "resources/placement"),
        ("pbs", {"processes": 1, "gpus_per_job": 1}, "resources/unsupported-field"),
        ("sge", {"processes": 1, "account": "a"}, "resources/unsupported-field"),
        ("slurm", {"processes": 1, "rerunnable": True}, "resources/unsupported-field"),
        ("slurm", {"processes": 1, "rerunnable": False}, "resources/unsupported-field"),
        ("slurm", {"processes": 0}, "resources/impossible-value"),
        ("pbs", {"processes": "4"}, "resources/impossible-value"),
        ("slurm", {"processes": 2, "process_placement": "Scattered"}, "resources/impossible-value"),
        ("slurm", {"process_placement": "SCATTERED"}, "resources/placement"),
        ("slurm", {"processes": 2, "process_placement": "EVENLY_DISTRIBUTED"}, "resources/placement"),
        ("sge", {"processes": 4}, "resources/parallel-environment"),
        ("sge", {"processes": "four"}, "resources/impossible-value"),
        ("slurm", {"processes": 1, "scheduler_kwargs": {"queue": "q"}}, "resources/unknown-keyword"),
        ("pbs", {"processes": 1, "scheduler_kwargs": {"array": "1-9"}}, "resources/reserved"),
        ("slurm", {"processes": 1, "njobs": 3}, "resources/reserved"),
        ("slurm", {"processes": 1, "scheduler_kwargs": {"account": "a\nb"}}, "resources/unsafe-value"),
    ],
)
def test_wrong_generic_resources(scheduler: str, values: dict[str, Any], code: str) -> None:
    assert codes(complaints(scheduler, values, generic=True)) == [code]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"account": "a\n#SBATCH --uid=0"}, "resources/unsafe-value"),
        ({"account": "a\x00"}, "resources/unsafe-value"),
        ({"account": "$$x"}, "resources/unsafe-value"),
        ({"job_name": "mine"}, "resources/reserved"),
        ({"qout_path": "out"}, "resources/reserved"),
        ({"array": "1-10"}, "resources/reserved"),
    ],
)
def test_values_that_never_reach_a_script(values: dict[str, Any], code: str) -> None:
    assert codes(complaints("slurm", values)) == [code]


class TestShellWorkers:
    def test_words_of_a_scheduler_are_a_conflict(self) -> None:
        (found,) = complaints("shell", {"nodes": 1, "walltime": "1:00"})
        assert found.code == "resources/shell-worker"
        assert "cannot give nodes, walltime" in found.message
        assert found.hint is not None and "resources: {}" in found.hint

    def test_other_words_are_mistakes(self) -> None:
        assert codes(complaints("shell", {"ntask": 1})) == ["resources/unknown-keyword"]
        assert codes(complaints("shell", {"nodes": 1, "ntask": 1})) == [
            "resources/unknown-keyword",
            "resources/shell-worker",
        ]
        assert codes(complaints("shell", {"job_name": "x"})) == ["resources/reserved"]

    def test_generic_resources_are_a_conflict_too(self) -> None:
        assert codes(complaints("shell", {"processes": 1}, generic=True)) == ["resources/shell-worker"]


class TestRevision:
    """What is wrong wherever it is used, or if it is never used."""

    def test_every_name_of_every_level(self) -> None:
        state = desired(
            flow(values={"worker": "w11"}, own={"a": {"exec_config": "ec3"}}),
            defaults={"worker": "w12"},
            rules=[rule("r", {"worker": "w13", "exec_config": "ec4"})],
        )
        assert sorted(codes(check_desired(state))) == [
            *["reference/unknown-exec-config"] * 2,
            *["reference/unknown-worker"] * 3,
        ]

    def test_keywords_of_a_rule_for_jobs_to_come(self) -> None:
        state = desired(flow(), rules=[rule("r", {"resources": {"ntask": 1}}, name_filter="relax")])
        plan = make_plan(state, ActualState())
        assert codes(list(plan.diagnostics)) == ["resources/unknown-keyword", "rule/matches-nothing"]
        assert plan.actions[0].reason.code is ReasonCode.NEW_FLOW, "a rule that matches nothing holds nothing"

    def test_one_place_is_reported_once_with_the_best_words(self) -> None:
        workers = {"w1": worker(scheduler_type="slurm")}
        state = desired(flow(), rules=[rule("r", {"resources": {"ntask": 1}})], workers=workers)
        found = [one for one in make_plan(state, ActualState()).diagnostics if "keyword" in one.code]
        assert [one.message for one in found] == ["'ntask' is not a Slurm keyword"]

    def test_default_resources_of_a_worker(self) -> None:
        workers = {"w1": worker(resources={"nodes": 1}), "w2": worker(resources={})}
        assert codes(check_desired(desired(workers=workers))) == ["resources/shell-worker"]

    @pytest.mark.parametrize("scheduler", ["shell", "slurm", "pbs", "sge"])
    def test_workers_of_every_kind_are_run(self, scheduler: str) -> None:
        for spec in (
            worker(scheduler_type=scheduler),
            worker(type="remote", host="h", scheduler_type=scheduler),
        ):
            state = desired(flow(), workers={"w1": spec})
            assert check_desired(state) == []
            assert make_plan(state, ActualState()).effective


def written(fields: str, scheduler: str = "slurm", work_dir: str = "/data") -> list[Diagnostic]:
    """Return what is wrong with a worker whose spec has these fields besides the needed ones."""
    text = f"""\
apiVersion: reconciler/v1
kind: Worker
metadata: {{name: w1}}
spec:
  scheduler_type: {scheduler}
  work_dir: {work_dir}
{indent(dedent(fields), "  ")}"""
    read = parse_file(text.encode())
    assert read.diagnostics == []
    made = Manifest("workers/w1.yaml", read.documents[0])
    state = desired(flow(), workers={"w1": msgspec.convert(made.spec, WorkerSpec)})
    state.manifests["Worker/w1"] = made
    found = check_desired(state)
    assert bool(make_plan(state, ActualState()).effective) == (not found), "flows wait for a good worker"
    return found


@pytest.mark.parametrize("work_dir", ["/data/50%j", "/data/a\\b"])
def test_slurm_would_read_a_pattern_in_the_work_dir(work_dir: str) -> None:
    """Every job would die when it is launched."""
    (found,) = written("type: local\n", work_dir=work_dir)
    assert (found.code, found.location.line) == ("worker/work-dir", 6)
    assert not written("type: local\n", scheduler="sge", work_dir=work_dir)


class TestConnections:
    """Which connection fields a worker may have."""

    def test_a_local_worker_has_none(self) -> None:
        found = written("type: local\nhost: h\nlogin_shell: true\ntransfer: {host: dtn}\n")
        assert codes(found) == ["worker/local-connection"] * 3
        assert [(one.location.line, one.location.column) for one in found] == [(8, 3), (9, 3), (10, 3)]
        assert "'host' has no meaning here" in found[0].message

    def test_a_remote_worker_has_a_host(self) -> None:
        (found,) = written("type: remote\nuser: ada\n")
        assert found.code == "worker/no-host"
        assert found.location.line == 7

    def test_a_whole_connection(self) -> None:
        assert not written(
            """
            type: remote
            host: h
            key_filename: [~/.ssh/a, /b]
            passphrase: {env: P}
            gateway: {host: g, gateway: {host: f, password: {file: ~/p}}}
            transfer: {host: dtn, control_path: ~/.ssh/%r@%h}
            cleanup: {after: 7d}
            """
        )

    def test_a_master_connection_has_no_gateway_and_is_none(self) -> None:
        (both,) = written("type: remote\nhost: h\ncontrol_path: /s\ngateway: {host: g}\n")
        assert (both.code, both.location.line) == ("worker/control-path", 10)
        (nested,) = written(
            "type: remote\nhost: h\ngateway: {host: g, gateway: {host: f, control_path: /s}}\n"
        )
        assert nested.code == "worker/control-path"
        assert nested.message == "a gateway has no 'control_path'"


def test_an_inline_exec_config_needs_no_name() -> None:
    state = desired(flow(values={"exec_config": {"pre_run": "true"}}))
    config = FlowConfigs(state, state.flows["f"], {}).of_preview(state.flows["f"].preview[0])
    assert check_config(state, state.flows["f"], config) == []


def test_worker_defaults_have_both_forms() -> None:
    workers = {"w1": worker(resources={}), "w2": worker(qresources={"processes": 1}), "w3": worker()}
    found = worker_defaults(desired(workers=workers))
    assert {name: setting.origin.pointer for name, setting in found.items()} == {
        "w1": "/spec/resources",
        "w2": "/spec/qresources",
    }


def test_ten_thousand_jobs_are_planned_in_a_moment() -> None:
    """60 microseconds a job are the aim, about 20 are usual; the limit leaves room for a busy machine."""
    one = flow(jobs=[f"job-{number}" for number in range(10_000)])
    rules = [rule(f"r{n}", {"priority": n}, name_filter=f"job-{n}") for n in range(20)]
    state = desired(one, rules=rules)
    start = before((one, built(one)))
    actual = applied(make_plan(state, start), start)
    began = time.process_time()
    assert make_plan(state, actual).actions == ()
    assert time.process_time() - began < 3.0


@pytest.mark.parametrize(
    ("scheduler", "values", "says"),
    [
        ("sge", {"group_list": "physics"}, "an option of PBS"),
        ("sge", {"queue": "all.q extra"}, "with Grid Engine"),
        ("sge", {"model": "smp"}, "with Grid Engine"),
        ("slurm", {"requeue": "maybe"}, "'requeue' cannot be 'maybe'"),
        ("slurm", {"account": True}, "'account' cannot be true"),
        ("pbs", {"walltime": False}, "'walltime' cannot be false"),
    ],
)
def test_a_value_that_the_scheduler_does_not_take(scheduler: str, values: dict[str, Any], says: str) -> None:
    """The plan says what would fail when the script is written, 25 minutes later."""
    (found,) = complaints(scheduler, values)
    assert found.code == "resources/impossible-value"
    assert says in found.message
    with pytest.raises(InputError) as refused:
        submission_header(scheduler, Resources(values), "name")
    assert refused.value.message == found.message


@pytest.mark.parametrize(
    ("scheduler", "values"),
    [
        ("sge", {"model": "smp 4", "queue": "all.q", "rerunnable": True}),
        ("sge", {"qverbatim": "#$ -l 'a b'"}),
        ("slurm", {"requeue": True, "exclusive": True, "account": "two words"}),
        ("pbs", {"rerunnable": False, "account": "two words"}),
    ],
)
def test_values_that_are_taken(scheduler: str, values: dict[str, Any]) -> None:
    assert complaints(scheduler, values) == []
    assert submission_header(scheduler, Resources(values), "name").startswith("#!/bin/bash\n")
