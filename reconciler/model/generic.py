"""Generic resources (fields of qtoolkit's QResources) that no scheduler, or not this one, can give.

qtoolkit does not look at values that count as false, nor at negative ones, and takes every Grid Engine for a
PBS. The plan and the header of a script ask here, so that what the one lets through the other can write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from reconciler.diagnostics import did_you_mean
from reconciler.model.schedulers import QRESOURCES_FIELDS, QRESOURCES_SUPPORTED

COUNTS = frozenset(
    {
        "nodes",
        "processes",
        "processes_per_node",
        "threads_per_process",
        "gpus_per_job",
        "memory_per_thread",
        "time_limit",
    }
)
"""Whole numbers; ``memory_per_thread`` is in MB, ``time_limit`` in seconds."""

PLACEMENTS = ("NO_CONSTRAINTS", "SCATTERED", "SAME_NODE", "EVENLY_DISTRIBUTED")
"""The values of ``process_placement``."""


class Impossible(msgspec.Struct, frozen=True):
    """Why resources cannot be had. ``key`` is the field; None for all of them together."""

    code: str
    key: str | None
    message: str
    hint: str


def impossible(scheduler: str, values: Mapping[str, Any]) -> Iterator[Impossible]:
    """Yield what a scheduler cannot give of fields that exist; unknown ones are passed over."""
    fields = {key: value for key, value in values.items() if key in QRESOURCES_FIELDS - {"scheduler_kwargs"}}
    for key, value in fields.items():
        yield from _field(scheduler, key, value)
    if fields and scheduler != "shell":
        yield from _placement(fields)
    if scheduler == "sge":
        yield from _environment(fields, values.get("scheduler_kwargs") or {})


def _field(scheduler: str, key: str, value: Any) -> Iterator[Impossible]:
    if key not in QRESOURCES_SUPPORTED[scheduler]:
        hint = f"remove it, or say it in {scheduler}'s own words under `scheduler_kwargs`"
        if scheduler == "shell":
            hint = "set `resources: {}`, or use a worker with a scheduler"
        yield Impossible(
            "resources/unsupported-field", key, f"'{key}' cannot be asked for with {scheduler}", hint
        )
        return
    least = 0 if key == "gpus_per_job" else 1
    if key in COUNTS and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        hint = f"give a whole number of at least {least}"
        yield Impossible("resources/impossible-value", key, f"'{key}' is {value!r}", hint)
    if key == "process_placement" and value not in PLACEMENTS:
        hint = did_you_mean(str(value), PLACEMENTS) or ""
        yield Impossible("resources/impossible-value", key, f"there is no process_placement '{value}'", hint)


_SPREAD = frozenset({"nodes", "processes_per_node"})
_FREE = frozenset({"processes"})
_WORDS = {_FREE: "`processes`", _SPREAD: "`nodes` together with `processes_per_node`"}


def _placement(fields: Mapping[str, Any]) -> Iterator[Impossible]:
    """Qtoolkit takes processes alone, or so many on each of some nodes; a placement says which."""
    given = (_SPREAD | _FREE) & fields.keys()
    fitting = {"EVENLY_DISTRIBUTED": (_SPREAD,), None: (_FREE, _SPREAD)}
    placement = fields.get("process_placement")
    allowed = fitting.get(placement, (_FREE,))
    if given not in allowed:
        words = " or ".join(_WORDS[one] for one in allowed)
        with_it = f" with process_placement {placement}" if placement else ""
        yield Impossible(
            "resources/placement", None, f"qresources{with_it} need {words}", "or leave qresources empty: {}"
        )


def _environment(fields: Mapping[str, Any], own_words: Mapping[str, Any]) -> Iterator[Impossible]:
    """Grid Engine gives more than one slot only in a parallel environment, whose name the site knows."""
    wrong = any(not isinstance(fields[key], int) for key in COUNTS & fields.keys())
    slots = 1 if wrong else slots_of(fields)
    if slots > 1 and not own_words.get("model"):
        yield Impossible(
            "resources/parallel-environment",
            None,
            f"Grid Engine gives {slots} slots only in a parallel environment",
            "name one of your site (`qconf -spl` lists them): scheduler_kwargs: {model: NAME}",
        )


def slots_of(fields: Mapping[str, Any]) -> int:
    """Return how many slots of Grid Engine the fields ask for: one for each thread."""
    processes = fields.get("processes") or fields.get("nodes", 1) * fields.get("processes_per_node", 1)
    return int(processes * fields.get("threads_per_process", 1))
