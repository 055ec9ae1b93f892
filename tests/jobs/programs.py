"""Random programs for ``random_flows``: nested flows whose jobs ask for more, of bounded depth and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Program = dict[str, Any]

DEPTH = 3
"""Generations that a job can have below it."""

OUTPUTS = st.sampled_from([None, "first", "last", "list", "dict"])
"""What a flow gives."""

GENERATE = ("replace", "detour", "addition")


@dataclass(frozen=True)
class Style:
    """What a job may ask for in one response, the orders of flows, and the forms of a replacement."""

    asks: list[list[str]]
    orders: list[str]
    forms: list[str]


FREE = Style(
    asks=[
        ["replace"], ["detour"], ["addition"], ["stored_data"], ["stop_children"],
        ["detour", "addition"], ["replace", "detour"], ["replace", "addition"],
        ["replace", "stop_children"], ["detour", "stop_children"],
        ["replace", "detour", "addition", "stored_data"],
    ],
    orders=["auto", "auto", "auto", "linear"],
    forms=["flow", "flow", "list", "dict", "job"],
)  # fmt: skip

IN_LINE = Style(
    asks=[
        ["replace"], ["detour"], ["stop_children"], ["replace", "stop_children"],
        ["detour", "stop_children"], ["stop_jobflow"], ["detour", "stop_jobflow", "stored_data"],
    ],
    orders=["linear"],
    forms=["flow", "job"],
)  # fmt: skip
"""One job after the other: what has run when the flow is stopped does not depend on who was faster."""


@st.composite
def programs(draw: st.DrawFn, style: Style = FREE, most: int = 4) -> Program:
    """A flow of up to ``most`` jobs, each with a name that tells its place."""
    program: Program = draw(_flows(style, DEPTH, most, may_fail=True))
    program["updates"] = draw(st.lists(st.sampled_from(["metadata", "name", "hidden metadata"]), max_size=2))
    _name(program, "")
    return program


@st.composite
def _flows(draw: st.DrawFn, style: Style, depth: int, most: int, *, may_fail: bool) -> Program:
    jobs: list[Program] = []
    for place in range(draw(st.integers(1, most))):
        if depth > 0 and draw(st.integers(0, 7)) == 7:
            jobs.append(draw(_flows(style, depth - 1, 2, may_fail=may_fail)))
        else:
            jobs.append(draw(_jobs(style, depth, place, may_fail=may_fail)))
    return {"jobs": jobs, "order": draw(st.sampled_from(style.orders)), "output": draw(OUTPUTS)}


@st.composite
def _jobs(draw: st.DrawFn, style: Style, depth: int, place: int, *, may_fail: bool) -> Program:
    """``may_fail``: nobody but jobflow's own dependants waits for this job.

    Who waits for the leaves of a detour waits on when one of them fails (C12); ``run_locally`` goes on.
    """
    one: Program = {"do": [], "needs": []}
    if place:
        one["needs"] = sorted(draw(st.sets(st.integers(0, place - 1), max_size=2)))
    if one["needs"]:
        one["on_missing"] = draw(st.sampled_from(["error", "error", "error", "none", "pass"]))
        one["resolve"] = draw(st.sampled_from([True, True, "both", False]))
    if may_fail and draw(st.integers(0, 9)) == 9:
        return one | {"do": ["fail"]}
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        return one
    one |= {"do": draw(st.sampled_from(style.asks)), "form": draw(st.sampled_from(style.forms))}
    for thing in one["do"]:
        if thing in GENERATE:
            one[thing] = draw(_asked(style, thing, one["form"], depth - 1, may_fail=may_fail))
            one["tells"] = draw(st.booleans())
    return one


@st.composite
def _asked(draw: st.DrawFn, style: Style, thing: str, form: str, depth: int, *, may_fail: bool) -> Program:
    output = draw(OUTPUTS)
    waited_for = thing == "detour" or (thing == "replace" and form == "flow" and output is None)
    may_fail = thing == "addition" or (may_fail and not waited_for)
    program: Program = draw(_flows(style, depth, 2, may_fail=may_fail)) | {"output": output}
    if thing == "replace" and form == "job":
        program["jobs"] = [draw(_jobs(style, depth, 0, may_fail=may_fail))]
    return program


def _name(program: Program, prefix: str) -> None:
    for place, one in enumerate(program["jobs"]):
        name = f"{prefix}{place}"
        if "jobs" in one:
            _name(one, f"{name}/")
            continue
        one["name"] = name
        for thing in GENERATE:
            if thing in one:
                _name(one[thing], f"{name}.{thing[0]}")
