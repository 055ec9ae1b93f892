"""Flows whose jobs ask for more jobs, one function a kind. The same functions run under jobflow alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import simple_jobs
from jobflow import Flow, Job, OnMissing, Response, job
from jobflow.core.reference import ResolvedReference
from pydantic import BaseModel


@job
def plus(a: Any, b: Any) -> Any:
    return a + b


@job
def show(*values: Any) -> list[Any]:
    return list(values)


@job
def replace_by_job(a: int) -> Response:
    return Response(output="gone", replace=plus(a, 10))


@job
def replace_by_flow(a: int) -> Response:
    first = plus(a, 1)
    second = plus(first.output, 1)
    return Response(replace=Flow([first, second], output=second.output))


@job
def replace_by_flow_without_output(a: int) -> Response:
    first = plus(a, 1)
    return Response(output="stays", replace=Flow([first, plus(first.output, 1)]))


@job
def replace_by_list(a: int) -> Response:
    return Response(replace=[plus(a, n) for n in range(3)])


@job
def replace_by_dict(a: int) -> Response:
    return Response(replace={"one": plus(a, 1), "two": plus(a, 2)})


@job
def replace_by_structure(a: int) -> Response:
    one, two = plus(a, 1), plus(a, 2)
    return Response(replace=Flow([one, two], output={"sum": [one.output, {"deep": two.output}], "a": a}))


@job
def returns_a_job(a: int) -> Job:
    return plus(a, 5)


@job
def returns_a_dict(a: int) -> dict[str, Job]:
    return {"one": plus(a, 5), "two": replace_by_job(a)}


@job
def replace_by_tuple(a: int) -> Response:
    return Response(replace=(plus(a, 1), replace_by_flow(a)))


@job
def returns_a_list_of_flows(a: int) -> list[Flow]:
    made = [plus(a, n) for n in range(2)]
    return [Flow([one], output=one.output) for one in made]


@job
def detours(a: int) -> Response:
    return Response(output=a, detour=plus(a, 100))


@job
def detours_by_flow(a: int) -> Response:
    first = plus(a, 100)
    return Response(output=a, detour=Flow([first, plus(first.output, 1), plus(first.output, 2)]))


@job
def adds(a: int) -> Response:
    return Response(output=a, addition=plus(a, 200))


@job
def detours_and_adds(a: int) -> Response:
    return Response(output=a, detour=plus(a, 100), addition=plus(a, 200))


@job
def detours_by_list(a: int) -> Response:
    first = plus(a, 100)
    return Response(output=a, detour=[first, Flow([replace_by_job(first.output)])])


@job
def replaces_and_detours(a: int) -> Response:
    return Response(replace=plus(a, 10), detour=Flow([replace_by_flow(a), detours(a)]))


@job
def replaces_and_adds(a: int) -> Response:
    new = plus(a, 1)
    return Response(replace=Flow([new], output=[new.output]), addition=[adds(a), plus(a, 200)])


@job
def tells_of_detour(a: int) -> Response:
    new = replace_by_flow(a)
    return Response(output={"new": new.output}, detour=Flow([new, plus(new.output, 1)]))


@job
def tells_of_addition(a: int) -> Response:
    """Whoever reads the output reads that of the new job, which tells of another one again."""
    new = tells_of_detour(a) if a > 1 else tells_of_addition(a + 1)
    return Response(output=[new.output], addition=new)


@job
def refers_outwards(a: ResolvedReference) -> Response:
    """What replaces a job may use the outputs of jobs around it; a detour or addition may not."""
    new = plus(a.reference, 1)
    return Response(replace=Flow([new, replace_by_job(a.reference)], output=new.output))


@job
def stores(a: int) -> Response:
    return Response(output=a, stored_data={"numbers": [a, 1.5], "why": None})


@job
def stops_children(a: int) -> Response:
    return Response(output=a, stop_children=True)


@job
def replaces_and_stops_children(a: int) -> Response:
    return Response(replace=plus(a, 10), stop_children=True)


@job
def detours_and_stops_children(a: int) -> Response:
    first = plus(a, 100)
    return Response(output=a, detour=Flow([first, plus(first.output, 1)]), stop_children=True)


@job
def stops_children_in_detour(a: int) -> Response:
    """The end of the detour is stopped, and the flow goes on."""
    first = stops_children(a)
    second = plus(first.output, 1)
    return Response(output=a, detour=Flow([first, second, plus(second.output, 1)]))


@job
def replaced_in_detour(a: int, log: str) -> Response:
    """All of the detour is stopped but what replaces its first job, which is slow."""
    first = replaces_slowly_and_stops_children(log)
    second = plus(first.output, "")
    return Response(output=a, detour=Flow([first, second, plus(second.output, "")]))


@job
def replaces_slowly_and_stops_children(log: str) -> Response:
    return Response(replace=simple_jobs.log_span(log, "replacement", 0.5), stop_children=True)


@job
def stops_children_in_replacement(a: int) -> Response:
    """What was to give the output is stopped, and so is who needs it."""
    first = stops_children(a)
    second = plus(first.output, 1)
    return Response(output=a, replace=Flow([first, second], output=second.output))


@job
def stops_children_without_output(a: int) -> Response:
    first = stops_children(a)
    return Response(output=a, replace=Flow([first, plus(first.output, 1)]))


@job
def stops_flow_and_asks(a: int) -> Response:
    new = plus(a, 10)
    return Response(output=a, detour=new, addition=plus(a, 1), replace=plus(a, 2), stop_jobflow=True)


@job
def stops_flow(a: int) -> Response:
    return Response(output=a, stop_jobflow=True)


@job
def counts_down(n: int) -> Any:
    return Response(replace=counts_down(n - 1)) if n else "done"


@job
def sums_up(numbers: list[int], least: int = 12) -> Any:
    if sum(numbers) >= least:
        return sum(numbers)
    one, two = simple_jobs.give(sum(numbers)), simple_jobs.give(5)
    again = sums_up([one.output, two.output], least)
    return Response(replace=Flow([one, two, again], output=again.output))


@job
def nests(depth: int) -> Any:
    """Replace by a flow in a flow whose job does the same, and detour inside of it."""
    if depth < 0:
        return Response(output=0, detour=plus(1000, 1))
    inner = nests(depth - 1)
    outer = plus(inner.output, 1)
    return Response(replace=Flow([Flow([inner], output=inner.output), outer], output=outer.output))


class Total(BaseModel):
    total: int


@job
def gives_total(a: int) -> dict[str, int]:
    return {"total": a}


@job(output_schema=Total)
def replace_with_schema(a: int) -> Response:
    return Response(replace=gives_total(a))


@job(data="heavy")
def replace_with_store(a: int) -> Response:
    inner = simple_jobs.give({"heavy": [a, a], "light": 1})
    return Response(replace=Flow([inner], output=inner.output))


def _then(first: Job) -> Flow:
    """Return a flow of a job and a child that reads its output."""
    child = show(first.output)
    child.name = "child"
    return Flow([first, child], name=first.name)


SIMPLE = (
    "replace_by_job", "replace_by_flow", "replace_by_flow_without_output", "replace_by_list",
    "replace_by_dict", "replace_by_structure", "returns_a_job", "returns_a_list_of_flows", "detours",
    "detours_by_flow", "adds", "detours_and_adds", "stores", "stops_children", "stops_flow", "counts_down",
    "nests", "replace_with_schema", "returns_a_dict", "replace_by_tuple", "detours_by_list",
    "replaces_and_detours", "replaces_and_adds", "tells_of_detour", "tells_of_addition",
    "replaces_and_stops_children", "detours_and_stops_children", "stops_children_in_detour",
    "stops_children_in_replacement", "stops_children_without_output", "stops_flow_and_asks",
)  # fmt: skip


WHOLE = ("summed", "stored_apart", "updated", "outwards", "reads_what_is_stopped", "comes_after_a_teller")
"""Flows by functions of their own."""


def simple(kind: str) -> Flow:
    """Return the flow of one kind of :data:`SIMPLE`."""
    made = _then(globals()[kind](10 if kind == "counts_down" else 1))
    if kind == "stops_children":
        grandchild = show(made.jobs[-1].output)
        grandchild.name = "grandchild"
        made.add_jobs(grandchild)
    return made


def summed() -> Flow:
    return _then(sums_up([1, 2]))


def outwards() -> Flow:
    first = replace_by_flow(1)
    second = refers_outwards(first.output)
    second.config.resolve_references = "both"
    return Flow([first, second, show(second.output)])


def stored_apart() -> Flow:
    first = replace_with_store(4)
    return Flow([first, simple_jobs.total(first.output["heavy"])])


def updated() -> Flow:
    """Metadata, names and configs that also reach generated jobs."""
    made = _then(replace_by_flow(1))
    made.update_metadata({"campaign": "x"}, dynamic=True)
    made.append_name(" (late)", dynamic=True)
    made.update_config({"expose_store": True}, name_filter="plus", dynamic=True)
    return made


def missing(mode: str) -> Flow:
    """A child that does not mind that its parent failed."""
    parent = simple_jobs.fails("on purpose")
    child = show_kinds(parent.output)
    child.config.on_missing_references = OnMissing(mode)
    return Flow([parent, child])


@job
def show_kinds(*values: Any) -> list[str]:
    return [type(value).__name__ for value in values]


@job
def tells_of_what_is_stopped(a: int) -> Response:
    """The new job has an output, and its replacement, which was to give another one, is stopped."""
    new = stops_children_in_replacement(a)
    return Response(output=[a, new.output], addition=new)


@job
def tells_of_a_failure(a: int) -> Response:
    new = simple_jobs.fails("only readers mind")
    return Response(output=[a, new.output], addition=new)


def reads_what_is_stopped() -> Flow:
    first = tells_of_what_is_stopped(1)
    second = refers_outwards(first.output[1])
    second.config.resolve_references = "both"
    return Flow([first, second, show(first.output)])


@job
def detours_by_teller(a: int) -> Response:
    return Response(output=a, detour=tells_of_a_failure(a))


def comes_after_a_teller() -> Flow:
    """Who waits for a detour does not read what that tells of, so the failure of it is nothing to him."""
    return _then(detours_by_teller(1))


def waits_for_the_rest_of_a_detour(log: str) -> Flow:
    first = replaced_in_detour(1, log)
    return Flow([first, simple_jobs.log_line(log, "child", first.output)])


def broken_detour() -> Flow:
    first = detours_into_failure()
    return Flow([first, show(first.output)])


@job
def detours_into_failure() -> Response:
    return Response(output=1, detour=simple_jobs.fails("in the detour"))


def stopped_while_others_run(gate: str) -> Flow:
    """One job stops the flow while another runs that will ask for more."""
    late = simple_jobs.opens_gate_then_generates(gate)
    late.name = "late"
    stop = stops_flow(1)
    stop.name = "stop"
    after = show(late.output)
    after.name = "after"
    return Flow([late, stop, after])


@job
def writes_a_false_result(text: str) -> None:
    (Path("claim") / "result.json").write_text(text)
    os._exit(0)
