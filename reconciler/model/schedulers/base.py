"""What a scheduler is to a plan and to a submission script: pure data, and text made from it.

Each scheduler is one subclass in a module of its own; ``docs/architecture.md`` has the recipe. How jobs are
submitted, listed and cancelled is in :mod:`reconciler.execution.queues`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.model.schedulers.generic import (
    QRESOURCES_FIELDS,
    Problem,
    generic_request,
    own_keywords_of,
    placement_problems,
    value_problems,
)
from reconciler.model.schedulers.requests import UNKNOWN, ResourceRequest
from reconciler.model.settings import Resources

RESERVED = frozenset(
    {"job_name", "qout_path", "qerr_path", "array", "output_filepath", "error_filepath", "njobs"}
)
"""Keywords and fields that reconciler sets for every job: it finds a job again by its name and its files."""

TARGET_KEYWORDS = ("partition", "queue", "queue_name", "qos", "account", "project", "device", "group_list")
"""Keywords and fields whose limits decide whether a scheduler accepts a job now."""

VERBATIM = "qverbatim"
"""The keyword for lines that go into the script as they are."""


class Scheduler:
    """A scheduler. Subclasses set the attributes and override what differs.

    ``name`` is the ``scheduler_type`` of jobflow-remote, ``title`` is for people. ``is_batch`` tells whether
    jobs wait in a queue and can ask for resources; False for a plain shell.

    ``directives`` maps the keywords of ``resources`` to options, in the order in which they are written, each
    after ``prefix``: ``"partition": "--partition={}"``. ``flags`` are the options for keywords that may be
    true or false. ``defaults`` are keywords that every job has unless it sets them, ``fixed`` are options
    that every job has. ``generic_fields`` are the fields of ``qresources`` that have a meaning here.

    ``commands`` are the programs that are called on the host. ``version_command`` prints the version in its
    first line; ``accounting_command`` succeeds where the scheduler remembers ended jobs (empty: not
    available), and ``accounting_fix`` says how to make it do so. ``time_keyword`` is the keyword for the time
    limit. ``unsafe_in_paths`` are characters that the scheduler would expand in a path of a job.
    """

    name: str
    title: str
    is_batch = True
    prefix = ""
    directives: Mapping[str, str] = {}
    flags: Mapping[str, tuple[str, str]] = {}
    defaults: Mapping[str, Any] = {}
    fixed: Sequence[str] = ()
    generic_fields: frozenset[str] = frozenset()
    commands: Sequence[str] = ()
    version_command = ""
    accounting_command = ""
    accounting_fix = "ask the administrators to switch accounting on"
    time_keyword = ""
    unsafe_in_paths = ""
    _may_be_negative = frozenset({"priority"})

    def __init__(self) -> None:
        self.keywords = frozenset({*self.directives, "job_name", "qout_path", "qerr_path", VERBATIM})

    # writing a header ---------------------------------------------------------------------------------

    def header_lines(self, keywords: Mapping[str, Any]) -> list[str]:
        """Return the directives for keywords that have no problem, then the verbatim lines."""
        given = {**self.defaults, **keywords}
        lines = []
        for key, option in self.directives.items():
            if key not in given:
                continue
            value = given[key]
            if isinstance(value, bool):
                lines.append(self.flags[key][0 if value else 1])
            else:
                lines.append(option.format(self.quoted(key, str(value))))
        directives = [f"{self.prefix} {line}".rstrip() for line in (*lines, *self.fixed) if line]
        return [*directives, *str(given.get(VERBATIM, "")).split("\n")]

    def quoted(self, key: str, value: str) -> str:
        """Return a value in the form in which it may stand in a directive."""
        return value

    def from_generic(self, fields: Mapping[str, Any], own_keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Return generic resources without problems as keywords.

        ``own_keywords`` are the ``scheduler_kwargs`` beside them, which win.
        """
        return dict(own_keywords)

    # checking -----------------------------------------------------------------------------------------

    def keyword_problems(self, keywords: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the known keywords whose value the scheduler does not take."""
        for key, value in keywords.items():
            if key == VERBATIM:
                continue
            if isinstance(value, str) and value.lstrip().startswith("-") and key not in self._may_be_negative:
                yield impossible_value(key, repr(value), "a value cannot begin with '-', as options do")
            elif isinstance(value, bool) and key not in self.flags:
                yield impossible_value(key, str(value).lower(), "give a text or a number")
            else:
                yield from self.value_problems(key, value)

    def value_problems(self, key: str, value: Any) -> Iterator[Problem]:
        """Yield what is wrong with the value of one keyword."""
        yield from ()

    def generic_problems(self, values: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield what the scheduler cannot give of ``qresources``; unknown fields are passed over."""
        fields = {key: values[key] for key in values if key in QRESOURCES_FIELDS - {"scheduler_kwargs"}}
        for key, value in fields.items():
            if key in self.generic_fields:
                yield from value_problems({key: value})
            else:
                hint = f"remove it, or set keywords of {self.title} under `scheduler_kwargs`"
                if not self.is_batch:
                    hint = "set `resources: {}`, or use a worker with a scheduler"
                message = f"{self.title} jobs cannot ask for '{key}'"
                yield Problem("resources/unsupported-field", key, message, hint)
        own = values.get("scheduler_kwargs")
        if own is not None and not isinstance(own, Mapping):
            hint = f"give a mapping of keywords of {self.title}"
            message = f"'scheduler_kwargs' is {own!r}"
            yield Problem("resources/impossible-value", "scheduler_kwargs", message, hint)
        if fields and self.is_batch:
            yield from placement_problems(fields)

    # reading a request --------------------------------------------------------------------------------

    def target_of(self, resources: Resources | None) -> str:
        """Return the queue, partition, QOS and account that resources ask for: ``partition a, qos b``."""
        values = dict(resources.values) if resources is not None else {}
        values |= own_keywords_of(values)
        return ", ".join(f"{key} {values[key]}" for key in TARGET_KEYWORDS if values.get(key) is not None)

    def request_of(self, resources: Resources | None) -> ResourceRequest:
        """Return the cores, GPUs and time that resources ask for."""
        if resources is None or not self.is_batch:
            return UNKNOWN
        values = {key: value for key, value in resources.values.items() if value is not None}
        if resources.generic:
            return generic_request(values)
        # Lines written by hand may ask for anything.
        if re.search(r"^\s*#(SBATCH|PBS|\$)", str(values.get(VERBATIM, "")), re.MULTILINE):
            return UNKNOWN
        return self.keyword_request(values)

    def keyword_request(self, values: Mapping[str, Any]) -> ResourceRequest:
        """Return the same for keywords of this scheduler."""
        return UNKNOWN


def impossible_value(key: str, value: str, hint: str, where: str = "") -> Problem:
    """Return the problem that a keyword has a value which the scheduler does not take."""
    return Problem("resources/impossible-value", key, f"'{key}' cannot be {value}{where}", hint)


def unsafe_values(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (JSON pointer, reason) of every value that must not reach the header of a script.

    A line break would start a script line of its own. ``$$`` has a meaning in the templates of qtoolkit:
    jobflow-remote drops such a line silently.
    """
    for key, value in values.items():
        pointer = f"{path}/{key}"
        if isinstance(value, Mapping):
            yield from unsafe_values(value, pointer)
        elif isinstance(value, str) and key != VERBATIM:
            if any(ord(character) < 32 or ord(character) == 127 for character in value):
                yield pointer, "has a line break or control character, which would start another script line"
            elif "$$" in value:
                yield pointer, "has '$$', which templates of qtoolkit take for a placeholder"
        elif isinstance(value, list):
            yield pointer, "is a list; a scheduler keyword takes one plain value"
