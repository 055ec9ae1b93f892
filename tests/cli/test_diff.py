"""``reconcile diff``: the plan from one revision to another, in either direction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.main import cli
from reconciler.errors import InputError
from tests.cli.test_json import load, validate
from tests.support import Repository, minimal_project

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {{name: {name}}}
    spec:
      jobs:
        - {{id: value, function: reconciler.examples.value, args: [{argument}]}}
        - {{id: add, function: reconciler.examples.add, args: [{{$output: value}}, 2]}}
    """

RULE = """
    apiVersion: reconciler/v1
    kind: OverrideRule
    metadata: {name: hurry}
    spec: {name_filter: add, set: {priority: 9}}
    """


@pytest.fixture
def history(repository: Repository, tmp_path: Path) -> Repository:
    """Three tags: ``v1`` two flows, ``v2`` a rule for both and another argument of one, ``v3`` no flow."""
    minimal_project(repository, tmp_path / "work")
    repository.write_yaml("flows/one.yaml", FLOW.format(name="one", argument=1))
    repository.write_yaml("flows/two.yaml", FLOW.format(name="two", argument=1))
    repository.commit("two flows")
    repository.run("tag", "v1")
    repository.write_yaml("rules/hurry.yaml", RULE)
    repository.write_yaml("flows/two.yaml", FLOW.format(name="two", argument=5))
    repository.commit("a rule")
    repository.run("tag", "v2")
    repository.remove("flows/one.yaml")
    repository.remove("flows/two.yaml")
    repository.commit("nothing left")
    repository.run("tag", "v3")
    return repository


def run(repository: Repository, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--repo", str(repository.path), *arguments])


def test_it_is_what_plan_says(history: Repository) -> None:
    for form in ("table", "json", "markdown", "name"):
        told = run(history, "plan", "--base", "v1", "--head", "v2", "-o", form)
        assert run(history, "diff", "v1", "v2", "-o", form).stdout == told.stdout != ""


def test_only_some_flows(history: Repository) -> None:
    assert run(history, "diff", "v1", "v2", "one", "-o", "name").stdout.split() == ["one/add"]
    all_of_them = run(history, "diff", "v1", "v2", "-o", "name").stdout.split()
    assert {key.partition("/")[0] for key in all_of_them} == {"one", "two"}
    assert run(history, "diff", "v1", "v2", "*", "-o", "name").stdout.split() == all_of_them
    data = json.loads(run(history, "diff", "v1", "v2", "o*", "-o", "json").stdout)
    assert [error.message for error in validate("diff", data)] == []
    assert (data["summary"]["Patch"], sum(data["summary"].values())) == (1, 1)
    assert (data["base"][:3], data["revision"][:3]) == ("v1@", "v2@")


@pytest.mark.parametrize(
    ("words", "flows"),
    [
        (["label:n=one"], {"one"}),
        (["label:n=one,two"], {"one", "two"}),
        (["t*", "label:kind=test"], {"two"}),
    ],
)
def test_flows_by_label(repository: Repository, tmp_path: Path, words: list[str], flows: set[str]) -> None:
    minimal_project(repository, tmp_path / "work")
    repository.commit("no flows")
    for name in ("one", "two"):
        labels = f"{{name: {name}, labels: {{n: {name}, kind: test}}}}"
        text = FLOW.format(name=name, argument=1).replace(f"{{name: {name}}}", labels)
        repository.write_yaml(f"flows/{name}.yaml", text)
    repository.commit("two flows")
    found = run(repository, "diff", "HEAD~1", "HEAD", *words, "-o", "name").stdout.split()
    assert {key.partition("/")[0] for key in found} == flows
    wrong = run(repository, "diff", "HEAD~1", "HEAD", "one", "label:n=two")
    assert isinstance(wrong.exception, InputError)
    wrong = run(repository, "diff", "HEAD~1", "HEAD", "state:FAILED")
    assert isinstance(wrong.exception, InputError)


def test_backwards_without_advice_for_a_merge(history: Repository) -> None:
    done = run(history, "diff", "v2", "v1", "one")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "priority: 9 -> (none)" in done.stdout
    assert "merge v2 into it" in run(history, "plan", "--base", "v2", "--head", "v1").stderr


def test_guards_refuse_nothing(history: Repository) -> None:
    done = run(history, "diff", "v2", "v3")
    assert done.exit_code == 0
    assert "2 flows and 4 jobs to cancel" in done.stdout
    assert run(history, "plan", "--base", "v2", "--head", "v3").exit_code == 4


def test_exit_code(history: Repository) -> None:
    assert run(history, "diff", "v1", "v2", "--exit-code").exit_code == 1
    same = run(history, "diff", "v1", "v1", "--exit-code")
    assert (same.exit_code, same.stdout.rpartition(": ")[2]) == (0, "no changes\n")


def test_unknown_names(history: Repository) -> None:
    error = run(history, "diff", "v1", "v2", "oen").exception
    assert isinstance(error, InputError)
    assert (error.message, error.hint) == ("neither revision has a flow 'oen'", "did you mean 'one'?")
    error = run(history, "diff", "v1", "v9").exception
    assert isinstance(error, InputError)
    assert error.message == "there is no branch or commit 'v9'"


def test_creates_no_state(history: Repository, tmp_path: Path) -> None:
    assert run(history, "diff", "v1", "v2").exit_code == 0
    assert not (tmp_path / "home" / "state").exists()


def test_the_schema_is_that_of_a_plan() -> None:
    names = ("$id", "title", "description")
    diff, plan = ({k: v for k, v in load(name).items() if k not in names} for name in ("diff", "plan"))
    assert diff == plan
