"""What each scheduler understands: its keywords, and the generic QResources fields it supports.

The tables repeat what qtoolkit's templates and converters accept, so that a plan needs no import of
qtoolkit; ``tests/model/test_schedulers.py`` compares them with the installed qtoolkit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SHELL_KEYWORDS = _words("job_name qout_path qerr_path qverbatim")

KEYWORDS: Mapping[str, frozenset[str]] = {
    "shell": SHELL_KEYWORDS,
    "slurm": _words(
        "partition job_name nodes ntasks ntasks_per_node cpus_per_task mem mem_per_cpu hint time "
        "exclude_nodes account mail_user mail_type constraint gres requeue nodelist propagate licenses "
        "qout_path qerr_path qos priority array exclusive gpus gpus_per_node qverbatim"
    ),
    "pbs": _words(
        "queue job_name account select walltime model place group_list mail_user mail_type qout_path "
        "qerr_path priority rerunnable array qverbatim"
    ),
    "sge": _words(
        "cwd queue job_name device select walltime soft_walltime model place group_list mail_user "
        "mail_type qout_path qerr_path priority rerunnable array qverbatim"
    ),
}
"""Per scheduler_type the keywords that ``resources`` may have."""

QRESOURCES_FIELDS = _words(
    "queue_name job_name memory_per_thread nodes processes processes_per_node threads_per_process "
    "gpus_per_job time_limit account qos priority output_filepath error_filepath process_placement "
    "email_address rerunnable project njobs scheduler_kwargs"
)
"""The fields of qtoolkit's generic QResources."""

_NO_PBS_FIELDS = _words("gpus_per_job qos")

QRESOURCES_SUPPORTED: Mapping[str, frozenset[str]] = {
    "shell": _words("job_name output_filepath error_filepath"),
    "slurm": QRESOURCES_FIELDS - _words("rerunnable project"),
    "pbs": QRESOURCES_FIELDS - _NO_PBS_FIELDS,
    "sge": QRESOURCES_FIELDS - _NO_PBS_FIELDS - _words("account"),
}
"""Per scheduler_type the fields of QResources that have a meaning there."""

RESERVED = frozenset(
    {"job_name", "qout_path", "qerr_path", "array", "output_filepath", "error_filepath", "njobs"}
)
"""Set by the executor for every job: a job is found again by its name and its files."""


def unsafe_values(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (pointer, reason) of every value that must not reach a scheduler's header.

    qtoolkit substitutes without quoting: a newline would become a script line of its own, and ``$$``
    makes qtoolkit drop the line without a word.
    """
    for key, value in values.items():
        pointer = f"{path}/{key}"
        if isinstance(value, Mapping):
            yield from unsafe_values(value, pointer)
        elif isinstance(value, str) and key != "qverbatim":
            if any(ord(character) < 32 or ord(character) == 127 for character in value):
                yield (
                    pointer,
                    "has a line break or control character, which would become a script line of its own",
                )
            elif "$$" in value:
                yield pointer, "has '$$', which the template engine takes for a placeholder"
        elif isinstance(value, list):
            yield pointer, "is a list; a scheduler keyword takes one plain value"


class Misfit(NamedTuple):
    """A keyword that the scheduler has, or seems to have, with a value that it does not take."""

    key: str
    message: str
    hint: str


FLAGS: Mapping[str, frozenset[str]] = {
    "shell": frozenset(),
    "slurm": frozenset({"exclusive", "requeue"}),
    "pbs": frozenset({"rerunnable"}),
    "sge": frozenset({"rerunnable"}),
}
"""Per scheduler_type the keywords that may be true or false."""

_SGE_WORDS = {
    "model": re.compile(r"[^\s\"'\\-]\S* [\d,-]+"),
    "place": re.compile(r"((env|pe|set) )?[^\s\"'\\-][^\s\"'\\]*"),
}
"""Keywords of Grid Engine whose value may have two words: ``-pe mpi 16``, ``-binding env linear:2``."""

_ONE_WORD = re.compile(r"[^\s\"'\\]*")


def misfits(scheduler: str, keywords: Mapping[str, Any]) -> Iterator[Misfit]:
    """Yield what a scheduler does not take of keywords that are known to it."""
    for key, value in keywords.items():
        if key == "qverbatim":
            continue
        if isinstance(value, bool) and key not in FLAGS[scheduler]:
            yield Misfit(key, f"'{key}' cannot be {str(value).lower()}", "give a text or a number")
        elif scheduler == "slurm" and key == "requeue" and not isinstance(value, bool):
            yield Misfit(key, f"'requeue' cannot be '{value}'", "give true or false")
        elif scheduler == "sge":
            yield from _sge_misfits(key, value)


def _sge_misfits(key: str, value: Any) -> Iterator[Misfit]:
    if key == "group_list":
        message = "'group_list' is an option of PBS, not of Grid Engine"
        yield Misfit(key, message, "for a project set `device`, which is -P")
    elif not isinstance(value, bool) and not _SGE_WORDS.get(key, _ONE_WORD).fullmatch(str(value)):
        # Its quotes are no help: the master refuses such a value as an "invalid job object".
        yield Misfit(key, f"'{key}' cannot be {str(value)!r} with Grid Engine", "blanks and quotes end it")
