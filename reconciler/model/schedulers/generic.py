"""Generic resources: the fields of qtoolkit's ``QResources``, which mean the same with every scheduler.

``tests/model/schedulers/test_generic.py`` compares these tables with the installed qtoolkit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from reconciler.diagnostics import did_you_mean
from reconciler.model.schedulers.requests import UNKNOWN, ResourceRequest, count, product, whole

QRESOURCES_FIELDS = frozenset(
    {
        *("queue_name", "job_name", "memory_per_thread", "nodes", "processes", "processes_per_node"),
        *("threads_per_process", "gpus_per_job", "time_limit", "account", "qos", "priority"),
        *("output_filepath", "error_filepath", "process_placement", "email_address", "rerunnable"),
        *("project", "njobs", "scheduler_kwargs"),
    }
)

COUNTS = frozenset(
    {
        *("nodes", "processes", "processes_per_node", "threads_per_process"),
        *("gpus_per_job", "memory_per_thread", "time_limit"),
    }
)
"""The fields that are whole numbers; ``memory_per_thread`` is in MB, ``time_limit`` in seconds."""

PLACEMENTS = ("NO_CONSTRAINTS", "SCATTERED", "SAME_NODE", "EVENLY_DISTRIBUTED")
"""The values of ``process_placement``."""

_PER_NODE = frozenset({"nodes", "processes_per_node"})
_TOTAL = frozenset({"processes"})
_IN_WORDS = {_TOTAL: "`processes`", _PER_NODE: "`nodes` together with `processes_per_node`"}


class Problem(msgspec.Struct, frozen=True):
    """Why a scheduler cannot run a request. ``key`` is the keyword or field; None for all together."""

    code: str
    key: str | None
    message: str
    hint: str


def own_keywords_of(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the keywords of the scheduler itself that stand beside the generic fields."""
    found = values.get("scheduler_kwargs")
    return found if isinstance(found, Mapping) else {}


def value_problems(fields: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the fields whose value no scheduler understands."""
    for key, value in fields.items():
        least = 0 if key == "gpus_per_job" else 1
        if key in COUNTS and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            hint = f"give a whole number of at least {least}"
            yield Problem("resources/impossible-value", key, f"'{key}' is {value!r}", hint)
        if key == "process_placement" and value not in PLACEMENTS:
            hint = did_you_mean(str(value), PLACEMENTS) or ""
            message = f"there is no process_placement '{value}'"
            yield Problem("resources/impossible-value", key, message, hint)


def placement_problems(fields: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is missing for a placement: a total of processes, or a number on each of some nodes."""
    given = (_PER_NODE | _TOTAL) & fields.keys()
    fitting = {"EVENLY_DISTRIBUTED": (_PER_NODE,), None: (_TOTAL, _PER_NODE)}
    placement = fields.get("process_placement")
    allowed = fitting.get(placement if placement is None else str(placement), (_TOTAL,))
    if given not in allowed:
        words = " or ".join(_IN_WORDS[one] for one in allowed)
        with_it = f" with process_placement {placement}" if placement else ""
        message = f"qresources{with_it} need {words}"
        yield Problem("resources/placement", None, message, "or leave qresources empty: {}")


class Distribution(NamedTuple):
    """How processes are spread over nodes; None where the scheduler decides."""

    nodes: int | None
    processes: int | None
    per_node: int | None


def distribution(fields: Mapping[str, Any]) -> Distribution:
    """Return how processes are spread, for fields without :func:`placement_problems`."""
    processes = fields.get("processes")
    if processes is None:
        return Distribution(fields["nodes"], None, fields["processes_per_node"])
    match fields.get("process_placement"):
        case "SCATTERED":
            return Distribution(processes, processes, 1)
        case "SAME_NODE":
            return Distribution(1, processes, processes)
    return Distribution(None, processes, None)


def slots_of(fields: Mapping[str, Any]) -> int:
    """Return how many cores the fields ask for: one for each thread."""
    processes = fields.get("processes") or fields.get("nodes", 1) * fields.get("processes_per_node", 1)
    return int(processes * fields.get("threads_per_process", 1))


_NO_EFFECT_ON_COST = {
    *("partition", "queue", "account", "group_list", "qos", "priority", "licenses", "constraint", "hint"),
    *("mem", "mem_per_cpu", "mail_user", "mail_type", "requeue", "rerunnable", "exclude_nodes"),
}
"""Keywords in ``scheduler_kwargs`` that change neither cores nor time."""


def generic_request(fields: Mapping[str, Any]) -> ResourceRequest:
    """Return what generic resources ask for."""
    if not own_keywords_of(fields).keys() <= _NO_EFFECT_ON_COST:
        return UNKNOWN
    processes = None
    if "processes" in fields:
        processes = whole(fields["processes"])
    elif "processes_per_node" in fields:
        processes = product(count(fields, "nodes"), whole(fields["processes_per_node"]))
    cores = product(processes, count(fields, "threads_per_process"))
    gpus = whole(fields["gpus_per_job"]) if fields.get("gpus_per_job") else 0
    return ResourceRequest(cores, whole(fields.get("time_limit")), gpus)
