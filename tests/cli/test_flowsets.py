"""FlowSets through the program: submitted, changed by row, frozen, removed, selected, explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ended
from tests.support import Repository, minimal_project

pytestmark = pytest.mark.usefixtures("warm")

SET = """
    apiVersion: reconciler/v1
    kind: FlowSet
    metadata: {name: s, labels: {campaign: c}}
    spec:
      items: {from: [{csv: data/items.csv}]}
      key: "{k}"
      suspend: true
      limits: {max_removed: 40%}
      template:
        resources: {nodes: {$item: nodes}}
        labels: {family: {$item: family}}
        jobs:
          - {id: a, function: reconciler.examples.value, args: [{$item: n}]}
          - {id: b, function: reconciler.examples.add, args: [{$output: a}, 1]}
    """
ROWS = {f"x{n}": f"x{n},{n},{'oxide' if n % 2 else 'halide'},1" for n in range(1, 7)}


class Campaign:
    """A repository with a set over a csv file, and the program on it in this process."""

    def __init__(self, repository: Repository, program: Callable[..., Ended], state: Path) -> None:
        self.repository = repository
        self.program = program
        self.state = str(state)
        minimal_project(repository, state.parent / "work")
        repository.write_yaml("workers/w.yaml", _WORKER.format(state.parent / "work"))
        repository.write_yaml("flows/s.yaml", SET)
        self.rows = dict(ROWS)
        self.commit("a set")

    def commit(self, message: str) -> None:
        text = "\n".join(["k,n,family,nodes", *self.rows.values(), ""])
        self.repository.write("data/items.csv", text)
        self.repository.commit(message)

    def run(self, *arguments: str) -> Ended:
        return self.program(*arguments, "--state-dir", self.state)

    def apply(self, code: int = 0) -> str:
        done = self.run("--once", "-v")
        assert done.code == code, done.stderr
        return done.stdout + done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def actions(self, *arguments: str) -> set[tuple[str, str]]:
        plan = self.json("plan", *arguments)
        return {(one["action"], one["key"]) for one in plan["actions"] if one["action"] != "Keep"}

    def flows(self) -> list[str]:
        return [flow["name"] for flow in self.json("get", "flows") if not flow["removed"]]


_WORKER = """
    apiVersion: reconciler/v1
    kind: Worker
    metadata: {{name: cluster}}
    spec: {{type: local, scheduler_type: slurm, work_dir: "{}"}}
    ---
    apiVersion: reconciler/v1
    kind: OverrideRule
    metadata: {{name: on-cluster}}
    spec: {{flows: ["s-*"], set: {{worker: cluster}}}}
    """


@pytest.fixture
def campaign(
    repository: Repository, program: Callable[..., Ended], state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Campaign:
    monkeypatch.chdir(repository.path)
    return Campaign(repository, program, state_dir)


def test_a_set_is_ordinary_flows_and_a_row_changes_one(campaign: Campaign) -> None:
    campaign.apply()
    assert campaign.flows() == [f"s-{key}" for key in ROWS]
    assert len(campaign.json("get", "jobs")) == 12

    campaign.rows = dict(reversed(ROWS.items()))
    campaign.commit("another order")
    assert campaign.actions() == set()

    campaign.apply()
    campaign.rows["x2"] = "x2,2,halide,3"
    campaign.commit("more nodes for x2, in a commit that touches only the table")
    assert campaign.actions() == {("Patch", "s-x2"), ("Patch", "s-x2/a"), ("Patch", "s-x2/b")}
    campaign.apply()

    explained = campaign.run("explain", "job", "s-x2/a", "resources").stdout
    assert "data/items.csv:6" in explained
    assert campaign.repository.run("rev-parse", "HEAD")[:7] in explained

    campaign.rows["x3"] = "x3,33,oxide,1"
    campaign.commit("another value for x3")
    plan = campaign.json("plan")
    assert {(one["action"], one["key"]) for one in plan["actions"]} == {
        ("Replace", "s-x3"), ("Replace", "s-x3/a"), ("Replace", "s-x3/b"),
    }  # fmt: skip
    changed = {
        (change["field"], change["old"], change["new"], change["provenance"]["file"])
        for one in plan["actions"]
        for change in one["changes"]
        if change["provenance"]
    }
    assert ("args[0]", 3, 33, "data/items.csv") in changed
    assert ("item.n", 3, 33) in {
        (change["field"], change["old"], change["new"]) for change in plan["actions"][0]["changes"]
    }


def test_nothing_of_a_set_is_removed_while_it_is_not_sure(campaign: Campaign) -> None:
    campaign.apply()
    good = dict(campaign.rows)

    campaign.repository.write("data/items.csv", "k,n,family,nodes\nx1,1,oxide,1\nx2,")
    campaign.repository.commit("a file that is cut off")
    assert "row 2 has 2 cells" in campaign.apply(code=2)
    assert len(campaign.flows()) == 6
    (frozen,) = campaign.json("get", "flowsets")
    assert "row 2 has 2 cells" in frozen["frozen"]
    assert campaign.run("--once", "--allow-prune").code == 2
    assert len(campaign.flows()) == 6, "what cannot be read is not known, whatever is allowed"

    campaign.repository.write_yaml("flows/s.yaml", SET.replace("key:", "kye:"))
    campaign.commit("a mistyped field")
    campaign.apply(code=2)
    assert len(campaign.flows()) == 6
    (frozen,) = campaign.json("get", "flowsets")
    assert frozen["frozen"] == "its document is invalid in this revision"

    campaign.repository.write_yaml("flows/s.yaml", SET)
    campaign.repository.remove("data/items.csv")
    campaign.repository.commit("no file")
    assert "does not have a file" in campaign.apply(code=2)
    assert len(campaign.flows()) == 6

    campaign.rows = {key: row for key, row in good.items() if key not in ("x1", "x2", "x3")}
    campaign.commit("half of it")
    assert "3 of its 6 flows are gone, more than max_removed (40%) allows" in campaign.apply(code=2)
    assert len(campaign.flows()) == 6

    campaign.rows |= {"x9": "x9,9,oxide,1", "x4 again": "x4,44,oxide,1", "x1": good["x1"]}
    campaign.commit("one key twice, fewer rows and a new one")
    assert "the key 'x4' is not unique" in campaign.apply(code=2)
    assert campaign.flows() == [f"s-{key}" for key in (*ROWS, "x9")]

    campaign.rows = {key: row for key, row in good.items() if key != "x1"} | {"x9": "x9,9,oxide,1"}
    campaign.commit("one fewer")
    campaign.apply()
    assert campaign.flows() == ["s-x2", "s-x3", "s-x4", "s-x5", "s-x6", "s-x9"]

    campaign.rows = {"x2": good["x2"], "x3": good["x3"]}
    campaign.commit("most of it")
    assert campaign.run("--once", "--allow-prune").code == 0
    assert campaign.flows() == ["s-x2", "s-x3"]


def test_removed_items_are_kept_if_the_set_says_so(campaign: Campaign) -> None:
    campaign.repository.write_yaml(
        "flows/s.yaml", SET.replace("suspend:", "on_removed: keep\n      suspend:")
    )
    campaign.commit("keep")
    campaign.apply()
    del campaign.rows["x1"]
    campaign.commit("without x1")
    assert campaign.actions() == {("Forget", "s-x1")}
    campaign.apply()
    assert {job["state"] for job in campaign.json("get", "jobs", "s-x1", "--all")} <= {"PAUSED", "WAITING"}


def test_two_documents_cannot_make_the_same_flow(campaign: Campaign) -> None:
    campaign.repository.write_yaml(
        "flows/twin.yaml",
        """
        apiVersion: reconciler/v1
        kind: Flow
        metadata: {name: s-x1}
        spec: {suspend: true, jobs: [{id: a, function: reconciler.examples.value, args: [5]}]}
        """,
    )
    campaign.commit("a flow with the name of an item")
    assert "a name that the document flows/twin.yaml" in campaign.apply(code=2)
    assert [job["key"] for job in campaign.json("get", "jobs", "s-x1")] == ["s-x1/a"]


def test_selectors_and_expand(campaign: Campaign) -> None:
    campaign.apply()

    def selected(*words: str) -> list[str]:
        return [flow["name"] for flow in campaign.json("get", "flows", *words)]

    assert len(selected("flowset:s")) == 6
    assert selected("item.n>4") == ["s-x5", "s-x6"]
    assert selected("item.n>2", "item.family=hal*") == ["s-x4", "s-x6"]
    assert {job["flow"] for job in campaign.json("get", "jobs", "item.k!=x1", "item.n<3")} == {"s-x2"}
    for wrong, hint in (("flowset:t", "known: s"), ("item.nn>1", "'n'"), ("flowst:s", "flowset")):
        done = campaign.run("get", "flows", wrong)
        assert done.code == 2
        assert hint in done.stderr
    assert campaign.run("cancel", "flowset:s", "item.n=1", "--dry-run").code == 0

    (document,) = campaign.json("expand", "s", "--key", "x2")
    assert document["spec"]["jobs"][0]["args"] == [2]
    assert document["metadata"] == {"name": "s-x2", "labels": {"campaign": "c", "family": "halide"}}
    text = campaign.run("expand", "s", "--limit", "2")
    assert text.stdout.startswith("# item x1 of FlowSet s: data/items.csv:2\n")
    assert text.stdout.count("kind: Flow") == 2
    assert "4 more flows" in text.stderr
    assert "did you mean 's'?" in campaign.run("expand", "S").stderr
    assert "x1" in campaign.run("expand", "s", "--key", "x11").stderr
    assert "FlowSet 's'" in campaign.run("set", "suspend", "s-x1", "off").stderr
