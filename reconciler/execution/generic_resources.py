"""Generic resources (fields of qtoolkit's QResources) as keywords of one scheduler.

qtoolkit converts them; it takes every Grid Engine for a PBS, and does not look at values that count as
false, nor at negative ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.execution.qtk import converted
from reconciler.model.schedulers import QRESOURCES_FIELDS, QRESOURCES_SUPPORTED, RESERVED

_COUNTS = (
    "nodes",
    "processes",
    "processes_per_node",
    "threads_per_process",
    "gpus_per_job",
    "memory_per_thread",
    "time_limit",
)
"""Whole numbers; ``memory_per_thread`` is in MB, ``time_limit`` in seconds."""


def keywords_of(scheduler_type: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return generic resources as keywords of a scheduler; nothing asked for gives no keywords.

    Raises
    ------
    InputError
        A field is unknown, has no meaning for this scheduler, or has an impossible value.
    """
    fields = {key: value for key, value in values.items() if key != "scheduler_kwargs"}
    for key, value in fields.items():
        _check(scheduler_type, key, value)
    own_words = dict(values.get("scheduler_kwargs") or {})
    if not fields:
        return own_words
    found = converted(scheduler_type, fields)
    if scheduler_type == "pbs":
        return _for_pbs(found) | own_words
    if scheduler_type == "sge":
        return _for_grid_engine(fields, found, own_words)
    return found | own_words


def _check(scheduler_type: str, key: str, value: Any) -> None:
    known = QRESOURCES_FIELDS - RESERVED
    if key not in known:
        raise InputError(f"'{key}' is no QResources field", hint=did_you_mean(key, known))
    if key not in QRESOURCES_SUPPORTED[scheduler_type]:
        hint = f"remove it, or say it in {scheduler_type}'s own words under `scheduler_kwargs`"
        if scheduler_type == "shell":
            hint = "set `resources: {}`, or use a worker with a scheduler"
        raise InputError(f"'{key}' cannot be asked for with {scheduler_type}", hint=hint)
    least = 0 if key == "gpus_per_job" else 1
    if key in _COUNTS and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise InputError(f"'{key}' is {value!r}", hint=f"give a whole number of at least {least}")


def _for_pbs(found: Mapping[str, Any]) -> dict[str, Any]:
    """A project is no Unix group."""
    values = dict(found)
    if "group_list" in values:
        values["qverbatim"] = f"#PBS -P {values.pop('group_list')}"
    return values


def _for_grid_engine(
    fields: Mapping[str, Any], found: Mapping[str, Any], own_words: Mapping[str, Any]
) -> dict[str, Any]:
    """Grid Engine knows no `select` and no `place`: it counts slots in a parallel environment of the site.

    The environment, to be named by the user, also decides how slots are spread over nodes.
    """
    values = {key: value for key, value in found.items() if key not in ("select", "place", "group_list")}
    if "group_list" in found:
        values["device"] = found["group_list"]  # qtoolkit's name for -P, the project
    values |= own_words
    environment = str(own_words.get("model", ""))
    slots = _slots(fields)
    if environment and len(environment.split()) == 1:
        values["model"] = f"{environment} {slots}"
    elif slots > 1 and not environment:
        raise InputError(
            f"Grid Engine gives {slots} slots only in a parallel environment",
            hint="name one of your site (`qconf -spl` lists them): scheduler_kwargs: {model: NAME}",
        )
    if "memory_per_thread" in fields:
        memory = f"mem_free={fields['memory_per_thread']}M"
        values["select"] = f"{own_words['select']},{memory}" if "select" in own_words else memory
    return values


def _slots(fields: Mapping[str, Any]) -> int:
    processes = fields.get("processes") or fields.get("nodes", 1) * fields.get("processes_per_node", 1)
    return int(processes * fields.get("threads_per_process", 1))
