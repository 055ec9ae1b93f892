"""Flows of makers, updates, schemas, stores, references and settings of jobs, one function a kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

import simple_jobs
from jobflow import CURRENT_JOB, Flow, Job, JobOrder, Maker, OnMissing, Response, flow, job
from jobflow.core.job import store_inputs
from jobflow.core.reference import OutputReference, ResolvedReference
from pydantic import BaseModel
from response_flows import adds, detours, plus, replace_by_flow, replace_by_job, returns_a_job, show

FLOWS = (
    "maker", "nested_makers", "maker_that_replaces_by_makers", "maker_of_a_flow", "kwargs_updated",
    "maker_kwargs_updated", "metadata_updated_by_filters", "only_present_jobs_updated", "names_prepended",
    "configs_updated", "schema", "schema_refuses", "schema_of_a_flow", "kept_apart_whole",
    "kept_apart_by_key", "kept_apart_by_class", "inputs_stored", "references_unresolved",
    "references_resolved_and_not",
    "missing_further_up", "missing_in_replacement", "missing_inside", "store_exposed", "flow_outputs",
    "linear", "decorated", "builtins", "odd_values", "twins",
)  # fmt: skip
"""What each of them is about, as a name of a function below."""


class Unit(Enum):
    EV = "eV"
    RY = "Ry"


# makers -----------------------------------------------------------------------------------------------


@dataclass
class Add(Maker):
    name: str = "add"
    number: float = 10

    @job
    def make(self, a: float) -> float:
        return a + self.number


@dataclass
class AddTwice(Maker):
    name: str = "add twice"
    first: Maker = field(default_factory=Add)
    second: Maker = field(default_factory=lambda: Add("second", 1))

    def make(self, a: Any) -> Flow:
        one = self.first.make(a)
        two = self.second.make(one.output)
        return Flow([one, two], output=two.output, name=self.name)


@dataclass
class Hands(Maker):
    """Hand over to another maker, as a job that is replaced."""

    name: str = "hands"
    to: Maker = field(default_factory=AddTwice)

    @job
    def make(self, a: float) -> Response:
        return Response(replace=self.to.make(a))


@job
def makes(maker: Maker, a: float) -> Response:
    return Response(replace=maker.make(a), detour=maker.make(-a))


def _with_child(first: Any) -> Flow:
    return Flow([first, show(first.output)])


def maker() -> Flow:
    return _with_child(Add(number=3).make(1))


def nested_makers() -> Flow:
    return _with_child(AddTwice(first=Add(number=2)).make(1))


def maker_that_replaces_by_makers() -> Flow:
    return _with_child(Hands(to=Hands("inner", Hands("innermost"))).make(1))


def maker_of_a_flow() -> Flow:
    return _with_child(makes(AddTwice(), 5))


def kwargs_updated() -> Flow:
    made = Flow([simple_jobs.give(value=1), simple_jobs.give(value=2), plus(a=1, b=1)])
    made.update_kwargs({"value": 3}, function_filter=simple_jobs.give(value=0).function)
    made.update_kwargs({"_set": {"b": 5}}, name_filter="plus", dict_mod=True)
    return made


def maker_kwargs_updated() -> Flow:
    """Also in makers that stand in makers and in arguments, for what these make later."""
    made = Flow([Hands(to=Hands("inner")).make(1), makes(AddTwice(), a=2), makes(maker=Add(), a=3)])
    made.update_maker_kwargs({"number": 100}, class_filter=Add, name_filter="add")
    made.update_maker_kwargs({"number": -1}, name_filter="second", nested=False)
    return made


# updates ----------------------------------------------------------------------------------------------


def metadata_updated_by_filters() -> Flow:
    made = Flow([_with_child(replace_by_flow(1)), adds(2), detours(3)])
    made.update_metadata({"all": True})
    made.update_metadata({"tags": ["late"]}, name_filter="plus")
    made.update_metadata({"_set": {"by": "function"}}, function_filter=plus, dict_mod=True)
    made.update_metadata({"only": "these"}, callback_filter=is_show)
    return made


def is_show(one: Job | Flow) -> bool:
    return one.name == "show"


def only_present_jobs_updated() -> Flow:
    made = _with_child(replace_by_flow(1))
    made.update_metadata({"present": 1}, dynamic=False)
    made.append_name(" now", dynamic=False)
    return made


def names_prepended() -> Flow:
    made = Flow([_with_child(replace_by_job(1)), detours(1)])
    made.append_name("my ", prepend=True)
    made.append_name("!")
    return made


@job
def gives_what_is_missing() -> Response:
    broken = simple_jobs.fails("so that something is missing")
    return Response(addition=Flow([broken, show_type(broken.output)]))


@job
def show_type(value: Any) -> str:
    return type(value).__name__


def configs_updated() -> Flow:
    """How generated jobs take their references, decided from outside."""
    made = Flow([gives_what_is_missing(), replace_by_flow(1)])
    made.update_config({"on_missing_references": OnMissing.NONE}, name_filter="show_type")
    made.update_config({"_set": {"expose_store": True}}, function_filter=plus, dict_mod=True)
    return made


# schemas ----------------------------------------------------------------------------------------------


class Cell(BaseModel):
    edges: list[float]
    unit: Unit = Unit.EV

    @property
    def volume(self) -> float:
        product = 1.0
        for edge in self.edges:
            product *= edge
        return product


class Crystal(BaseModel):
    name: str
    cell: Cell


@job(output_schema=Crystal)
def crystal(edges: list[float]) -> Any:
    return Crystal(name="salt", cell=Cell(edges=edges))


@job(output_schema=Crystal)
def crystal_as_dict(edges: Any) -> dict[str, Any]:
    return {"name": "salt", "cell": {"edges": edges, "unit": "Ry"}}


@job(output_schema=Crystal)
def hands_over_crystal(edges: list[float]) -> Response:
    return Response(replace=Flow([one := crystal(edges)], output={"name": "new", "cell": one.output.cell}))


def schema() -> Flow:
    one = crystal([1.0, 2.0])
    two = crystal_as_dict(one.output.cell.edges)
    return Flow([one, two, show(one.output.cell.volume, two.output.cell, two.output.cell.unit)])


def schema_refuses() -> Flow:
    wrong = crystal_as_dict("no list")
    return Flow([wrong, show(wrong.output.name)])


def schema_of_a_flow() -> Flow:
    """What a flow gives are references, so no flow can take the place of a job with a schema."""
    one = hands_over_crystal([2.0, 2.0])
    return Flow([one, show(one.output.cell.volume, one.output.name)])


# additional stores ------------------------------------------------------------------------------------


@job(data=True)
def whole(n: int) -> list[int]:
    return list(range(n))


@job(data=["grid", "deep"])
def by_key(n: int) -> dict[str, Any]:
    return {"grid": [n] * 3, "in": [{"deep": n}, {"deep": n + 1}], "light": n}


@job(data=Cell)
def by_class(edges: list[float]) -> dict[str, Any]:
    return {"cells": [Cell(edges=edges), Cell(edges=[1.0])], "light": 1}


@job(data="grid")
def replaced_by_key(n: int) -> Response:
    inner = by_key(n)
    return Response(replace=Flow([inner], output={"grid": inner.output["grid"], "of": inner.output["in"]}))


def kept_apart_whole() -> Flow:
    first = whole(4)
    return Flow([first, simple_jobs.total(first.output), show(first.output[1])])


def kept_apart_by_key() -> Flow:
    first, second = by_key(4), replaced_by_key(5)
    return Flow([first, second, show(first.output["in"][1]["deep"], second.output["grid"])])


def kept_apart_by_class() -> Flow:
    first = by_class([2.0])
    return Flow([first, show(first.output["cells"][0], first.output["light"])])


# references -------------------------------------------------------------------------------------------


def inputs_stored() -> Flow:
    first = simple_jobs.give({"a": [1, 2]})
    kept = store_inputs({"all": first.output, "one": first.output["a"][0]})
    return Flow([first, kept, show(kept.output), store_inputs([1, "two", None])])


@job
def tell_references(*values: Any) -> list[Any]:
    """Tell what came in place of each argument, and pass the references on."""
    told: list[Any] = []
    for value in values:
        if isinstance(value, ResolvedReference):
            told.append({"value": value.value, "at": list(value.attributes), "again": value.reference})
        elif isinstance(value, OutputReference):
            told.append({"at": list(value.attributes), "again": value})
        else:
            told.append(value)
    return told


def references_unresolved() -> Flow:
    first = simple_jobs.give({"a": 1})
    second = tell_references(first.output, first.output["a"], 5)
    second.config.resolve_references = False
    return Flow([first, second, show(second.output)])


def references_resolved_and_not() -> Flow:
    first = simple_jobs.give({"a": {"b": 1}})
    second = tell_references(first.output, first.output["a"]["b"], [first.output], 5)
    second.config.resolve_references = "both"
    return Flow([first, second, show(second.output)])


def missing_further_up() -> Flow:
    """Who needs a job that needs a failed one, and does not mind, gets the same as from the failed one."""
    broken = simple_jobs.fails("at the top")
    between = [show(broken.output)]
    between.append(show(between[0].output))
    last = [show_type(between[-1].output), show_type(between[-1].output)]
    for one, mode in zip(last, (OnMissing.NONE, OnMissing.PASS), strict=True):
        one.config.on_missing_references = mode
    return Flow([broken, *between, *last])


@job
def replaced_by_a_failure() -> Response:
    good, bad = simple_jobs.give(1), simple_jobs.fails("in the replacement")
    return Response(replace=Flow([good, bad], output=[good.output, bad.output]))


def missing_in_replacement() -> Flow:
    """Only part of an output is there: who minds does not run, who does not mind gets the rest."""
    first = replaced_by_a_failure()
    minds, does_not = show(first.output), show(first.output)
    does_not.config.on_missing_references = OnMissing.NONE
    return Flow([first, minds, does_not])


def missing_inside() -> Flow:
    """In one of several arguments, deep inside of it."""
    good, bad = simple_jobs.give([1]), simple_jobs.fails("one of two")
    last = show({"good": [good.output, {"bad": bad.output}]}, good.output[0])
    last.config.on_missing_references = OnMissing.NONE
    return Flow([good, bad, last])


@job
def uses_store(of: ResolvedReference) -> Any:
    store = CURRENT_JOB.store
    return {"same": store.get_output(of.uuid) == of.value, "kept": store.count({"uuid": of.uuid})}


def store_exposed() -> Flow:
    first = simple_jobs.give({"a": 1})
    second = uses_store(first.output)
    second.update_config({"expose_store": True, "resolve_references": "both"})
    return Flow([first, second])


# flows ------------------------------------------------------------------------------------------------


def flow_outputs() -> Flow:
    """What flows give is used by jobs and by flows around them."""
    one, two = plus(1, 1), plus(2, 2)
    inner = Flow([one, two], output={"both": [one.output, two.output]}, name="inner")
    third = replace_by_flow(inner.output["both"][1])
    middle = Flow([inner, third], output=[third.output, inner.output], name="middle")
    return Flow([middle, show(middle.output), show(middle.output[0])], output=middle.output)


def linear() -> Flow:
    """Jobs that wait for each other though they use nothing of each other."""
    inner = Flow([replace_by_flow(1), detours(2)], order=JobOrder.LINEAR)
    return Flow([inner, adds(3), show(4)], order=JobOrder.LINEAR)


@flow
def _written_as_function(a: int) -> Any:
    one = plus(a, 1)
    two = returns_a_job(one.output)
    return {"sum": plus(one.output, two.output).output, "one": one.output}


def decorated() -> Flow:
    made = _written_as_function(1)
    return Flow([made, show(made.output)])


class Static:
    @staticmethod
    @job
    def twice(a: int) -> int:
        return 2 * a


def builtins() -> Flow:
    first = Job(function=sum, function_args=([1, 2, 3],))
    return Flow([first, Static.twice(first.output), Job(dict, function_kwargs={"a": first.output})])


@job
def odd(**values: Any) -> dict[str, Any]:
    return {"again": values, "kinds": {key: type(value).__name__ for key, value in values.items()}}


def odd_values() -> Flow:
    first = odd(
        unit=Unit.RY, when=datetime(2024, 2, 29, 12), none=None, nan=float("nan"), big=2**62,
        text="ä\n\t'\"$", cell=Cell(edges=[1.0]), empty={}, many={"1": [[], {}]},
    )  # fmt: skip
    return Flow([first, odd(again=first.output["again"]["unit"], when=first.output["again"]["when"])])


def twins() -> Flow:
    """Equal jobs are different jobs."""
    same = [replace_by_flow(1), replace_by_flow(1), plus(1, 1), plus(1, 1)]
    return Flow([*same, show(*[one.output for one in same])])
