"""What a scheduler request asks for: cores, GPUs and time, where the manifest says them. Pure.

Nothing is guessed: what depends on the site (whole nodes, default cores, a queue's time limit) is unknown.
Only defaults that belong to the scheduler's own language count, as one CPU a task in Slurm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from reconciler.model.settings import Resources


class ResourceRequest(msgspec.Struct, frozen=True):
    """What one job asks for; None where that is unknown. ``seconds`` is the limit of its run time."""

    cores: int | None = None
    seconds: int | None = None
    gpus: int | None = 0

    @property
    def core_hours(self) -> float | None:
        """The most that the job can use: cores x time limit."""
        return None if self.cores is None or self.seconds is None else self.cores * self.seconds / 3600

    @property
    def gpu_hours(self) -> float | None:
        """The most that the job can use: GPUs x time limit."""
        return None if self.gpus is None or self.seconds is None else self.gpus * self.seconds / 3600


UNKNOWN = ResourceRequest(gpus=None)


def request_of(scheduler: str, resources: Resources | None) -> ResourceRequest:
    """Return what resources ask for; a plain shell gives no cores and no limit."""
    reader = _READERS.get(scheduler)
    if reader is None or resources is None:
        return UNKNOWN
    values = {key: value for key, value in resources.values.items() if value is not None}
    if resources.generic:
        return _generic(values)
    return UNKNOWN if _has_directives(values) else reader(values)


_DIRECTIVE = re.compile(r"^\s*#(SBATCH|PBS|\$)", re.MULTILINE)


def _has_directives(values: Mapping[str, Any]) -> bool:
    """Lines written out by hand may ask for anything."""
    return _DIRECTIVE.search(str(values.get("qverbatim", ""))) is not None


def whole(value: object) -> int | None:
    """Return a positive whole number, also one written as text; None for all else."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _number(values: Mapping[str, Any], key: str, default: int | None = 1) -> int | None:
    return whole(values[key]) if key in values else default


def _product(*factors: int | None) -> int | None:
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


def _sum(terms: list[int | None]) -> int | None:
    known = [term for term in terms if term is not None]
    return sum(known) if len(known) == len(terms) else None


# Slurm ----------------------------------------------------------------------------------------------------


def _slurm(values: Mapping[str, Any]) -> ResourceRequest:
    return ResourceRequest(_slurm_cores(values), slurm_seconds(values.get("time")), _slurm_gpus(values))


def _slurm_cores(values: Mapping[str, Any]) -> int | None:
    """Nodes alone say nothing: how many cores come with a node is the site's business."""
    said = {"ntasks", "ntasks_per_node", "cpus_per_task"}
    if not said & values.keys() or values.get("exclusive", False) is not False:
        return None
    spread = _product(_number(values, "nodes"), _number(values, "ntasks_per_node"))
    tasks = whole(values["ntasks"]) if "ntasks" in values else spread
    return _product(tasks, _number(values, "cpus_per_task"))


def _slurm_gpus(values: Mapping[str, Any]) -> int | None:
    """``gpus`` are for the job; ``gpus_per_node`` and ``gres: gpu:a100:2`` for each node."""
    if "gpus" in values:
        return _last_number(values["gpus"])
    nodes = _number(values, "nodes")
    if "gpus_per_node" in values:
        return _product(_last_number(values["gpus_per_node"]), nodes)
    gres = str(values.get("gres", ""))
    if not gres.startswith("gpu"):
        return 0 if "gpu" not in gres else None
    return _product(1 if gres == "gpu" else _last_number(gres), nodes)


def _last_number(value: object) -> int | None:
    """Of ``2`` and ``a100:2`` the number; several kinds in one list are not added up."""
    text = str(value)
    return None if "," in text else whole(text.rpartition(":")[2])


_SLURM_TIME = re.compile(r"(?:(\d{1,6})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?")


def slurm_seconds(value: object) -> int | None:
    """Return seconds of ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M``, ``D-H:M:S``; 0 is no limit."""
    found = _SLURM_TIME.fullmatch(str(value).strip())
    if found is None or isinstance(value, bool):
        return None
    days, *clock = (int(part) if part is not None else None for part in found.groups())
    first, second, third = clock
    if days is not None or third is not None:
        hours, minutes, seconds = first, second, third
    else:
        hours, minutes, seconds = 0, first, second
    total = (days or 0) * 86400 + (hours or 0) * 3600 + (minutes or 0) * 60 + (seconds or 0)
    return total or None


# PBS and Grid Engine --------------------------------------------------------------------------------------


