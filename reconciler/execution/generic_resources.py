"""Generic resources (fields of qtoolkit's QResources) as keywords of one scheduler.

qtoolkit converts them; it takes every Grid Engine for a PBS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.execution.qtk import converted
from reconciler.model.generic import impossible, slots_of
from reconciler.model.schedulers import QRESOURCES_FIELDS, RESERVED


def keywords_of(scheduler_type: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return generic resources as keywords of a scheduler; nothing asked for gives no keywords.

    Raises
    ------
    InputError
        A field is unknown, has no meaning for this scheduler, or has an impossible value.
    """
    fields = {key: value for key, value in values.items() if key != "scheduler_kwargs"}
    _check(scheduler_type, values)
    own_words = dict(values.get("scheduler_kwargs") or {})
    if not fields:
        return own_words
    found = converted(scheduler_type, fields)
    if scheduler_type == "pbs":
        return _for_pbs(found) | own_words
    if scheduler_type == "sge":
        return _for_grid_engine(fields, found, own_words)
    return found | own_words


def _check(scheduler_type: str, values: Mapping[str, Any]) -> None:
    known = QRESOURCES_FIELDS - RESERVED
    for key in values:
        if key not in known:
            raise InputError(f"'{key}' is no QResources field", hint=did_you_mean(key, known))
    for found in impossible(scheduler_type, values):
        raise InputError(found.message, hint=found.hint)


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
    if environment and len(environment.split()) == 1:
        values["model"] = f"{environment} {slots_of(fields)}"
    if "memory_per_thread" in fields:
        memory = f"mem_free={fields['memory_per_thread']}M"
        values["select"] = f"{own_words['select']},{memory}" if "select" in own_words else memory
    return values
