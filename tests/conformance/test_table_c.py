"""Table C of the conformance list: jobs that are generated at run time. Tests have the numbers of its cases.

Setting: a generator with worker w1, exec_config ec1 and priority 5 at the flow level asks for a child. All
flows run once, as real processes on shell workers; while some jobs wait at a gate, others are looked at, and
rules are committed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.loop import Session
from reconciler.model.graph import EdgeKind, flow_graph
from reconciler.model.health import flow_status
from reconciler.model.records import JobRecord
from reconciler.model.states import Health, JobState
from tests.execution.support import World
from tests.support import Reconcile, isolated_module

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too

FLOW_LEVEL: dict[str, Any] = {"worker": "w1", "exec_config": "ec1", "priority": 5}
KINDS = ("detour", "addition", "replace")
RESPONDING = {"response_manager_config": {"priority": 6, "worker": "w2"}, "manager_config": {"priority": 3}}
Seen = tuple[str, Any, int]


class Table(World):
    """All cases; ``before`` has the jobs as they were while the gate was closed."""

    before: dict[str, JobRecord]

    def family(self, name: str, *args: Any) -> None:
        """Write a flow of one generator; see ``inherit_flows.family``."""
        self.factory(name, "inherit_flows.family", name, *(args or ("addition",)), **FLOW_LEVEL)

    def response(self, name: str, function: str, *args: Any) -> None:
        """Write a flow of ``response_flows``."""
        self.factory(name, f"response_flows.{function}", *args)

    def grown(self, name: str, tree: dict[str, Any]) -> None:
        """Write a flow of a job that asks for what a tree says, and of a child that needs its output."""
        log = str(self.root / "log")
        needs = [log, {"name": "child"}, {"$output": "generator"}]
        self.flow(
            name,
            {"id": "generator", "function": "growing_jobs.grow", "args": [log, tree]},
            {"id": "child", "function": "growing_jobs.grow", "args": needs},
        )

    def rule(
        self, name: str, name_filter: str, *, flows: list[str] | None = None, order: int = 100,
        dynamic: bool = True, **values: Any,
    ) -> None:  # fmt: skip
        """Write a rule for the jobs with a name in the flow of the same name."""
        spec = {"order": order, "flows": flows or [name], "name_filter": name_filter, "dynamic": dynamic}
        self.put("OverrideRule", name, spec | {"set": values})

    def seen(self, path: str) -> Seen:
        """Return worker, exec_config and priority of a job that has run."""
        job = self.job(path)
        assert job.state is JobState.COMPLETED, (path, job.error)
        return job.config.worker_name, job.config.value("exec_config"), job.config.priority_value

    def level(self, path: str, field: str) -> str:
        """Return which level a value of a job came from."""
        setting = self.job(path).config.setting(field)
        assert setting is not None
        return setting.origin.level.value

    def named(self, flow: str) -> dict[str, JobRecord]:
        """Return the jobs of a flow by name."""
        return {job.name: job for job in self.view(lambda view: view.jobs_of(flow))}

    def told(self, flow: str) -> dict[str, str]:
        """Return the states of the jobs of a flow by name."""
        return {name: str(job.state) for name, job in self.named(flow).items()}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[Table]:
    """All cases, run once."""
    root = tmp_path_factory.mktemp("table-c")
    with isolated_module(root, tmp_path_factory, warm_python):
        made = Table(root)
        _write(made, str(root / "gate"))
        made.reconcile()
        made.until(lambda: _all_wait_at_the_gate(made))
        made.rule("c6-later", "generator", flows=["c6"], worker="w2", priority=8)
        made.rule("c10-later", "child", flows=["c10"], priority=8)
        made.reconcile()
        made.before = made.jobs()
        (root / "gate").touch()
        made.run(500)
        yield made
        made.close()


def _all_wait_at_the_gate(table: Table) -> bool:
    jobs = table.jobs()
    at_gate = ("c6/generator", "c10/generator", "c13/detour", "c15/late")
    running = all(path in jobs and jobs[path].state is JobState.RUNNING for path in at_gate)
    return running and all(jobs[path].state is JobState.COMPLETED for path in ("c13/addition", "c15/stop"))


def _write(table: Table, gate: str) -> None:
    workers = [table.worker(name, max_jobs=6) for name in ("w1", "w2")]
    table.repository.write("workers/workers.yaml", "".join(workers))
    for name in ("ec1", "ec2"):
        table.put("ExecConfig", name, {"export": {"WHICH": name}})
    _write_run_configs(table, gate)
    _write_responses(table, gate)


def _write_run_configs(table: Table, gate: str) -> None:
    for kind in KINDS:
        table.family(f"c1-{kind}", kind)
    table.rule("c1-own", "generator", flows=["c1-*"], worker="w2", exec_config="ec2", priority=9)
    table.family("c2")
    table.rule("c2", "child", worker="w2", exec_config="ec2", priority=10)
    table.family("c3")
    table.rule("c3", "generator", worker="w1", priority=9)
    table.rule("c3-child", "child", flows=["c3"], order=200, worker="w2", priority=2)
    table.family("c4")
    table.rule("c4", "generator", worker="w2", exec_config={}, priority=0)
    table.family("c5")
    table.rule("c5", "generator", dynamic=False, priority=7)
    table.rule("c5-child", "child", flows=["c5"], dynamic=False, worker="w2")
    table.family("c6", "addition", 1, None, gate)
    table.family("c7", "addition", 1, {"pass_manager_config": False, "manager_config": {"priority": 3}})
    table.family("c7-passes", "addition", 1, {"manager_config": {"priority": 3}})
    table.family("c8", "addition", 1, RESPONDING)
    table.family("c8-rule", "addition", 1, RESPONDING)
    table.rule("c8-rule", "child", priority=1)
    table.family("c9", "detour", 2)
    table.rule("c9", "child", worker="w2", priority=4)
    table.family("c10", "addition", 1, None, gate)


def _write_responses(table: Table, gate: str) -> None:
    table.response("c11", "simple", "counts_down")
    table.response("c12", "broken_detour")
    detour = {"name": "detour", "gate": gate, "detour": [{"name": "leaf"}]}
    table.grown("c13", {"name": "generator", "detour": [detour], "addition": [{"name": "addition"}]})
    table.response("c14", "simple", "stops_children")
    table.response("c15", "stopped_while_others_run", gate)
    table.response("c16", "missing", "error")
    for mode in ("none", "pass"):
        table.response(f"c17-{mode}", "missing", mode)
    table.response("c18", "simple", "stores")


# C1 - C10: what run config they get -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_c1_without_a_rule_all_is_inherited(kind: str, table: Table) -> None:
    child = f"c1-{kind}/child"
    assert table.seen(child) == table.seen(f"c1-{kind}/generator") == ("w2", "ec2", 9)
    assert {table.level(child, field) for field in ("worker", "exec_config", "priority")} == {"generator"}


def test_c2_a_rule_for_the_child_alone(table: Table) -> None:
    assert table.seen("c2/generator") == ("w1", "ec1", 5)
    assert table.seen("c2/child") == ("w2", "ec2", 10)
    assert table.level("c2/child", "priority") == "rule"


def test_c3_a_rule_beats_what_is_inherited(table: Table) -> None:
    assert table.seen("c3/generator") == ("w1", "ec1", 9)
    assert table.seen("c3/child") == ("w2", "ec1", 2)
    assert table.level("c3/child", "exec_config") == "generator"


def test_c4_what_a_rule_gave_the_generator_is_inherited_also_if_falsy(table: Table) -> None:
    assert table.seen("c4/child") == table.seen("c4/generator") == ("w2", {}, 0)


def test_c5_a_rule_that_is_not_dynamic_is_inherited_but_matches_no_generated_job(table: Table) -> None:
    assert table.seen("c5/generator") == table.seen("c5/child") == ("w1", "ec1", 7)


def test_c6_the_present_values_of_the_generator_count(table: Table) -> None:
    """Its patch was deferred while it ran, and applied before its children were born."""
    assert table.before["c6/generator"].wanted is not None
    assert table.seen("c6/child") == table.seen("c6/generator") == ("w2", "ec1", 8)


def test_c7_a_generator_that_passes_nothing_on(table: Table) -> None:
    assert table.seen("c7/generator") == ("w1", "ec1", 3)
    assert table.seen("c7/child") == ("w1", "ec1", 5)
    assert table.level("c7/child", "priority") == "flow"
    assert table.seen("c7-passes/child") == ("w1", "ec1", 3), "otherwise it does"


def test_c8_what_the_generator_says_of_its_children_is_their_own(table: Table) -> None:
    assert table.seen("c8/child") == ("w2", "ec1", 6)
    assert table.level("c8/child", "priority") == "job"
    assert table.seen("c8-rule/child") == ("w2", "ec1", 1), "a rule is stronger"


def test_c9_rules_reach_grandchildren(table: Table) -> None:
    assert table.seen("c9/middle") == ("w1", "ec1", 5)
    assert table.seen("c9/child") == ("w2", "ec1", 4)
    assert str(table.job("c9/child").attempt.run_dir).startswith(str(table.work / "w2"))


def test_c10_a_rule_that_was_committed_while_the_generator_ran(table: Table) -> None:
    assert table.seen("c10/generator") == ("w1", "ec1", 5)
    assert table.seen("c10/child") == ("w1", "ec1", 8)
    assert table.level("c10/child", "worker") == "generator"


# C11 - C13: who waits for whom ------------------------------------------------------------------------------


def test_c11_a_replaced_job_keeps_its_uuid_and_its_dependants_wait_for_the_last(table: Table) -> None:
    jobs = table.view(lambda view: view.jobs_of("c11"))
    generations = [job for job in jobs if job.name == "counts_down"]
    numbers = list(range(1, 12))
    assert [job.index for job in generations] == numbers
    assert [job.key for job in generations] == ["counts_down", *[f"counts_down@{n}" for n in numbers[1:]]]
    assert len({job.uuid for job in generations}) == 1
    assert table.output("c11/child") == ["done"]


def test_c12_dependants_wait_for_the_leaves_of_a_detour(table: Table) -> None:
    assert table.before["c13/child"].state is JobState.WAITING
    jobs = table.named("c13")
    assert jobs["child"].parents == [jobs[name].uuid for name in ("generator", "detour", "leaf")]
    edges = flow_graph("c13", list(jobs.values())).edges
    waits = {edge.source for edge in edges if edge.target == jobs["child"].id and edge.kind is EdgeKind.DATA}
    assert waits == {jobs[name].id for name in ("generator", "detour", "leaf")}
    order = (table.root / "log").read_text().split()
    assert order.index("leaf") < order.index("child")


def test_c12_a_failed_detour_holds_the_dependants(table: Table) -> None:
    assert table.told("c12") == {"detours_into_failure": "COMPLETED", "fails": "FAILED", "show": "WAITING"}


def test_c13_nobody_waits_for_an_addition_and_it_waits_for_no_detour(table: Table) -> None:
    assert table.before["c13/detour"].state is JobState.RUNNING
    assert table.before["c13/addition"].state is JobState.COMPLETED
    jobs = table.named("c13")
    assert jobs["addition"].parents == []
    assert jobs["addition"].uuid not in jobs["child"].parents


# C14 - C18: what a job says besides -------------------------------------------------------------------------


def test_c14_stop_children_stops_all_descendants(table: Table) -> None:
    assert table.told("c14") == {"stops_children": "COMPLETED", "child": "STOPPED", "grandchild": "STOPPED"}


def test_c15_stop_jobflow_also_stops_what_is_generated_later(table: Table) -> None:
    assert table.before["c15/after"].state is JobState.STOPPED
    assert table.told("c15") == {
        "late": "COMPLETED",
        "stop": "COMPLETED",
        "after": "STOPPED",
        "child": "STOPPED",
    }


def test_c16_the_child_of_a_failed_job_waits_and_the_flow_says_why_and_what_helps(table: Table) -> None:
    assert table.told("c16") == {"fails": "FAILED", "show_kinds": "WAITING"}
    status = table.view(lambda view: flow_status(view.flow("c16"), view.summary("c16")))
    assert (status.health, status.reason) == (
        Health.DEGRADED, "fails FAILED: ValueError: on purpose; 1 job waiting"
    )  # fmt: skip
    assert "`reconcile retry c16 state:FAILED,REMOTE_ERROR`" in status.fix
    program = Reconcile(table.repository.path)
    state = ("--state-dir", str(table.root / "state"))
    assert status.fix in program(*state, "describe", "flow", "c16").stdout
    job = json.loads(program(*state, "describe", "job", "c16/show_kinds", "-o", "json").stdout)
    assert (job["state"], job["parents"]) == ("WAITING", ["c16/fails"])


@pytest.mark.parametrize(("mode", "kinds"), [("none", ["NoneType"]), ("pass", ["OutputReference"])])
def test_c17_a_child_that_does_not_mind_runs(mode: str, kinds: list[str], table: Table) -> None:
    assert table.output(f"c17-{mode}/show_kinds") == kinds


def test_c18_stored_data_is_kept(table: Table) -> None:
    assert table.job("c18/stores").stored_data == {"numbers": [1, 1.5], "why": None}


# C19: the next reconcile ------------------------------------------------------------------------------------


def test_c19_generated_jobs_are_no_drift(table: Table) -> None:
    before = {path: (job.state, job.config, job.current) for path, job in table.jobs().items()}
    table.repository.write("README", "nothing that counts")
    table.repository.commit()
    session = Session(table.source, table.store)
    assert session.plan(session.load()).effective == ()
    table.reconcile()
    table.run()
    assert {path: (job.state, job.config, job.current) for path, job in table.jobs().items()} == before
