"""Table A of the conformance list: who wins. The number of a test is the number of its case.

Setting: the flow ``value -> add`` with worker w1, exec_config ec1, resources and priority 5 at the flow
level, as real manifests in a real repository. Cases about what a job gets run on shell workers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from qtoolkit.io import PBSIO, SGEIO, SlurmIO

from reconciler.actual.store import Store
from reconciler.loop import Session
from tests.conformance.support import JOBS, Ran, Silent, Table, Value, places
from tests.support import Reconcile, Repository

FLOW_FILE = "flows/arithmetic.yaml"

OF_FLOW: dict[str, Value | None] = {
    "worker": ("w1", f"flow {FLOW_FILE}:5"),
    "exec_config": ("ec1", f"flow {FLOW_FILE}:6"),
    "resources": ({"nodes": 1, "ntasks": 4}, f"flow {FLOW_FILE}:7"),
    "priority": (5, f"flow {FLOW_FILE}:8"),
    "retries": None,
}
"""What every job has unless something stronger says otherwise."""


@pytest.fixture
def table(repository: Repository, tmp_path: Path) -> Table:
    """The setting, with slurm workers."""
    return Table(repository, tmp_path)


@pytest.fixture
def shell(repository: Repository, tmp_path: Path) -> Table:
    """The setting with shell workers, w1 by default, and nothing at the flow level."""
    made = Table(repository, tmp_path, "shell")
    made.project("\n  defaults: {worker: w1}\n")
    return made


def job(key: str, more: str) -> str:
    """Return the jobs of the flow with ``more`` given to one of them."""
    return JOBS.replace(f"    - id: {key}\n", f"    - id: {key}\n      {more}\n")


# A1 - A2: levels below the rules ---------------------------------------------------------------------------


def test_a1_flow_level_values_reach_every_job(table: Table) -> None:
    assert table.run_configs() == {"value": OF_FLOW, "add": OF_FLOW}


def test_a1_the_root_is_ready_and_its_child_waits(shell: Table) -> None:
    shell.flow("  worker: w2\n  exec_config: ec1\n  resources: {}\n  priority: 5\n")
    store = Store(shell.root / "state")
    Session(shell.source(), store).reconcile(Silent())
    with store.read() as view:
        jobs = {found.key: found for found in view.jobs_of("arithmetic")}
    store.close()
    assert {key: str(found.state) for key, found in jobs.items()} == {"value": "READY", "add": "WAITING"}
    for found in jobs.values():
        config = found.config
        assert (config.worker_name, config.value("exec_config"), config.priority_value) == ("w2", "ec1", 5)
        assert config.resources_value is not None and config.resources_value.values == {}


def test_a2_nothing_at_all_takes_the_projects_worker(table: Table) -> None:
    table.project("\n  defaults:\n    worker: w2\n")
    table.flow("")
    expected = {"worker": ("w2", "project reconciler.yaml:6")}
    assert table.run_configs()["add"] == dict.fromkeys(OF_FLOW) | expected


def test_a2_no_worker_anywhere_is_an_error(table: Table) -> None:
    table.flow("")
    (found,) = table.problems()
    assert (found.code, str(found.location)) == ("run-config/no-worker", f"{FLOW_FILE}:3:18")
    assert "'arithmetic'" in found.message
    assert found.hint is not None and "spec.worker" in found.hint
    assert table.waits() is not None


# A3 - A8: values, and presence -----------------------------------------------------------------------------


def test_a3_a_rule_replaces_what_it_sets(table: Table) -> None:
    file = table.rule("name_filter: add", "worker: w2\nexec_config: ec2\npriority: 10")
    assert table.run_configs() == {
        "value": OF_FLOW,
        "add": OF_FLOW
        | {
            "worker": ("w2", f"rule {file}:7"),
            "exec_config": ("ec2", f"rule {file}:8"),
            "priority": (10, f"rule {file}:9"),
        },
    }


def test_a4_a_rule_that_sets_only_empty_resources(table: Table) -> None:
    file = table.rule("name_filter: add", "resources: {}")
    configs = table.run_configs()
    assert configs["add"] == OF_FLOW | {"resources": ({}, f"rule {file}:7")}
    assert configs["value"] == OF_FLOW


def test_a5_empty_resources_keep_the_workers_default_out(table: Table) -> None:
    table.workers("slurm", "  resources: {ntasks: 8}\n")
    file = table.rule("name_filter: add", "worker: w1\nresources: {}")
    assert table.run_configs()["add"]["resources"] == ({}, f"rule {file}:8")


def test_a6_an_empty_exec_config_is_none(table: Table) -> None:
    file = table.rule("name_filter: add", "exec_config: {}")
    assert table.run_configs()["add"]["exec_config"] == ({}, f"rule {file}:7")


def test_a6_the_job_then_runs_without_commands(
    shell: Table, repository: Repository, reconcile: Reconcile
) -> None:
    repository.write(
        "exec_configs/all.yaml",
        "apiVersion: reconciler/v1\nkind: ExecConfig\nmetadata: {name: ec1}\nspec: {pre_run: echo set-up}\n",
    )
    shell.flow("  exec_config: ec1\n")
    shell.rule("name_filter: add", "exec_config: {}")
    repository.commit()
    ran = Ran(reconcile)
    assert "echo set-up" in ran.script("arithmetic/value")
    assert "echo set-up" not in ran.script("arithmetic/add")


def test_a7_priority_zero_from_a_rule(table: Table) -> None:
    file = table.rule("name_filter: add", "priority: 0")
    assert table.run_configs()["add"] == OF_FLOW | {"priority": (0, f"rule {file}:7")}


def test_a7_priority_zero_from_the_job(table: Table) -> None:
    table.flow("  worker: w1\n  priority: 5\n", job("add", "priority: 0"))
    configs = table.run_configs()
    assert configs["add"]["priority"] == (0, f"job {FLOW_FILE}:12")
    assert configs["value"]["priority"] == (5, f"flow {FLOW_FILE}:6")


def test_a8_a_negative_priority(table: Table) -> None:
    table.flow("  worker: w1\n", job("add", "priority: -3"))
    assert table.run_configs()["add"]["priority"] == (-3, f"job {FLOW_FILE}:11")


# A9 - A12: selectors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name_filter", "matched"),
    [("dd", {"add"}), ("ADD", set()), ("a*", set()), ("arithmetic", set()), ("a", {"value", "add"})],
)
def test_a9_name_filter_is_a_substring_of_the_jobs_name(
    table: Table, name_filter: str, matched: set[str]
) -> None:
    table.rule(f'name_filter: "{name_filter}"', "worker: w2")
    configs = table.run_configs()
    assert {key for key, config in configs.items() if config != OF_FLOW} == matched
    unmatched = [("rule/matches-nothing", "rules/r1.yaml:5:16")] if not matched else []
    assert [place[:2] for place in places(table.problems())] == unmatched


def test_a9_an_empty_name_filter_is_refused(shell: Table) -> None:
    file = shell.rule('name_filter: ""', "worker: w2")
    (found,) = shell.problems()
    assert found.code.startswith("schema/")
    assert str(found.location) == f"{file}:5:16"
    assert shell.waits() == "waits: OverrideRule 'r1' is invalid and has no earlier version"


def test_a9_without_a_name_filter_all_jobs_match(table: Table) -> None:
    table.rule("flows: [arithmetic]", "worker: w2")
    assert {config["worker"] for config in table.run_configs().values()} == {("w2", "rule rules/r1.yaml:7")}


def test_a10_a_longer_name_matches(table: Table) -> None:
    table.flow("  worker: w1\n", job("add", "name: add more"))
    table.rule("name_filter: add", "worker: w2")
    configs = table.run_configs()
    assert configs["add"]["worker"] == ("w2", "rule rules/r1.yaml:7")
    assert configs["value"]["worker"] == ("w1", f"flow {FLOW_FILE}:5")


def test_a11_function_filter_matches_a_renamed_job(table: Table) -> None:
    table.flow("  worker: w1\n", job("add", "name: sum"))
    table.rule("function_filter: reconciler.examples.add", "worker: w2")
    configs = table.run_configs()
    assert configs["add"]["worker"] == ("w2", "rule rules/r1.yaml:7")
    assert configs["value"]["worker"] == ("w1", f"flow {FLOW_FILE}:5")


def test_a12_filters_that_disagree_match_nothing(table: Table) -> None:
    table.rule("name_filter: add\n  function_filter: reconciler.examples.value", "worker: w2")
    assert table.run_configs() == {"value": OF_FLOW, "add": OF_FLOW}
    assert [place[:2] for place in places(table.problems())] == [
        ("rule/matches-nothing", "rules/r1.yaml:6:20")
    ]


# A13 - A14: several rules ----------------------------------------------------------------------------------


def test_a13_rules_win_key_by_key(table: Table) -> None:
    table.rule("name_filter: add", "worker: w2\npriority: 7")
    table.rule("name_filter: add", "exec_config: ec2")
    assert table.run_configs()["add"] == OF_FLOW | {
        "worker": ("w2", "rule rules/r1.yaml:7"),
        "priority": (7, "rule rules/r1.yaml:8"),
        "exec_config": ("ec2", "rule rules/r2.yaml:7"),
    }


@pytest.mark.parametrize(("order", "winner"), [(100, 2), (99, 2), (101, 1)])
def test_a13_the_later_rule_is_the_one_of_higher_order(table: Table, order: int, winner: int) -> None:
    table.rule(f"order: {order}", "priority: 1")
    table.rule("order: 100", "priority: 2")
    assert table.run_configs()["add"]["priority"] == (winner, f"rule rules/r{winner}.yaml:7")


def test_a14_resources_are_replaced_never_merged(table: Table) -> None:
    table.rule("name_filter: add", "resources: {nodes: 2}")
    table.rule("name_filter: add", "resources: {ntasks: 3}")
    assert table.run_configs()["add"]["resources"] == ({"ntasks": 3}, "rule rules/r2.yaml:7")


# A15 - A17: what jobflow-remote finds out when the job runs -------------------------------------------------


@pytest.mark.parametrize(
    ("values", "code", "column", "hint"),
    [
        ("worker: w11", "reference/unknown-worker", 13, "did you mean 'w1'?"),
        ("worker: cluster", "reference/unknown-worker", 13, "known: shelldef, w1, w2"),
        ("exec_config: ec11", "reference/unknown-exec-config", 18, "did you mean 'ec1'?"),
    ],
)
def test_a15_an_unknown_name_in_a_rule(shell: Table, values: str, code: str, column: int, hint: str) -> None:
    file = shell.rule("flows: [arithmetic]\n  name_filter: add", values)
    shell.flow("", name="other")
    found = shell.problems()
    assert places(found) == [(code, f"{file}:8:{column}", hint)]
    assert found[0].excerpt == f"    {values}"
    assert shell.waits() == f"waits: {found[0].message}"
    assert shell.waits("other") is None


def test_a15_an_unknown_name_in_a_job(shell: Table) -> None:
    shell.flow("  worker: w1\n", job("add", "worker: w22"))
    shell.flow("", name="other")
    assert places(shell.problems()) == [
        ("reference/unknown-worker", f"{FLOW_FILE}:11:15", "did you mean 'w2'?")
    ]
    assert shell.waits() == "waits: there is no Worker named 'w22'"
    assert shell.waits("other") is None


def test_a15_the_other_flows_run(shell: Table, repository: Repository, reconcile: Reconcile) -> None:
    shell.flow("  worker: w11\n")
    shell.flow("", name="other")
    repository.commit()
    ran = Ran(reconcile, exit_code=2)
    assert f"--> {FLOW_FILE}:5:11" in ran.done.stderr
    assert "did you mean 'w1'?" in ran.done.stderr
    assert ran.job("other/add")["state"] == "COMPLETED"
    assert reconcile("describe", "job", "arithmetic/add").returncode != 0, "it was not submitted"


@pytest.mark.parametrize(
    ("keyword", "hint"),
    [("ntask", "did you mean 'ntasks'?"), ("mem_per_core", "did you mean 'mem_per_cpu'?")],
)
def test_a16_an_unknown_scheduler_keyword(table: Table, keyword: str, hint: str) -> None:
    file = table.rule("name_filter: add", f"resources: {{nodes: 1, {keyword}: 4}}")
    assert places(table.problems()) == [("resources/unknown-keyword", f"{file}:7:27", hint)]
    assert table.problems()[0].message == f"'{keyword}' is not a Slurm keyword"


def test_a16_the_flow_waits_and_others_proceed(shell: Table) -> None:
    shell.flow("", name="other")
    shell.rule("flows: [arithmetic]", "resources: {ntask: 4}")
    assert shell.waits() == "waits: 'ntask' is not a scheduler keyword"
    assert shell.waits("other") is None


def test_a17_a_shell_worker_with_resources_names_both_lines(shell: Table) -> None:
    shell.flow("  worker: shelldef\n  resources: {nodes: 1, ntasks: 4}\n")
    shell.flow("", name="other")
    (found,) = shell.problems()
    assert (found.code, str(found.location)) == ("resources/shell-worker", f"{FLOW_FILE}:6:14")
    assert [str(note.location) for note in found.related] == [f"{FLOW_FILE}:5:11"]
    assert "'shelldef'" in found.message and "nodes, ntasks" in found.message
    assert found.hint is not None and "`resources: {}`" in found.hint
    assert shell.waits() == f"waits: {found.message}"
    assert shell.waits("other") is None


def test_a17_also_when_a_rule_chose_the_worker(table: Table) -> None:
    file = table.rule("name_filter: add", "worker: shelldef")
    (found,) = table.problems()
    assert (found.code, str(found.location)) == ("resources/shell-worker", f"{FLOW_FILE}:7:14")
    assert [str(note.location) for note in found.related] == [f"{file}:7:13"]


def test_a17_the_hint_helps(table: Table) -> None:
    table.rule("name_filter: add", "worker: shelldef\nresources: {}")
    assert table.problems() == []
    assert table.run_configs()["add"]["worker"] == ("shelldef", "rule rules/r1.yaml:7")


# A18 - A20: resources --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("name: add", ({"ntasks": 8, "time": "1:00:00"}, "worker workers/all.yaml:8")),
        ("resources: {}", ({}, f"job {FLOW_FILE}:11")),
        ("resources: {ntasks: 1}", ({"ntasks": 1}, f"job {FLOW_FILE}:11")),
    ],
)
def test_a18_the_workers_default_resources(table: Table, given: str, expected: Value) -> None:
    table.workers("slurm", '  resources: {ntasks: 8, time: "1:00:00"}\n')
    table.flow("  worker: w1\n", job("add", given))
    assert table.run_configs()["add"]["resources"] == expected


def test_a18_the_default_is_that_of_the_effective_worker(table: Table) -> None:
    table.workers("slurm", "  resources: {ntasks: 8}\n")
    table.flow("  worker: w1\n")
    table.rule("name_filter: add", "worker: w2")
    configs = table.run_configs()
    assert configs["add"]["resources"] is None
    assert configs["value"]["resources"] == ({"ntasks": 8}, "worker workers/all.yaml:8")


@pytest.mark.parametrize("form", ["resources", "qresources"])
@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "sge", "shell"])
def test_a19_empty_resources_are_valid_everywhere(table: Table, scheduler: str, form: str) -> None:
    table.workers(scheduler)
    table.flow(f"  worker: w1\n  {form}: {{}}\n")
    value: dict[str, Any] = {"qresources": {}} if form == "qresources" else {}
    assert table.run_configs()["add"]["resources"] == (value, f"flow {FLOW_FILE}:6")


@pytest.mark.parametrize("scheduler", [SlurmIO, PBSIO, SGEIO])
def test_a19_their_header_asks_for_nothing(scheduler: Any) -> None:
    script: str = scheduler().get_submission_script("echo", {})
    assert [line for line in script.splitlines() if line] == ["#!/bin/bash", "echo"]


def test_a19_a_job_with_empty_resources_runs(
    shell: Table, repository: Repository, reconcile: Reconcile
) -> None:
    shell.flow("  resources: {}\n")
    repository.commit()
    ran = Ran(reconcile)
    found = ran.job("arithmetic/add")
    assert (found["state"], found["resources"]) == ("COMPLETED", {})
    script = ran.script("arithmetic/add")
    assert script.startswith("#!/bin/bash\n")
    assert not any(line.startswith(("#SBATCH", "#PBS", "#$")) for line in script.splitlines())


def test_a20_resources_are_never_taken_for_generic_ones(table: Table) -> None:
    table.flow("  worker: w1\n  resources: {nodes: 1, account: theirs}\n")
    assert table.run_configs()["add"]["resources"] == (
        {"nodes": 1, "account": "theirs"},
        f"flow {FLOW_FILE}:6",
    )


def test_a20_keywords_of_the_generic_form_are_none_of_slurm(table: Table) -> None:
    table.flow("  worker: w1\n  resources: {nodes: 1, processes_per_node: 4}\n")
    assert [place[:2] for place in places(table.problems())] == [
        ("resources/unknown-keyword", f"{FLOW_FILE}:6:25")
    ]


def test_a20_generic_resources_are_always_generic(table: Table) -> None:
    table.flow("  worker: w1\n  qresources: {nodes: 1, processes_per_node: 4}\n")
    assert table.run_configs()["add"]["resources"] == (
        {"qresources": {"nodes": 1, "processes_per_node": 4}},
        f"flow {FLOW_FILE}:6",
    )


def test_a20_both_forms_at_one_level_are_refused(table: Table) -> None:
    table.flow("  worker: w1\n  resources: {nodes: 1}\n  qresources: {processes: 4}\n")
    (found,) = table.problems()
    assert found.code.startswith("schema/")
    assert found.location is not None and found.location.file == FLOW_FILE
    assert "qresources" in found.message


def test_a20_the_stronger_level_replaces_the_other_form(table: Table) -> None:
    file = table.rule("name_filter: add", "qresources: {processes: 4}")
    configs = table.run_configs()
    assert configs["add"]["resources"] == ({"qresources": {"processes": 4}}, f"rule {file}:7")
    assert configs["value"]["resources"] == OF_FLOW["resources"]


# A21 - A22: the script -------------------------------------------------------------------------------------


def test_a21_the_workers_commands_come_first(
    shell: Table, repository: Repository, reconcile: Reconcile
) -> None:
    shell.workers("shell", "  pre_run: echo worker-pre >> order\n  post_run: echo worker-post >> order\n")
    repository.write(
        "exec_configs/all.yaml",
        "apiVersion: reconciler/v1\nkind: ExecConfig\nmetadata: {name: ec1}\nspec:\n"
        "  pre_run: |\n    echo config-pre >> order\n  post_run: echo config-post >> order\n",
    )
    shell.flow("  exec_config: ec1\n")
    repository.commit()
    ran = Ran(reconcile)
    assert ran.file("arithmetic/add", "order").split() == [
        "worker-pre",
        "config-pre",
        "worker-post",
        "config-post",
    ]


def test_a22_values_are_quoted(shell: Table, repository: Repository, reconcile: Reconcile) -> None:
    spec = """
  export:
    B: "x y; rm -rf *"
    C: "$HOME/data 'quoted' `touch evil` $(touch evil)"
