"""A reference that leads nowhere is named as it is written, with its place and what the output is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.execution.support import World

pytestmark = pytest.mark.usefixtures("warm")


def last_line(world: World, path: str = "f/b") -> str:
    world.run()
    assert world.state(path) == "FAILED"
    return (world.job(path).error or "").splitlines()[-1]


def flow(world: World, value: Any, reference: str) -> None:
    a = {"id": "a", "function": "give", "args": [value]}
    b = {"id": "b", "function": "give", "args": [[{"$output": reference}]]}
    world.flow("f", a, b)
    world.reconcile()


@pytest.mark.parametrize(
    ("value", "reference", "reason"),
    [
        (5, "a.foo.bar", "the output of f/a is an int and has no 'foo'"),
        ({"x": {"y": 1}}, "a.x.z", "x in the output of f/a is a dict and has no 'z'"),
        ({"x": [1, 2]}, "a.x[7]", "x in the output of f/a is a list and has no 7"),
        ("text", "a[0].energy", "[0] in the output of f/a is a str and has no 'energy'"),
        (None, "a.structure", "the output of f/a is None and has no 'structure'"),
    ],
)
def test_what_is_missing_is_named(world: World, value: Any, reference: str, reason: str) -> None:
    flow(world, value, reference)
    assert last_line(world) == f"$output: {reference} (flows/f.yaml:5): {reason}"


def test_the_line_is_that_of_the_reference(world: World) -> None:
    world.yaml(
        "flows/f.yaml",
        """
        apiVersion: reconciler/v1
        kind: Flow
        metadata: {name: f}
        spec:
          jobs:
            - {id: a, function: simple_jobs.give, args: [5]}
            - id: b
              function: simple_jobs.give
              kwargs:
                value:
                  - {$output: a}
                  - {$output: a.energy}
        """,
    )
    world.reconcile()
    assert last_line(world).startswith("$output: a.energy (flows/f.yaml:13): the output of f/a is an int")


def test_a_job_of_another_flow(world: World) -> None:
    world.flow("e", {"id": "a", "function": "give", "args": [5]})
    world.flow("f", {"id": "b", "function": "give", "args": [{"$output": "e/a.energy"}]})
    world.reconcile()
    expected = "$output: e/a.energy (flows/f.yaml:5): the output of e/a is an int and has no 'energy'"
    assert last_line(world) == expected


def test_an_error_of_the_job_itself_stays(world: World) -> None:
    """An AttributeError that its own code raises is about no reference."""
    world.yaml(
        "lib/own.py",
        """
        from jobflow import job

        @job
        def fails(value):
            return value.nothing
        """,
    )
    a = {"id": "a", "function": "give", "args": [5]}
    world.flow("f", a, {"id": "b", "function": "own.fails", "args": [{"$output": "a"}]})
    world.reconcile()
    assert last_line(world) == "AttributeError: 'int' object has no attribute 'nothing'"
