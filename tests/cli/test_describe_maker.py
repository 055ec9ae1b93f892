"""``reconcile describe maker``: what a Maker is, what uses it, and which rules select by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import Repository, minimal_project

MAKERS = """
    apiVersion: reconciler/v1
    kind: Maker
    metadata: {name: fine}
    spec: {class: reconciler.examples.AddMaker, kwargs: {offset: 2}}
    ---
    apiVersion: reconciler/v1
    kind: Maker
    metadata: {name: outer}
    spec: {class: reconciler.examples.AddMaker, kwargs: {name: {$maker: {ref: fine}}}}
    """

FLOWS = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: listed}
    spec:
      jobs:
        - {id: one, maker: {ref: fine, make: {args: [1, 2]}}}
        - {id: two, function: reconciler.examples.value, args: [1]}
        - {id: three, maker: {ref: outer, make: {args: [1, 2]}}}
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: whole}
    spec: {maker: {ref: fine, make: {args: [1, 2]}}}
    """

RULES = """
    apiVersion: reconciler/v1
    kind: OverrideRule
    metadata: {name: first}
    spec: {makers: ["fi*"], set: {priority: 3}}
    ---
    apiVersion: reconciler/v1
    kind: OverrideRule
    metadata: {name: others}
    spec: {makers: [outer], set: {priority: 4}}
    """

Program = Callable[..., Any]


@pytest.fixture
def describe(
    repository: Repository, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> Program:
    minimal_project(repository, tmp_path / "work")
    repository.write_yaml("makers/all.yaml", MAKERS)
    repository.write_yaml("flows/all.yaml", FLOWS)
    repository.write_yaml("rules/all.yaml", RULES)
    repository.commit("makers")
    monkeypatch.chdir(repository.path)
    state = str(tmp_path / "state")
    return lambda *arguments: program("describe", "maker", *arguments, "--state-dir", state)


def test_what_uses_a_maker(describe: Program) -> None:
    fine = json.loads(describe("fine", "-o", "json").stdout)
    assert (fine["class"], fine["kwargs"]) == ("reconciler.examples.AddMaker", {"offset": 2})
    assert (fine["file"], fine["line"], fine["valid"]) == ("makers/all.yaml", 3, True)
    assert (fine["uses"], fine["used_by"]) == ([], ["outer"])
    assert fine["entries"] == {"listed": ["one", "three"], "whole": []}
    assert fine["rules"] == [{"name": "first", "sets": {"priority": 3}}]
    outer = json.loads(describe("outer", "-o", "json").stdout)
    assert (outer["uses"], outer["used_by"]) == (["fine"], [])
    assert outer["entries"] == {"listed": ["three"]}
    assert [rule["name"] for rule in outer["rules"]] == ["others"]


def test_as_text(describe: Program) -> None:
    shown = describe("fine").stdout.splitlines()
    for line in (
        *("name:      fine", "place:     makers/all.yaml:3", "  offset:        2", "used by:   outer"),
        *("  listed: one, three", "  whole", "rule:      first sets priority=3"),
    ):
        assert line in shown, "\n".join(shown)


def test_a_maker_that_does_not_exist_or_is_invalid(describe: Program, repository: Repository) -> None:
    done = describe("fin")
    assert done.code == 2
    assert "there is no Maker 'fin'" in done.stderr
    assert "did you mean 'fine'?" in done.stderr
    repository.write_yaml("makers/more.yaml", MAKERS.partition("---")[0].replace("{offset: 2}", "2"))
    repository.write_yaml("makers/all.yaml", MAKERS.partition("---")[2])
    repository.commit("an invalid Maker")
    done = describe("fine")
    assert done.code == 2
    assert "the document of the Maker 'fine' is invalid" in done.stderr
