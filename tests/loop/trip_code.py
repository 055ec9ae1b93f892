"""User code of the round-trip tests: everything that jobflow accepts in a flow, one factory each.

The tests write this file into a repository as ``lib/trip.py``, and import it from there as well, to run the
same flows with ``jobflow.run_locally``.
"""

from __future__ import annotations

import datetime
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import jobflow
import numpy as np
from jobflow import CURRENT_JOB, Flow, Job, JobConfig, JobOrder, Maker, OnMissing, Response
from monty.json import MSONable
from pydantic import BaseModel

from reconciler.examples import add, add_distributed, multiply, value

job: Any = jobflow.job
flow: Any = jobflow.flow


class Colour(Enum):
    RED = "red"
    BLUE = 3


class Point(BaseModel):
    x: float
    y: float = 0.0


class Line(BaseModel):
    points: list[Point]
    colour: Colour = Colour.RED


class Cell(MSONable):  # type: ignore[misc]
    def __init__(self, edges: list[float], inner: Cell | None = None) -> None:
        self.edges = edges
        self.inner = inner


def shape(thing: Any) -> Any:
    """Say what a value is, type by type, so that a type that got lost on the way is seen."""
    if isinstance(thing, dict):
        return {str(key): shape(inner) for key, inner in thing.items()}
    if isinstance(thing, list | tuple):
        return [shape(inner) for inner in thing]
    if isinstance(thing, np.ndarray):
        return ["ndarray", str(thing.dtype), list(thing.shape), str(thing.tolist())]
    if isinstance(thing, Cell):
        return ["Cell", thing.edges, shape(thing.inner)]
    return [type(thing).__name__, str(thing)]


@job
def shapes(*things: Any, **named: Any) -> Any:
    return {"args": shape(things), "kwargs": shape(named)}


class Summary(BaseModel):
    total: float
    parts: list[float]
    origin: Point


@job(output_schema=Summary)
def summarise(*parts: float) -> Summary:
    return Summary(total=sum(parts), parts=list(parts), origin=Point(x=parts[0]))


@job(data="field")
def heavy(size: int) -> dict[str, Any]:
    return {"field": list(range(size)), "light": size}


@job(graphs=True)
def wholly_heavy(numbers: list[int]) -> dict[str, Any]:
    return {"nodes": len(numbers)}


@job
def use_heavy(whole: dict[str, Any], numbers: list[int], nodes: int) -> Any:
    return {"sum": sum(numbers), "same": whole["field"] == numbers, "nodes": nodes}


@job
def is_reference(thing: Any) -> str:
    return type(thing).__name__


@job
def look_into_store() -> Any:
    store = CURRENT_JOB.store
    return {"has_store": store is not None, "own_name": CURRENT_JOB.job.name}