"""
    expand = spec.replace("  export:", "  expand: true\n  export:")
    repository.write(
        "exec_configs/all.yaml",
        f"apiVersion: reconciler/v1\nkind: ExecConfig\nmetadata: {{name: plain}}\nspec:{spec}---\n"
        f"apiVersion: reconciler/v1\nkind: ExecConfig\nmetadata: {{name: expanding}}\nspec:{expand}",
    )
    jobs = "".join(
        f"    - id: {config}-{name.lower()}\n      function: reconciler.examples.environment\n"
        f"      args: [{name}]\n      exec_config: {config}\n      worker: {worker}\n"
        for config, worker in (("plain", "w1"), ("expanding", "w2"))
        for name in ("B", "C")
    )
    shell.flow("", f"  jobs:\n{jobs}")
    repository.commit()
    ran = Ran(reconcile)
    home = str(Path.home())
    outputs = {key: _output(ran, f"arithmetic/{key}") for key in ("plain-b", "expanding-b", "plain-c")}
    assert outputs == {
        "plain-b": "x y; rm -rf *",
        "expanding-b": "x y; rm -rf *",
        "plain-c": "$HOME/data 'quoted' `touch evil` $(touch evil)",
    }
    expanded = f"{home}/data 'quoted' `touch evil` $(touch evil)"
    assert _output(ran, "arithmetic/expanding-c") == expanded
    assert not list(shell.root.rglob("evil")), "no command of a value was run"


def _output(ran: Ran, key: str) -> Any:
    from jobflow import JobStore

    from reconciler.actual.jobstore import LMDBStore

    found = JobStore(LMDBStore(str(Path.home() / "state" / "reconciler" / "table")))
    found.connect()
    try:
        return found.get_output(ran.job(key)["uuid"])
    finally:
        found.close()
