"""Thousands of jobs that wait for each other, in a chain and in a mesh: who does not mind goes on in time."""

from __future__ import annotations

import time

import pytest

from reconciler.jobs.dependencies import MissingResults
from reconciler.model.states import JobState
from tests.jobs.bench import Bench, new_job

SECONDS = 3.0
"""Tenths of a second are enough; without memory it takes years, or more stack than there is."""

CHAIN = {"0": [], **{str(n): [str(n - 1)] for n in range(1, 3000)}}
MESH = {
    "0": [],
    **{f"s{n}-{m}": [f"s{n - 1}-{k}" for k in range(4)] if n else ["0"] for n in range(40) for m in range(4)},
}


@pytest.mark.parametrize(("jobs", "last"), [(CHAIN, ["2999"]), (MESH, [f"s39-{m}" for m in range(4)])])
def test_who_does_not_mind_waits_for_the_end_and_goes_on_after_a_failure(
    bench: Bench, jobs: dict[str, list[str]], last: list[str]
) -> None:
    bench.flow("f", jobs)
    bench.flow("g", {str(n): [f"f/{key}" for key in last] for n in range(20)} | {"minds": [f"f/{last[0]}"]})
    for number in range(20):
        bench.edit(f"g/{number}", on_missing="none")
    bench.start("f/0")
    begun = time.monotonic()
    bench.end("f/0", error="no luck")
    assert time.monotonic() - begun < SECONDS
    assert set(bench.states(*(f"g/{n}" for n in range(20)))) == {"READY"}
    assert bench.states("g/minds") == ["WAITING"]


def test_nobody_is_lost_as_long_as_the_first_one_may_run(bench: Bench) -> None:
    bench.flow("f", CHAIN | {"round": ["2999", "round"]})
    bench.flow("m", MESH)
    begun = time.monotonic()
    with bench.store.read() as view:
        lost = MissingResults(view)
        assert not any(lost.has(f"m-{key}") or lost.has(f"m-{key}") for key in MESH)
        assert not lost.has("f-round")
    assert time.monotonic() - begun < SECONDS


def test_what_is_lost_is_what_needs_it(bench: Bench) -> None:
    bench.flow("f", {"a": [], "b": ["a"], "c": ["b"], "d": ["c", "x"], "x": [], "y": ["x"], "z": ["y", "b"]})
    bench.edit("f/c", on_missing="pass")
    bench.edit("f/a", state=JobState.FAILED)
    with bench.store.read() as view:
        for keys in ("abcdxyz", "zyxdcba", "dzbyaxc"):
            lost = MissingResults(view)
            assert {key for key in keys if lost.has(f"f-{key}")} == {"a", "b", "z"}
            assert {key for key in keys if lost.has(f"f-{key}")} == {"a", "b", "z"}
    bench.edit("f/c", state=JobState.READY)


def test_a_long_detour_that_stops_its_children(bench: Bench) -> None:
    """Who waits for the detour goes on without the 2,000 jobs of it that were stopped."""
    bench.flow("f", {"a": [], "b": ["a"]})
    bench.start("f/a")
    chain = [new_job(f"u{n}", name=f"n{n}", parents=[f"u{n - 1}"] if n else []) for n in range(2000)]
    bench.end("f/a", detour=chain)
    assert bench.job("f/b").parents == ["f-a", "u1999"]
    bench.start("f/n0")
    begun = time.monotonic()
    bench.end("f/n0", stop_children=True)
    assert time.monotonic() - begun < 2 * SECONDS
    assert bench.states("f/n1", "f/n1999", "f/b") == ["STOPPED", "STOPPED", "READY"]
    assert bench.job("f/b").parents == ["f-a", "u0"]