@job
def apply(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@job
def read(path: str) -> Any:
    return {"text": Path(path).read_text(), "name": Path(path).name, "here": Path.cwd() in Path(path).parents}


def load_text(path: str) -> str:
    """Used with $call while the flow is built."""
    return Path(path).read_text()


class Maths:
    factor = 3

    @staticmethod
    def plain_square(x: float) -> float:
        return x * x

    @classmethod
    def plain_scaled(cls, x: float) -> float:
        return cls.factor * x

    @job
    @classmethod
    def scaled(cls, x: float) -> float:
        return cls.factor * x

    @job
    @staticmethod
    def square(x: float) -> float:
        return x * x

    class Inner:
        @staticmethod
        def negate(x: float) -> float:
            return -x


@dataclass
class PairMaker(Maker):  # type: ignore[misc]
    name: str = "pair"
    first: Maker | None = None
    numbers: list[int] = field(default_factory=lambda: [1, 2])

    @job
    def make(self, a: float) -> Any:
        return [a, *self.numbers, self.first.name if self.first else None]


def nested() -> Flow:
    inner_first = value(2)
    inner_second = add(inner_first.output, 3)
    inner_second.name = "inner add"
    inner = Flow([inner_first, inner_second], output=inner_second.output, name="inner")
    last = multiply_job(inner.output, 10)
    alone = Flow([Flow([value(7)], name="deep")], name="middle")
    alone.jobs[0].jobs[0].name = "deep value"
    return Flow([inner, last, alone], output={"all": [last.output]}, name="outer")


def multiply_job(a: Any, b: Any) -> Job:
    return Job(multiply, function_args=(a, b), name="times")


def linear() -> Flow:
    jobs = [clock(number) for number in range(3)]
    for number, one in enumerate(jobs):
        one.name = f"step {number}"
    return Flow(jobs, order=JobOrder.LINEAR, name="linear")


@job
def clock(number: int) -> int:
    with Path(os.environ["TRIP_LOG"]).open("a") as log:
        log.write(f"{number}\n")
    return number


def arguments() -> Job:
    made = shapes(
        Point(x=1.5), Line(points=[Point(x=1), Point(x=2, y=3)], colour=Colour.BLUE),
        Cell([1.0, 2.0], Cell([3.0])), Colour.RED, {"deep": [Colour.BLUE]},
        np.array([[1.0, 2.0], [3.0, 4.0]]), np.arange(3),
        datetime.datetime(2024, 2, 29, 12, 30), Path("/a/b"), None, True, 2**70, "text", 1e300,
        array={"inner": [np.eye(2)]}, empty={}, nothing=[],
    )  # fmt: skip
    made.name = "arguments"
    return made


def schema() -> Flow:
    first = summarise(1, 2, 3)
    second = add(first.output.total, first.output.parts[1])
    second.name = "from schema"
    third = shapes(first.output.origin)
    third.name = "whole"
    return Flow([first, second, third])


def settings() -> Flow:
    first = value(1)
    first.metadata = {"tags": ["a"], "nested": {"b": 1}}
    raw = is_reference(first.output)
    raw.config = JobConfig(resolve_references=False)
    looking = look_into_store()
    looking.config = JobConfig(expose_store=True, manager_config={"priority": 7})
    lenient = is_reference(first.output)
    lenient.name = "lenient"
    lenient.config = JobConfig(on_missing_references=OnMissing.NONE)
    made = Flow([first, raw, looking, lenient], name="settings")
    made.update_metadata({"campaign": "trip"})
    made.append_name(" (v1)")
    return made


def stores() -> Flow:
    first = heavy(5)
    second = wholly_heavy(first.output["field"])
    third = use_heavy(first.output, first.output["field"], second.output["nodes"])
    return Flow([first, second, third])


@flow
def decorated(a: int) -> Any:
    first = add(a, 1)
    second = add(first, 2)
    second.name = "second"
    return second.output


def updates() -> Flow:
    made = Flow([add_distributed([1, 2])], name="updates")
    made.update_metadata({"mark": "dynamic"}, dynamic=True)
    made.append_name("!", dynamic=True)
    return made


@job
def ask_for_more(n: int) -> Any:
    more = add(n, 1)
    more.name = "more"
    return Response(output=n, addition=more)


def single() -> Job:
    return ask_for_more(4)


def several() -> list[Job]:
    first = value(11)
    second = add(first.output, 1)
    return [first, second]


def methods() -> Flow:
    calls = [
        Job(Maths.plain_square, function_args=(3,), name="plain static"),
        Maths.scaled(3),
        Maths.square(4),
        Job(Maths.Inner.negate, function_args=(5,), name="inner static"),
    ]
    return Flow(calls)


def callables() -> Flow:
    made = [apply(multiply, 6, 7), apply(len, [1, 2, 3]), apply(Maths.plain_scaled, 2), apply(np.sqrt, 9.0)]
    for number, one in enumerate(made):
        one.name = f"apply {number}"
    return Flow(made)


def makers() -> Flow:
    first = PairMaker(first=PairMaker(name="inner")).make(1.0)
    return Flow([first, PairMaker(name="other", numbers=[5]).make(first.output[0])])


@job
def exactly(*things: Any) -> Any:
    """Tell tuples from lists, and keys that are numbers from text."""
    return repr(things)


@job
def raw(data: bytes) -> Any:
    """Return bytes, ask for a job that gets bytes, and leave bytes as stored data."""
    more = exactly(data, (1,))
    more.name = "generated"
    return Response({"raw": data[::-1]}, addition=more, stored_data={"raw": data})


def exact() -> Flow:
    first = raw(bytes(range(256)))
    second = exactly((1, [2, (3,)]), {1: "a", (2, 3): b"b"}, first.output["raw"], np.float32(0.1), b"")
    return Flow([first, second])


@job
def from_elsewhere(given: int) -> Any:
    """Use code of another directory of ``python_path``, which nothing in the repository names."""
    return given + importlib.import_module("_".join(["trip", "tools"])).NUMBER


def elsewhere() -> Any:
    return from_elsewhere(importlib.import_module("_".join(["trip", "tools"])).NUMBER)


FACTORIES: dict[str, Callable[..., Any]] = {
    "nested": nested, "linear": linear, "arguments": arguments, "schema": schema, "settings": settings,
    "stores": stores, "updates": updates, "single": single, "several": several, "methods": methods,
    "callables": callables, "makers": makers, "exact": exact,
    "elsewhere": elsewhere,
}  # fmt: skip
