"""What a job is given arrives on its worker as it is, or the build of its flow says why it does not."""

from __future__ import annotations

import datetime
import functools
import json
import math
import traceback
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobflow import Job

from reconciler.build.round_trip import PayloadError, check_payload
from reconciler.execution.launcher import bytes_as_json, job_json, json_with_bytes, load_job
from tests.build import payloads
from tests.build.payloads import (
    AddMaker,
    Cell,
    Colour,
    Grown,
    Labelled,
    Letter,
    Level,
    Line,
    Outer,
    Point,
    Sheet,
    add,
    adding,
    double,
    local_class,
    local_function,
    logged,
    tell,
)


def _trip(job: Job) -> Job:
    """Return a job as its launcher reads it."""
    return load_job(json_with_bytes(json.dumps(job_json(job), default=bytes_as_json)), "w")[0]


ARRIVE: dict[str, Any] = {
    "plain": [None, True, 1, -0.0, 2**80, "text", {"a": [1.5, {}]}],
    "not numbers": [math.nan, math.inf, -math.inf],
    "bytes": [b"", bytes(range(256)), {"a": b"x"}],
    "tuples": [(), (1, (2, [3])), {"a": (1,)}],
    "keys as given": [{1: "a", (2, 3): "b", 2.5: "c", None: "d", False: 4}, {Letter.A: {Level.LOW: 1}}],
    "enums": [*Colour, Letter.A, Level.LOW, {"deep": [Colour.BLUE]}],
    "times": [
        datetime.datetime(2024, 2, 29, 12, 30, 15, 7),
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
    ],
    "names": [Path("/a/b"), uuid.uuid4()],
    "arrays": [np.eye(2), np.arange(3), np.array([1, math.nan]), np.array(["a"]), np.float32([0.1])],
    "arrays of objects": [np.array([1, "a", None], dtype=object)],
    "scalars": [np.float64(0.1), np.float32(0.1), np.float16(0.1), np.int64(3), np.int8(3), np.uint64(2**63)],
    "models": [Point(x=1, tags={1: "one"}), Line(points=[Point(x=math.nan)])],
    "objects": [Cell([1.0, 2.0], Cell((3, 4), Colour.RED)), Cell(np.eye(2), {"x": Point(x=1)})],
    "objects that write themselves": [Grown([1.5, "a"])],
    "objects that write themselves as a subclass": [Sheet([1.5, "a"]), {"a": [Sheet([])]}],
    "makers": [AddMaker(), AddMaker(numbers=[3], function=double), AddMaker(function=AddMaker(name="in"))],
    "functions": [double, len, math.sqrt, np.sqrt, payloads.wrapped_in_place, payloads.scale],
    "jobs": [payloads.decorated],
    "methods": [Cell([1, 5]).longest, Outer.doubled, AddMaker().make],
    "classes": [Cell, Point, Colour, dict],
}  # fmt: skip


@pytest.mark.parametrize("values", ARRIVE.values(), ids=ARRIVE)
def test_it_arrives(values: list[Any]) -> None:
    job = Job(tell, function_args=tuple(values), function_kwargs={"named": values})
    check_payload(job)
    back = _trip(job)
    assert back.function(*back.function_args, **back.function_kwargs) == tell(*values, named=values)


@pytest.mark.parametrize(
    "function",
    [
        double, len, np.sqrt, payloads.decorated, payloads.wrapped_in_place, payloads.scale, Outer.doubled,
        Cell([1, 5]).longest, AddMaker(numbers=(4, 5)).make, AddMaker.make, math.sqrt,
    ],
)  # fmt: skip
def test_the_function_of_a_job_arrives(function: Any) -> None:
    job = Job(function, name="f")
    check_payload(job)
    assert type(_trip(job).function) is type(job.function)


def test_what_extends_a_plain_type_arrives_as_an_equal_value() -> None:
    values = [OrderedDict(a=1), np.str_("a"), np.bool_(True), type("Text", (str,), {})("t")]
    job = Job(tell, function_args=(values,))
    check_payload(job)
    assert _trip(job).function_args == (values,)


def test_a_mapping_that_describes_an_object_arrives_as_the_object() -> None:
    values = [Cell([1.0]).as_dict(), {"@module": "builtins", "@callable": "len"}]
    job = Job(tell, function_args=tuple(values))
    check_payload(job)
    cell, function = _trip(job).function_args
    assert (cell.edges, function) == ([1.0], len)


def _closure() -> Any:
    return logged(double)


FUNCTIONS = {
    "partial that looks like another": lambda: adding(5),
    "wrapped closure": _closure,
    "lambda": lambda: lambda x: x,
    "named lambda": lambda: functools.update_wrapper(lambda x: x, double),
    "local function": lambda: local_function(4),
    "method of a local class": lambda: local_class()(1).as_dict,
    "method of an object with a partial": lambda: AddMaker(function=adding(5)).make,
    "method of a nested class": lambda: Outer.Inner(1).as_dict,
    "another object of that name": lambda: payloads.Scale(3),
    "method of text": lambda: "abc".upper,
}


