"""Grid Engine: its keywords, its directives, and what a request amounts to.

Grid Engine has neither ``select`` nor processes: it counts slots in a parallel environment, which the site
defines and the user names. The environment also decides how the slots are spread over nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.model.schedulers.base import Scheduler, impossible_value
from reconciler.model.schedulers.generic import (
    COUNTS,
    QRESOURCES_FIELDS,
    Problem,
    own_keywords_of,
    slots_of,
)
from reconciler.model.schedulers.pbs import clock, pbs_like_keywords
from reconciler.model.schedulers.requests import (
    ResourceRequest,
    clock_seconds,
    is_clock,
    options_of,
    whole,
    whole_number,
)

_ONE_WORD = re.compile(r"[^\s\"'\\]*")
_TWO_WORDS = {
    "model": re.compile(r"[^\s\"'\\-]\S* [\d,-]+"),
    "place": re.compile(r"((env|pe|set) )?[^\s\"'\\-][^\s\"'\\]*"),
}
"""Keywords whose value may have two words: ``-pe mpi 16``, ``-binding env linear:2``."""


class SGE(Scheduler):
    """Grid Engine: Sun, Son of, Univa, Altair, Open Cluster Scheduler."""

    name = "sge"
    title = "Grid Engine"
    prefix = "#$"
    directives: Mapping[str, str] = {
        "cwd": "-cwd",
        "queue": "-q {}",
        "job_name": "-N {}",
        "device": "-P {}",
        "select": "-l {}",
        "walltime": "-l h_rt={}",
        "soft_walltime": "-l s_rt={}",
        "model": "-pe {}",
        "place": "-binding {}",
        "group_list": "-W group_list={}",
        "mail_user": "-M {}",
        "mail_type": "-m {}",
        "qout_path": "-o {}",
        "qerr_path": "-e {}",
        "priority": "-p {}",
        "rerunnable": "-r {}",
        "array": "-t {}",
    }
    flags: Mapping[str, tuple[str, str]] = {"rerunnable": ("-r y", "-r n")}
    # Without `-cwd` and `-S` a job runs in the home directory, often with a C shell. Started again,
    # an attempt would find itself claimed.
    defaults: Mapping[str, Any] = {"cwd": "", "rerunnable": False}
    fixed = ("-S /bin/bash",)
    generic_fields = QRESOURCES_FIELDS - {"gpus_per_job", "qos", "account"}
    commands = ("qsub", "qstat", "qdel")
    version_command = "qstat -help"
    # That there is no such job is an answer of the accounting; anything else is not.
    time_keyword = "walltime"
    accounting_command = "qacct -j 1 2>&1 | grep -qE 'job id 1 not found|^jobnumber' || qacct -j 1 >/dev/null"

    def from_generic(self, fields: Mapping[str, Any], own_keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Return generic resources as keywords; ``model`` names the parallel environment."""
        found = pbs_like_keywords(fields)
        if "time_limit" in fields:
            found["soft_walltime"] = clock(int(fields["time_limit"] * 0.99))
        if fields.get("project") is not None:
            found["device"] = fields["project"]
        found |= own_keywords
        environment = str(own_keywords.get("model", ""))
        if environment and len(environment.split()) == 1:
            found["model"] = f"{environment} {slots_of(fields)}"
        if "memory_per_thread" in fields:
            memory = f"mem_free={fields['memory_per_thread']}M"
            found["select"] = f"{own_keywords['select']},{memory}" if "select" in own_keywords else memory
        return found

    def value_problems(self, key: str, value: Any) -> Iterator[Problem]:
        """Yield what the master would refuse as an "invalid job object"; quotes do not help."""
        if key == "group_list":
            message = "'group_list' is an option of PBS, not of Grid Engine"
            hint = "for a project set `device`, which is -P"
            yield Problem("resources/impossible-value", key, message, hint)
        elif not isinstance(value, bool) and not _TWO_WORDS.get(key, _ONE_WORD).fullmatch(str(value)):
            yield impossible_value(key, repr(str(value)), "blanks and quotes end it", " with Grid Engine")
        elif key in ("walltime", "soft_walltime") and not is_clock(value):
            yield impossible_value(key, repr(value), "give seconds, or H:M:S such as 24:00:00 for one day")
        elif key == "priority" and not -1023 <= whole_number(value, -1024) <= 1024:
            yield impossible_value(key, repr(value), "give a whole number from -1023 to 1024")

    def generic_problems(self, values: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield what generic resources lack: more than one slot needs a parallel environment."""
        yield from super().generic_problems(values)
        wrong = any(not isinstance(values[key], int) for key in COUNTS & values.keys())
        slots = 1 if wrong else slots_of(values)
        if slots > 1 and not own_keywords_of(values).get("model"):
            yield Problem(
                "resources/parallel-environment",
                None,
                f"Grid Engine gives {slots} slots only in a parallel environment",
                "name one of your site (`qconf -spl` lists them): scheduler_kwargs: {model: NAME}",
            )

    def keyword_request(self, values: Mapping[str, Any]) -> ResourceRequest:
        """Return what keywords ask for: ``-pe mpi 16`` gives the slots; a range of slots is unknown."""
        select = str(values.get("select", ""))
        asked = options_of(select)
        slots = re.fullmatch(r"\s*\S+\s+(\d+)\s*", str(values.get("model", "")))
        cores = whole(slots[1]) if slots is not None and "excl" not in select else None
        gpus = 0 if not any("gpu" in name for name in asked) else None
        return ResourceRequest(cores, clock_seconds(values.get("walltime", asked.get("h_rt"))), gpus)
