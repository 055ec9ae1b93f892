"""The top of a submission script: the shebang and the directives of the scheduler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.execution.qtk import STDERR, STDOUT
from reconciler.model.schedulers import Scheduler, scheduler_of
from reconciler.model.schedulers.base import RESERVED, unsafe_values
from reconciler.model.schedulers.generic import QRESOURCES_FIELDS, own_keywords_of
from reconciler.model.settings import Resources


def queue_name(key: str, identity: str) -> str:
    """Return a name for the queue that every scheduler accepts: a readable part, then ``identity``.

    ``identity`` is unique for every attempt, so that an interrupted submission can be found by it.
    """
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", key)[:40].strip("-")
    if not readable[:1].isalpha():  # PBS and Grid Engine want a letter first
        readable = f"j{readable}"
    return f"{readable}.{identity}"


def submission_header(scheduler_type: str, resources: Resources | None, name: str) -> str:
    """Return the top of a submission script, down to the last directive, ending in one newline.

    Empty resources give a script without request lines, with every scheduler. ``name`` is the name of the job
    in the queue; see :func:`queue_name`.

    Raises
    ------
    InputError
        The scheduler cannot give what the resources ask for; the message names the keyword.
    """
    scheduler = scheduler_of(scheduler_type)
    keywords = keywords_of(scheduler, resources or Resources({}))
    if scheduler.is_batch:
        keywords |= {"job_name": name, "qout_path": STDOUT, "qerr_path": STDERR}
    lines = ["#!/bin/bash", *scheduler.header_lines(keywords)]
    return "\n".join(line.rstrip() for line in lines if line.strip()) + "\n"


def keywords_of(scheduler: Scheduler, resources: Resources) -> dict[str, Any]:
    """Return what resources ask for, in keywords of the scheduler.

    Raises
    ------
    InputError
        A keyword or field is unknown, reserved, has no meaning for this scheduler, or an impossible value.
    """
    for pointer, reason in unsafe_values(resources.values):
        raise InputError(f"the value of '{pointer[1:]}' {reason}", hint="give one plain value on one line")
    keywords = dict(resources.values)
    if resources.generic:
        keywords = _from_generic(scheduler, resources.values)
    known = scheduler.keywords - RESERVED
    for key in sorted(keywords.keys() - known):
        if key in RESERVED:
            raise InputError(f"reconciler sets '{key}' for every job", hint=f"remove '{key}'")
        if not scheduler.is_batch:
            raise InputError(
                f"a plain shell cannot give '{key}'",
                hint="set `resources: {}`, or use a worker with a scheduler",
            )
        hint = did_you_mean(key, known) or f"known: {', '.join(sorted(known))}"
        raise InputError(f"'{key}' is not a {scheduler.title} keyword", hint=hint)
    for problem in scheduler.keyword_problems(keywords):
        raise InputError(problem.message, hint=problem.hint)
    return keywords


def _from_generic(scheduler: Scheduler, values: Mapping[str, Any]) -> dict[str, Any]:
    known = QRESOURCES_FIELDS - RESERVED
    for key in values:
        if key not in known:
            raise InputError(f"'{key}' is not a QResources field", hint=did_you_mean(key, known))
    for problem in scheduler.generic_problems(values):
        raise InputError(problem.message, hint=problem.hint)
    fields = {key: value for key, value in values.items() if key != "scheduler_kwargs"}
    own_keywords = dict(own_keywords_of(values))
    return scheduler.from_generic(fields, own_keywords) if fields else own_keywords