def clock_seconds(value: object) -> int | None:
    """Return seconds of ``S``, ``M:S``, ``H:M:S`` or ``D:H:M:S``; an empty part is 0, and 0 is no limit."""
    parts = str(value).strip().split(":")
    if len(parts) > 4 or isinstance(value, bool) or not all(re.fullmatch(r"\d{0,9}", part) for part in parts):
        return None
    weights = (1, 60, 3600, 86400)
    total = sum(int(part or 0) * weight for part, weight in zip(reversed(parts), weights, strict=False))
    return total or None


def _pbs(values: Mapping[str, Any]) -> ResourceRequest:
    asked = _list_of(values.get("select", ""))
    time = values.get("walltime", asked.get("walltime"))
    if "excl" in str(values.get("place", "")) + asked.get("place", ""):
        return ResourceRequest(None, clock_seconds(time), None)
    return ResourceRequest(_pbs_cores(asked), clock_seconds(time), _pbs_gpus(asked))


def _list_of(value: object) -> dict[str, str]:
    """Read ``select=2:ncpus=8,walltime=1:00:00``: what follows ``-l``."""
    items = (item.partition("=") for item in str(value).replace(" ", "").split(","))
    return {name: rest for name, _, rest in items}


def _pbs_cores(asked: Mapping[str, str]) -> int | None:
    for name, unit in (("select", "ncpus"), ("nodes", "ppn")):
        if name in asked:
            return _sum(
                [_product(_chunks(chunk), _of_chunk(chunk, unit)) for chunk in asked[name].split("+")]
            )
    return whole(asked.get("ncpus", asked.get("procs")))


def _pbs_gpus(asked: Mapping[str, str]) -> int | None:
    chunks = asked.get("select", asked.get("nodes", "")).split("+")
    return _sum([_gpus_of_chunk(chunk) for chunk in chunks])


def _gpus_of_chunk(chunk: str) -> int | None:
    for unit in ("ngpus", "gpus"):
        if f":{unit}=" in chunk:
            return _product(_chunks(chunk), _of_chunk(chunk, unit))
    return 0


def _chunks(chunk: str) -> int | None:
    """How many of it: the number in front, one if there is none; the name of a host tells nothing."""
    first = chunk.partition(":")[0]
    return 1 if "=" in first else whole(first)


def _of_chunk(chunk: str, unit: str) -> int | None:
    facts = dict(part.partition("=")[::2] for part in chunk.split(":"))
    return whole(facts.get(unit))


def _sge(values: Mapping[str, Any]) -> ResourceRequest:
    """``model`` is the parallel environment, ``-pe mpi 16``; a range of slots is unknown."""
    asked = _list_of(values.get("select", ""))
    slots = re.fullmatch(r"\s*\S+\s+(\d+)\s*", str(values.get("model", "")))
    cores = whole(slots[1]) if slots is not None and "excl" not in str(values.get("select", "")) else None
    return ResourceRequest(cores, clock_seconds(values.get("walltime", asked.get("h_rt"))), _sge_gpus(asked))


def _sge_gpus(asked: Mapping[str, str]) -> int | None:
    return 0 if not any("gpu" in name for name in asked) else None


_READERS: Mapping[str, Callable[[Mapping[str, Any]], ResourceRequest]] = {
    "slurm": _slurm,
    "pbs": _pbs,
    "sge": _sge,
}


# qtoolkit's generic QResources ----------------------------------------------------------------------------

_HARMLESS = {
    *("partition", "queue", "account", "group_list", "qos", "priority", "licenses", "constraint", "hint"),
    *("mem", "mem_per_cpu", "mail_user", "mail_type", "requeue", "rerunnable", "exclude_nodes"),
}
"""Keywords of a scheduler that change neither cores nor time."""


def _generic(values: Mapping[str, Any]) -> ResourceRequest:
    extra = values.get("scheduler_kwargs") or {}
    if not isinstance(extra, Mapping) or not extra.keys() <= _HARMLESS:
        return UNKNOWN
    cores = _product(_processes(values), _number(values, "threads_per_process"))
    gpus = whole(values["gpus_per_job"]) if values.get("gpus_per_job") else 0
    return ResourceRequest(cores, whole(values.get("time_limit")), gpus)


def _processes(values: Mapping[str, Any]) -> int | None:
    if "processes" in values:
        return whole(values["processes"])
    if "processes_per_node" in values:
        return _product(_number(values, "nodes"), whole(values["processes_per_node"]))
    return None
