"""The top of a submission script: shebang and directives, as each scheduler wants them.

qtoolkit converts them; it takes every Grid Engine for a PBS.

qtoolkit's templates know the directives. What they get wrong is put right here: they quote nothing, give
every option a value, and drop a line that holds ``$$`` without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.execution.qtk import STDERR, STDOUT, converted, scheduler_io
from reconciler.model.generic import impossible, slots_of
from reconciler.model.schedulers import KEYWORDS, QRESOURCES_FIELDS, RESERVED, misfits, unsafe_values
from reconciler.model.settings import Resources

# Generic resources (fields of qtoolkit's QResources) as keywords of one scheduler.


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


Keywords = dict[str, Any]


def queue_name(key: str, identity: str) -> str:
    """Return a name for the queue that every scheduler takes: first what people read, then who it is.

    ``identity`` is unique for every attempt, so that an interrupted submission can be found by it.
    """
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", key)[:40].strip("-")
    if not readable[:1].isalpha():  # PBS and Grid Engine want a letter first
        readable = f"j{readable}"
    return f"{readable}.{identity}"


def submission_header(scheduler_type: str, resources: Resources | None, name: str) -> str:
    """Return the top of a submission script, down to the last directive, ending in one newline.

    Empty resources give a script without request lines, with any scheduler. ``name`` is that of the job in
    the queue; see :func:`queue_name`.

    Raises
    ------
    InputError
        The scheduler cannot be asked for this; the message says for what.
    """
    io = scheduler_io(scheduler_type)
    keywords = _requested(scheduler_type, resources or Resources({}))
    verbatim = str(keywords.pop("qverbatim", ""))
    lines, more = _SPELLED[scheduler_type](keywords | _own(scheduler_type, name))
    header = str(io.generate_header(lines)).split("\n")
    # A line of qverbatim may hold anything, also the sign at which qtoolkit would drop it.
    whole = ["#!/bin/bash", *header, *more, *verbatim.split("\n")]
    return "\n".join(line.rstrip() for line in whole if line.strip()) + "\n"


def _requested(scheduler_type: str, resources: Resources) -> Keywords:
    """Return what the resources ask for, in keywords of the scheduler."""
    for pointer, reason in unsafe_values(resources.values):
        raise InputError(f"the value of '{pointer[1:]}' {reason}", hint="give one plain value on one line")
    asked = keywords_of(scheduler_type, resources.values) if resources.generic else dict(resources.values)
    _refuse_unknown(scheduler_type, asked)
    for misfit in misfits(scheduler_type, asked):
        raise InputError(misfit.message, hint=misfit.hint)
    return asked


def _refuse_unknown(scheduler_type: str, keywords: Mapping[str, Any]) -> None:
    known = KEYWORDS[scheduler_type] - RESERVED
    for key in sorted(keywords.keys() - known):
        if key in RESERVED:
            raise InputError(f"'{key}' is set by reconciler for every job", hint=f"remove '{key}'")
        if scheduler_type == "shell":
            raise InputError(
                f"a plain shell cannot give '{key}'",
                hint="set `resources: {}`, or use a worker with a scheduler",
            )
        hint = did_you_mean(key, known) or f"known: {', '.join(sorted(known))}"
        raise InputError(f"'{key}' is no {scheduler_type} keyword", hint=hint)


def _own(scheduler_type: str, name: str) -> Keywords:
    """What is the same for every job: its name and where its output goes; a shell has no place for them."""
    if scheduler_type == "shell":
        return {}
    return {"job_name": name, "qout_path": STDOUT, "qerr_path": STDERR}


# how each scheduler spells values -------------------------------------------------------------------------

Spelled = tuple[Keywords, list[str]]
"""Keywords for qtoolkit's template, and lines for which it has no keyword."""

_SLURM_FLAGS: Mapping[str, tuple[str, str | None]] = {
    "exclusive": ("--exclusive", None),
    "requeue": ("--requeue", "--no-requeue"),
}
"""Options that stand without a value when set to true or false; the template always writes one."""


def _slurm(keywords: Keywords) -> Spelled:
    # Many clusters start a job again when its node dies; how often an attempt runs is for us to decide.
    keywords = {"requeue": False} | keywords
    flags = [key for key in _SLURM_FLAGS if isinstance(keywords.get(key), bool)]
    options = [_SLURM_FLAGS[key][0 if keywords[key] else 1] for key in flags]
    values = {key: _quoted(str(value)) for key, value in keywords.items() if key not in flags}
    # A controller that has lost its memory starts again what has ended: that must not empty the logs.
    options.append("--open-mode=append")
    return values, [f"#SBATCH {option}" for option in options if option is not None]


def _quoted(value: str) -> str:
    """Sbatch reads a directive as a shell would: blanks and quotes end a value unless they are quoted."""
    if not re.search(r"[\s\"'\\#]", value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _pbs(keywords: Keywords) -> Spelled:
    """Blanks, quotes and backslashes would end a value: PBS takes them with a backslash before."""
    values = {key: re.sub(r"([\s\"'\\])", r"\\\1", value.strip()) for key, value in _yes_no(keywords).items()}
    return values, ["#PBS -S /bin/bash"]


def _sge(keywords: Keywords) -> Spelled:
    """Without these Grid Engine runs a job in the home directory, often with a C shell."""
    return _yes_no(keywords) | {"cwd": ""}, ["#$ -S /bin/bash"]


def _yes_no(keywords: Keywords) -> Keywords:
    """A job is run once, unless it is said otherwise: run again, it would find its attempt claimed."""
    values: Keywords = {"rerunnable": False} | keywords
    if isinstance(values["rerunnable"], bool):
        values["rerunnable"] = "y" if values["rerunnable"] else "n"
    return {key: str(value) for key, value in values.items()}


def _shell(keywords: Keywords) -> Spelled:
    return keywords, []


_SPELLED: Mapping[str, Callable[[Keywords], Spelled]] = {
    "shell": _shell,
    "slurm": _slurm,
    "pbs": _pbs,
    "sge": _sge,
}
