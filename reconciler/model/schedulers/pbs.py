"""PBS (OpenPBS and PBS Professional): its keywords, its directives, and what a request amounts to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.model.schedulers.base import Scheduler, impossible_value
from reconciler.model.schedulers.generic import QRESOURCES_FIELDS, Problem, distribution
from reconciler.model.schedulers.requests import (
    ResourceRequest,
    clock_seconds,
    is_clock,
    options_of,
    product,
    total,
    whole,
    whole_number,
)


class PBS(Scheduler):
    """PBS."""

    name = "pbs"
    title = "PBS"
    prefix = "#PBS"
    directives: Mapping[str, str] = {
        "queue": "-q {}",
        "job_name": "-N {}",
        "account": "-A {}",
        "select": "-l {}",
        "walltime": "-l walltime={}",
        "model": "-l model={}",
        "place": "-l place={}",
        "group_list": "-W group_list={}",
        "mail_user": "-M {}",
        "mail_type": "-m {}",
        "qout_path": "-o {}",
        "qerr_path": "-e {}",
        "priority": "-p {}",
        "rerunnable": "-r {}",
        "array": "-J {}",
        "project": "-P {}",
    }
    flags: Mapping[str, tuple[str, str]] = {"rerunnable": ("-r y", "-r n")}
    # Started again, an attempt would find itself claimed.
    defaults: Mapping[str, Any] = {"rerunnable": False}
    fixed = ("-S /bin/bash",)
    generic_fields = QRESOURCES_FIELDS - {"gpus_per_job", "qos"}
    commands = ("qsub", "qstat", "qdel")
    version_command = "qstat --version"
    time_keyword = "walltime"
    accounting_command = (
        "qstat -B -f >/dev/null && { qstat -B -f | grep -q 'job_history_enable = True' || "
        "{ echo 'job_history_enable is not True' >&2; false; }; }"
    )
    accounting_fix = "ask the administrators for `qmgr -c 'set server job_history_enable = true'`"

    def quoted(self, key: str, value: str) -> str:
        """Blanks, quotes and backslashes would end a value: PBS takes them after a backslash."""
        if key == "select":
            value = with_select(value)
        return re.sub(r"([\s\"'\\])", r"\\\1", value.strip())

    def from_generic(self, fields: Mapping[str, Any], own_keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Return generic resources as keywords of PBS."""
        found = pbs_like_keywords(fields)
        found |= {key: fields[key] for key in ("account", "project") if fields.get(key) is not None}
        nodes, processes, per_node = distribution(fields)
        threads = fields.get("threads_per_process") or 1
        memory = fields.get("memory_per_thread") or 0
        if per_node is None:
            select = f"select={processes}"
            cores = threads
            if "threads_per_process" in fields:
                select += f":ncpus={threads}:ompthreads={threads}"
        else:
            cores = per_node * threads
            select = f"select={nodes}:ncpus={cores}:mpiprocs={per_node}"
            select += f":ompthreads={threads}" if threads > 1 else ""
            found["place"] = "pack" if fields.get("process_placement") == "SAME_NODE" else "scatter"
        found["select"] = select + (f":mem={cores * memory}mb" if memory else "")
        return found | dict(own_keywords)

    def value_problems(self, key: str, value: Any) -> Iterator[Problem]:
        """Yield a walltime or a priority that qsub refuses."""
        if key == "walltime" and not is_clock(value):
            yield impossible_value(key, repr(value), "give seconds, or H:M:S such as 24:00:00 for one day")
        if key == "priority" and not -1024 <= (whole_number(value, -1025)) <= 1023:
            yield impossible_value(key, repr(value), "give a whole number from -1024 to 1023")

    def keyword_request(self, values: Mapping[str, Any]) -> ResourceRequest:
        """Return what keywords ask for: the sum over the chunks of ``select``."""
        asked = options_of(with_select(str(values.get("select", ""))))
        seconds = clock_seconds(values.get("walltime", asked.get("walltime")))
        if "excl" in str(values.get("place", "")) + asked.get("place", ""):
            return ResourceRequest(None, seconds, None)
        chunks = asked.get("select", asked.get("nodes", "")).split("+")
        gpus = total([_of_chunk(chunk, "ngpus", "gpus", missing=0) for chunk in chunks])
        if "select" in asked or "nodes" in asked:
            unit = "ncpus" if "select" in asked else "ppn"
            cores = total([_of_chunk(chunk, unit, missing=None) for chunk in chunks])
        else:
            cores = whole(asked.get("ncpus", asked.get("procs")))
        return ResourceRequest(cores, seconds, gpus)


_CHUNK = re.compile(r"\s*(\d|(?!select=|nodes=|place=|\w*(time|cput)=)\w+=[^,:+]*[:+])")


def with_select(value: str) -> str:
    """Return what follows ``-l``: the natural ``2:ncpus=4`` is ``select=2:ncpus=4``.

    A list of resources without chunks, such as ``ncpus=4,mem=1gb``, stays as it is.
    """
    return f"select={value.strip()}" if _CHUNK.match(value) else value


def pbs_like_keywords(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords that PBS and Grid Engine spell alike."""
    seconds = fields.get("time_limit")
    email = fields.get("email_address") or None
    found = {
        "queue": fields.get("queue_name"),
        "priority": fields.get("priority"),
        "walltime": clock(seconds) if seconds else None,
        "rerunnable": fields.get("rerunnable"),
        "mail_user": email,
        "mail_type": "abe" if email else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def clock(seconds: int) -> str:
    """Return seconds as ``H:M:S``."""
    return f"{seconds // 3600}:{seconds % 3600 // 60}:{seconds % 60}"


def _of_chunk(chunk: str, *units: str, missing: int | None) -> int | None:
    """Return how much ``2:ncpus=8:ngpus=1`` has of a unit; without a number in front there is one chunk."""
    first, *rest = chunk.split(":")
    pairs = dict(part.partition("=")[::2] for part in (first, *rest))
    unit = next((unit for unit in units if f":{unit}=" in f":{chunk}"), None)
    if unit is None:
        return missing
    return product(1 if "=" in first else whole(first), whole(pairs[unit]))
