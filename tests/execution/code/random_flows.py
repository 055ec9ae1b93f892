"""Flows that are told by a program of JSON what each of their jobs gives and what it asks for.

A program has ``jobs``, an ``order`` and an ``output``. A job of it has a name, the positions of the jobs
before it that it needs, and what it does; or it is a program itself: a flow inside the flow. jobflow alone
runs the same functions.
"""

from __future__ import annotations

from typing import Any

from jobflow import Flow, Job, JobOrder, OnMissing, Response, job
from jobflow.core.reference import OutputReference, ResolvedReference

Program = dict[str, Any]


def build(program: Program) -> Flow:
    """Return the flow of a program, with what reaches jobs that are generated later."""
    made = _flow(program, [])
    for update in program.get("updates", []):
        if update == "metadata":
            made.update_metadata({"campaign": "x"}, dynamic=True)
        elif update == "name":
            made.append_name("+", dynamic=True)
        elif update == "hidden metadata":
            made.update_metadata({"campaign": "y"}, name_filter="0", dynamic=False)
    return made


def _flow(program: Program, outer: list[Any]) -> Flow:
    made = _members(program, outer)
    return Flow(made, output=_output(program["output"], made), order=JobOrder(program["order"]))


def _members(program: Program, outer: list[Any]) -> list[Job | Flow]:
    """``outer`` are outputs, or references to them, that every job without needs sees."""
    made: list[Job | Flow] = []
    for one in program["jobs"]:
        made.append(_flow(one, outer) if "jobs" in one else _job(one, made, outer))
    return made


def _job(one: Program, before: list[Job | Flow], outer: list[Any]) -> Job:
    seen = [before[position].output for position in one["needs"]]
    made: Job = act(one, *(seen or outer))
    made.name = one["name"]
    made.config.on_missing_references = OnMissing(one.get("on_missing", "error"))
    made.config.resolve_references = one.get("resolve", True)
    return made


def _output(kind: str | None, made: list[Job | Flow]) -> Any:
    outputs = [one.output for one in made]
    if kind is None:
        return None
    return {"first": outputs[0], "last": outputs[-1], "list": outputs, "dict": {"all": outputs}}[kind]


@job
def act(one: Program, *seen: Any) -> Any:
    """Give what was seen, and ask for what the program says."""
    resolved = [value.value if isinstance(value, ResolvedReference) else value for value in seen]
    plain = [_told(value) for value in resolved]
    references = [
        value.reference if isinstance(value, ResolvedReference) and one["on_missing"] == "error" else told
        for value, told in zip(seen, plain, strict=True)
    ]
    if "fail" in one["do"]:
        raise ValueError(one["name"])
    asked: dict[str, Any] = {}
    for thing in one["do"]:
        asked |= _ask(thing, one, plain, references)
    output = {"by": one["name"], "seen": plain}
    if one.get("tells"):
        flows = [new for new in asked.values() if isinstance(new, Flow)]
        output["new"] = [flow.jobs[-1].output for flow in flows]
    return Response(output=output, **asked) if one["do"] else output


def _told(value: Any) -> Any:
    return {"reference": list(value.attributes)} if isinstance(value, OutputReference) else value


def _ask(thing: str, one: Program, seen: list[Any], references: list[Any]) -> dict[str, Any]:
    """Return arguments of a Response. Only what replaces a job may refer to jobs that are not new."""
    if thing in ("stop_children", "stop_jobflow"):
        return {thing: True}
    if thing == "stored_data":
        return {thing: {"by": one["name"]}}
    if thing != "replace":
        return {thing: _flow(one[thing], seen)}
    if one["form"] == "flow":
        return {thing: _flow(one[thing], references)}
    members = _members(one[thing], references)
    forms = {"list": members, "dict": {str(place): new for place, new in enumerate(members)}}
    return {thing: forms.get(one["form"], members[0])}