@pytest.mark.parametrize("make", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("where", ["function", "args", "kwargs", "deep", "in an object", "in a maker"])
def test_a_function_that_does_not_arrive_is_refused(make: Any, where: str) -> None:
    function = make()
    job = {
        "function": lambda: Job(function, name="sum"),
        "args": lambda: Job(tell, function_args=(1, function), name="sum"),
        "kwargs": lambda: Job(tell, function_kwargs={"how": function}, name="sum"),
        "deep": lambda: Job(tell, function_args=([{"a": (function,)}],), name="sum"),
        "in an object": lambda: Job(tell, function_args=(Cell([1], [function]),), name="sum"),
        "in a maker": lambda: Job(AddMaker(function=function).make, function_args=(1,), name="sum"),
    }[where]()
    with pytest.raises(PayloadError) as caught:
        check_payload(job)
    place = {"function": "function", "kwargs": "kwargs/how", "args": "args/1", "in a maker": "function"}
    assert caught.value.place == place.get(where, "args/0")
    assert caught.value.message.startswith("the job 'sum' cannot be sent to a worker: ")
    if make is FUNCTIONS["method of text"] and where.startswith("in"):
        return  # the object cannot be read, so the message does not know which part of it
    named = {"function": "its function", "args": "args[1]", "kwargs": "kwargs.how", "deep": "args[0][0].a[0]"}
    named |= {"in an object": "args[0].inner[0]", "in a maker": "its function.__self__.function"}
    assert named[where] in caught.value.message
    assert caught.value.hint


VALUES = {
    "empty array with a shape": lambda: np.zeros((0, 3)),
    "structured array": lambda: np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
    "object with a short float": lambda: Cell(np.float32(0.1)),
    "model in a field of its base": lambda: Line(points=[Labelled(x=1, label="lost")]),
    "object that writes itself as a subclass and loses something": lambda: payloads.Scrap([1]),
    "object with an entry that is not written": payloads.noted,
    "object of a local class": lambda: local_class()(1),
    "object of a nested class": lambda: Outer.Inner(1),
    "object with numbers as keys": lambda: Cell({1: 2.0}),
    "our form of a tuple": lambda: {"@tuple": [1, 2]},
    "our form of bytes": lambda: {"@bytes": "aGk="},
    "our form of a file": lambda: "reconciler-file:abc/x",
    "local class": local_class,
}


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_a_value_that_does_not_arrive_is_refused(make: Any) -> None:
    for value, place in ((make(), ""), ([1, {"in": make()}], "[1].in")):
        job = Job(tell, function_args=(value,), name="sum")
        with pytest.raises(
            PayloadError, match=r"^the job 'sum' cannot be sent to a worker: args\[0\]"
        ) as caught:
            check_payload(job)
        assert f"args[0]{place}" in caught.value.message


def test_an_output_schema_that_does_not_arrive_is_refused() -> None:
    schema = type("Local", (Point,), {"__module__": __name__})
    with pytest.raises(PayloadError, match="its output schema is the class"):
        check_payload(Job(tell, output_schema=schema))


_ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=9)
    | st.sampled_from([*Colour, Level.LOW, double, len, Outer.doubled, Cell, Path("/a"), np.eye(2)])
    | st.sampled_from([adding(2), _closure(), local_function(1), payloads.scale, payloads.Scale(7)])
    | st.builds(np.float32, st.floats(width=32)) | st.builds(np.int16, st.integers(-5, 5))
    | st.sampled_from(["@tuple", "@map", "@bytes", "@number", "@module", "reconciler-file:x"])
)  # fmt: skip
_KEYS = (
    st.text(max_size=3)
    | st.integers()
    | st.tuples(st.booleans())
    | st.sampled_from(["@tuple", "@map", "@bytes"])
)
_VALUES = st.recursive(
    _ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_KEYS, inner, max_size=3)
        | st.builds(Cell, inner, inner)
        | st.builds(AddMaker, numbers=st.lists(st.integers(), max_size=2), function=inner)
        | st.builds(lambda x: Cell([x]).longest, st.integers())
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_VALUES, max_size=2), st.dictionaries(st.text(min_size=1, max_size=3), _VALUES, max_size=1))
def test_each_payload_arrives_or_is_refused(args: list[Any], kwargs: dict[str, Any]) -> None:
    """A job computes on its worker what it computes here, unless its flow is not built."""
    try:
        job = Job(tell, function_args=tuple(args), function_kwargs=kwargs, name="any")
        check_payload(job)
    except PayloadError as error:
        assert error.hint and error.message.startswith("the job 'any' cannot be sent to a worker: ")
        return
    except Exception as error:  # jobflow itself does not take it
        assert traceback.extract_tb(error.__traceback__)[-1].filename.endswith(("json.py", "job.py"))
        return
    back = _trip(job)
    assert back.function(*back.function_args, **back.function_kwargs) == tell(*args, **kwargs)


def test_a_bound_argument_counts_in_identity() -> None:
    from reconciler.build.identity import identify

    def uuids(made: Job) -> list[str]:
        return [item.uuid for item in identify(made, str(uuid.UUID(int=0)), {}, {}, [])]

    def both(edges: list[float]) -> list[list[str]]:
        method = Cell(edges).longest
        return [uuids(Job(method, name="m")), uuids(Job(tell, function_args=(method,), name="m"))]

    assert both([1.0]) == both([1.0])
    assert all(one != other for one, other in zip(both([1.0]), both([2.0]), strict=True))
    assert uuids(Job(add, function_args=((1, 2),))) != uuids(Job(add, function_args=([1, 2],)))
