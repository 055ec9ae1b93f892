"""Slurm: its keywords, its directives, and what a request in them amounts to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.model.schedulers.base import Scheduler, impossible_value
from reconciler.model.schedulers.generic import QRESOURCES_FIELDS, Problem, distribution
from reconciler.model.schedulers.requests import ResourceRequest, count, last_number, product, whole


class Slurm(Scheduler):
    """Slurm."""

    name = "slurm"
    title = "Slurm"
    prefix = "#SBATCH"
    directives: Mapping[str, str] = {
        "partition": "--partition={}",
        "job_name": "--job-name={}",
        "nodes": "--nodes={}",
        "ntasks": "--ntasks={}",
        "ntasks_per_node": "--ntasks-per-node={}",
        "cpus_per_task": "--cpus-per-task={}",
        "mem": "--mem={}",
        "mem_per_cpu": "--mem-per-cpu={}",
        "hint": "--hint={}",
        "time": "--time={}",
        "exclude_nodes": "--exclude={}",
        "account": "--account={}",
        "mail_user": "--mail-user={}",
        "mail_type": "--mail-type={}",
        "constraint": "--constraint={}",
        "gres": "--gres={}",
        "nodelist": "--nodelist={}",
        "propagate": "--propagate={}",
        "licenses": "--licenses={}",
        "qout_path": "--output={}",
        "qerr_path": "--error={}",
        "qos": "--qos={}",
        "priority": "--priority={}",
        "array": "--array={}",
        "exclusive": "--exclusive={}",
        "gpus": "--gpus={}",
        "gpus_per_node": "--gpus-per-node={}",
        "requeue": "--requeue={}",
        "clusters": "--clusters={}",
        "reservation": "--reservation={}",
    }
    flags: Mapping[str, tuple[str, str]] = {
        "exclusive": ("--exclusive", ""),
        "requeue": ("--requeue", "--no-requeue"),
    }
    # Many clusters start a job again when its node dies; reconciler decides how often an attempt runs.
    defaults: Mapping[str, Any] = {"requeue": False}
    # A controller that has lost its state starts ended jobs again: that must not empty their logs.
    fixed = ("--open-mode=append",)
    generic_fields = QRESOURCES_FIELDS - {"rerunnable", "project"}
    commands = ("sbatch", "squeue", "scancel", "scontrol")
    version_command = "squeue --version"
    accounting_command = "sacct -n -X -j 1"
    time_keyword = "time"
    unsafe_in_paths = "%\\"

    def quoted(self, key: str, value: str) -> str:
        """Sbatch reads a directive as a shell would: blanks and quotes end a value unless they are quoted."""
        if not re.search(r"[\s\"'\\#]", value):
            return value
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    def from_generic(self, fields: Mapping[str, Any], own_keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Return generic resources as keywords of Slurm."""
        nodes, processes, per_node = distribution(fields)
        seconds = fields.get("time_limit")
        email = fields.get("email_address") or None
        found = {
            "partition": fields.get("queue_name"),
            "nodes": nodes,
            "ntasks": processes,
            "ntasks_per_node": per_node,
            "cpus_per_task": fields.get("threads_per_process"),
            "mem_per_cpu": fields.get("memory_per_thread"),
            "time": _duration(seconds) if seconds else None,
            "account": fields.get("account"),
            "qos": fields.get("qos"),
            "priority": fields.get("priority"),
            "gres": f"gpu:{fields['gpus_per_job']}" if fields.get("gpus_per_job") else None,
            "mail_user": email,
            "mail_type": "ALL" if email else None,
        }
        return {key: value for key, value in found.items() if value is not None} | dict(own_keywords)

    def value_problems(self, key: str, value: Any) -> Iterator[Problem]:
        """Yield the values that sbatch refuses, or takes for something else."""
        if key == "requeue" and not isinstance(value, bool):
            yield impossible_value(key, f"'{value}'", "give true or false")
        elif key == "time" and not _is_time(value):
            hint = (
                "give minutes, H:M:S or D-H:M:S, such as 1-12:00:00; `time: 0` and UNLIMITED ask for no limit"
            )
            yield impossible_value(key, repr(value), hint)
        elif key in _COUNTS and whole(value) is None:
            yield impossible_value(key, repr(value), "give a whole number of at least 1")

    def keyword_request(self, values: Mapping[str, Any]) -> ResourceRequest:
        """Return what keywords ask for; nodes alone say nothing, since their cores depend on the site."""
        cores = None
        gives_cores = {"ntasks", "ntasks_per_node", "cpus_per_task"} & values.keys()
        if gives_cores and values.get("exclusive", False) is False:
            spread = product(count(values, "nodes"), count(values, "ntasks_per_node"))
            tasks = whole(values["ntasks"]) if "ntasks" in values else spread
            cores = product(tasks, count(values, "cpus_per_task"))
        return ResourceRequest(cores, slurm_seconds(values.get("time")), _gpus(values))


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24}:{minutes}:{seconds}"


def _gpus(values: Mapping[str, Any]) -> int | None:
    """Return the GPUs of a job: ``gpus`` counts for the job, ``gpus_per_node`` and ``gres`` for each node."""
    if "gpus" in values:
        return last_number(values["gpus"])
    nodes = count(values, "nodes")
    if "gpus_per_node" in values:
        return product(last_number(values["gpus_per_node"]), nodes)
    gres = str(values.get("gres", ""))
    if not gres.startswith("gpu"):
        return 0 if "gpu" not in gres else None
    return product(1 if gres == "gpu" else last_number(gres), nodes)


_COUNTS = frozenset({"ntasks", "ntasks_per_node", "cpus_per_task"})
"""Keywords that take one number. ``nodes`` may also be a range, ``2-4``."""


def _is_time(value: object) -> bool:
    text = str(value).strip()
    return text.upper() in ("0", "INFINITE", "UNLIMITED") or slurm_seconds(value) is not None


_TIME = re.compile(r"(?:(\d{1,6})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?")


def slurm_seconds(value: object) -> int | None:
    """Return the seconds of ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``; None for 0."""
    found = _TIME.fullmatch(str(value).strip())
    if found is None or isinstance(value, bool):
        return None
    days, first, second, third = (int(part) if part is not None else None for part in found.groups())
    if days is not None or third is not None:
        hours, minutes, seconds = first, second, third
    else:
        hours, minutes, seconds = 0, first, second
    return ((days or 0) * 86400 + (hours or 0) * 3600 + (minutes or 0) * 60 + (seconds or 0)) or None
