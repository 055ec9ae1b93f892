"""Maker manifests: what flows make of them, what is wrong with them, and which rules select by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reconciler.cli.views.data import maker_data
from reconciler.desired.source.git import Source
from reconciler.desired.state import load_desired
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState
from reconciler.plan.configs import FlowConfigs
from reconciler.plan.planner import make_plan
from tests.desired.test_flows import NoCache
from tests.support import ROOT, Repository

HEAD = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec: {}\n"
Load = Callable[..., DesiredState]

MAKERS = {
    "calculator": "{class: m.Calculator, kwargs: {model: small, cutoff: 5}}",
    "emt": "{class: m.Relax, kwargs: {fmax: 0.1, calculator: {$maker: {ref: calculator}}}}",
}
CALCULATOR = {"$maker": {"class": "m.Calculator", "kwargs": {"model": "small", "cutoff": 5}}}


@pytest.fixture
def load(repository: Repository) -> Load:
    good: dict[str, Any] = {}

    def load(flow: str | None = None, rule: str | None = None, **makers: str | None) -> DesiredState:
        repository.write("reconciler.yaml", HEAD.format("Project", "p", "{python_path: [lib]}"))
        repository.write("lib/m.py", "x = 1\n")
        repository.write("data/a.txt", "a\n")
        for name, spec in (MAKERS | makers).items():
            if spec is not None:
                repository.write(f"makers/{name}.yaml", HEAD.format("Maker", name, spec))
        if flow is not None:
            repository.write("flows/f.yaml", HEAD.format("Flow", "f", flow))
        if rule is not None:
            repository.write("rules/r.yaml", HEAD.format("OverrideRule", "r", rule))
        repository.commit()
        source = Source(repository.path / ".git", repository.path, None, "")
        loaded = load_desired(source, source.revision(), NoCache(), good)
        good.clear()
        good.update(loaded.good)
        return loaded.state

    return load


USES: dict[str, tuple[str, Any]] = {
    "as the flow": (
        "{maker: {ref: emt, make: {args: [1]}}}",
        {"class": "m.Relax", "kwargs": {"fmax": 0.1, "calculator": CALCULATOR}, "make": {"args": [1]}},
    ),
    "with other arguments": (
        "{maker: {ref: calculator, kwargs: {model: large}}}",
        {"class": "m.Calculator", "kwargs": {"model": "large", "cutoff": 5}},
    ),
    "written out": (
        "{maker: {class: m.Calculator, kwargs: {model: large, cutoff: 5}}}",
        {"class": "m.Calculator", "kwargs": {"model": "large", "cutoff": 5}},
    ),
    "nested in data": (
        "{maker: {class: m.M, kwargs: {a: [{b: {$maker: {ref: calculator, kwargs: {n: 1}}}}]}}}",
        {
            "class": "m.M",
            "kwargs": {
                "a": [
                    {
                        "b": {
                            "$maker": {
                                "class": "m.Calculator",
                                "kwargs": {"model": "small", "cutoff": 5, "n": 1},
                            }
                        }
                    }
                ]
            },
        },
    ),
    "not where it is data": (
        "{maker: {class: m.M, kwargs: {maker: {ref: calculator}}}}",
        {"class": "m.M", "kwargs": {"maker": {"ref": "calculator"}}},
    ),
}


@pytest.mark.parametrize(("flow", "maker"), USES.values(), ids=USES)
def test_a_reference_stands_for_class_and_arguments(load: Load, flow: str, maker: Any) -> None:
    state = load(flow)
    assert state.diagnostics == []
    assert state.flows["f"].content["maker"] == maker
    assert state.flows["f"].code  # of m, which only the Maker may name


def test_an_edit_of_a_maker_is_a_change_of_the_flows_that_use_it(load: Load) -> None:
    flow = "{jobs: [{id: a, maker: {ref: emt}}, {id: b, function: m.f}, {id: c, maker: {ref: calculator}}]}"
    before = load(flow).flows["f"]
    assert before.makers_of == {"a": ["calculator", "emt"], "c": ["calculator"]}
    assert load(flow).flows["f"].inputs == before.inputs
    edited = load(flow, calculator="{class: m.Calculator, kwargs: {model: small, cutoff: 6}}").flows["f"]
    assert edited.inputs != before.inputs
    assert [name for name in before.makers if before.makers[name] != edited.makers[name]] == [
        "calculator",
        "emt",
    ]
    other = load(flow, calculator=MAKERS["calculator"], spare="{class: m.Other}").flows["f"]
    assert other.inputs == before.inputs


def test_a_maker_may_use_files_of_the_repository(load: Load) -> None:
    state = load("{maker: {ref: reads}}", reads="{class: m.M, kwargs: {x: {$path: data/a.txt}}}")
    assert state.diagnostics == []
    assert [path for path, *_ in state.flows["f"].files] == ["data/a.txt"]


WRONG: dict[str, tuple[str, dict[str, str], str, str, str]] = {
    # id: (flow, Makers, code, place, part of the message or hint)
    "no such Maker": (
        "{maker: {ref: emtt}}", {}, "reference/unknown-maker", "flows/f.yaml:4:21", "'emt'"
    ),
    "no such Maker in arguments": (
        "{jobs: [{id: a, function: m.f, args: [{$maker: {ref: calc}}]}]}", {},
        "reference/unknown-maker", "flows/f.yaml:4:60", "no Maker 'calc'",
    ),
    "a Maker of a Maker": (
        "{maker: {ref: emt}}", {"emt": "{class: m.M, kwargs: {a: {$maker: {ref: nope}}}}"},
        "reference/unknown-maker", "makers/emt.yaml:4:47", "no Maker 'nope'",
    ),
    "itself": (
        "{maker: {ref: emt}}", {"emt": "{class: m.M, kwargs: {a: {$maker: {ref: emt}}}}"},
        "reference/cycle-of-makers", "makers/emt.yaml:3:18", "emt -> emt",
    ),
    "a reference to a job": (
        "{maker: {ref: new}}", {"new": "{class: m.M, kwargs: {a: {$output: x}}}"},
        "maker/reference", "makers/new.yaml:4:33", "make or in the kwargs",
    ),
    "a file that does not exist": (
        "{maker: {ref: new}}", {"new": "{class: m.M, kwargs: {a: {$path: data/b.txt}}}"},
        "reference/unknown-file", "flows/f.yaml:4:15", "data/b.txt",
    ),
    "class and ref": (
        "{maker: {ref: emt, class: m.M}}", {}, "schema/one-of", "flows/f.yaml:4:26", "exclude each other",
    ),
    "class and ref of a directive": (
        "{maker: {ref: emt, kwargs: {a: {$maker: {class: m.M, ref: emt}}}}}", {},
        "value/extra-key", "flows/f.yaml:4:60", "exclude each other",
    ),
    "neither": (
        "{maker: {ref: emt, kwargs: {a: {$maker: {}}}}}", {},
        "value/missing-key", "flows/f.yaml:4:39", "'ref'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("flow", "makers", "code", "place", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_at_its_place(
    load: Load, flow: str, makers: dict[str, str], code: str, place: str, text: str
) -> None:
    state = load(flow, **makers)
    assert [(problem.code, str(problem.location)) for problem in state.diagnostics] == [(code, place)]
    assert text in f"{state.diagnostics[0].message} {state.diagnostics[0].hint}"
    assert "f" not in state.flows
    assert "f" in state.invalid


def test_an_invalid_maker_stops_only_the_flows_that_use_it(load: Load, repository: Repository) -> None:
    flow = "{maker: {ref: emt}}"
    repository.write("flows/g.yaml", HEAD.format("Flow", "g", "{maker: {class: m.M}}"))
    assert set(load(flow).flows) == {"f", "g"}
    state = load(flow, calculator="{clas: m.Calculator}")
    assert set(state.flows) == {"g"}
    assert state.invalid == {"f": "the Maker 'calculator' is invalid in this revision"}
    repaired = load(flow, calculator=MAKERS["calculator"])
    assert set(repaired.flows) == {"f", "g"}


def test_rules_select_jobs_by_the_makers_of_their_entry(load: Load) -> None:
    flow = "{jobs: [{id: a, maker: {ref: emt}}, {id: b, function: m.f}, {id: c, maker: {ref: spare}}]}"
    state = load(flow, "{makers: [calc*], set: {priority: 3}}", spare="{class: m.Spare}")
    configs = FlowConfigs(state, state.flows["f"], {})
    (rule,) = state.rules
    keys = ["a", "a/relax 1", "b", "c"]
    assert [key for key in keys if rule.matches(configs.facts(key, key, "m.x"))] == ["a", "a/relax 1"]
    assert not rule.matches(configs.facts("a", "a", "m.x", generated=True))


def test_makers_are_listed_with_the_flows_that_use_them(load: Load) -> None:
    state = load("{maker: {ref: emt}}", spare="{class: m.Spare}")
    listed = [maker_data(state, state.manifests[f"Maker/{name}"]) for name in ("calculator", "emt", "spare")]
    assert [row["flows"] for row in listed] == [["f"], ["f"], []]
    assert listed[0]["kwargs"] == {"model": "small", "cutoff": 5}
    schema = json.loads((ROOT / "schemas/output/makers.schema.json").read_text(encoding="utf-8"))
    assert list(Draft202012Validator(schema).iter_errors(listed)) == []


def test_a_rule_for_a_maker_that_no_job_uses_is_a_warning(load: Load) -> None:
    state = load(
        "{jobs: [{id: b, function: m.f, args: [{$maker: {ref: emt}}]}]}",
        "{makers: [emtt], set: {priority: 3}}",
    )
    plan = make_plan(state, ActualState())
    (warning,) = [found for found in plan.diagnostics if found.code == "rule/matches-nothing"]
    assert str(warning.location) == "rules/r.yaml:4:17"
    assert "no job that it selects uses a Maker named 'emtt'" in warning.message
    assert "'emt'" in (warning.hint or "")
