"""How the schedulers of the places are spoken to, behind the back of the product."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tests.services.gridengine import GridEngine
from tests.services.places import Place
from tests.services.slurm import Slurm


@dataclass(frozen=True)
class Request:
    """What a scheduler says that a job has asked for; ``seconds`` is None without a time limit."""

    name: str
    queue: str
    seconds: int | None
    slots: int


class Scheduler(Protocol):
    """Requests in the keywords of one scheduler, and a look at its jobs.

    ``held`` and ``generic`` ask for the same, in keywords and as QResources: ``queue``, ``SECONDS`` and
    ``SLOTS``; ``default`` asks for that queue, ``DEFAULT_SECONDS`` and one slot. ``refused`` is not taken,
    for the reason ``refusal``; ``never`` is taken and cannot start, for the reason ``why``. ``overdue`` has a
    short time limit, as far as that is possible.
    """

    queue: str
    held: Mapping[str, Any]
    generic: Mapping[str, Any]
    default: Mapping[str, Any]
    refused: Mapping[str, Any]
    refusal: str
    never: Mapping[str, Any]
    why: str
    overdue: Mapping[str, Any]

    def request(self, queue_id: str) -> Request:
        """Return what a job has asked for, in the queue or over."""
        ...

    def is_unasked(self, request: Request) -> bool:
        """Whether this is what a job gets that asks for nothing."""
        ...

    def end(self, queue_id: str) -> None:
        """End a job as somebody else may."""
        ...

    def has(self, queue_id: str) -> bool:
        """Whether a job is in the queue."""
        ...

    def hurry(self, queue_id: str) -> None:
        """Bring the time limit of a running job near, where a short one cannot be asked for."""
        ...


SECONDS, SLOTS, DEFAULT_SECONDS = 420, 2, 540


class OnSlurm:
    """A Slurm with the partitions ``debug`` and ``batch``."""

    queue = "batch"
    held: Mapping[str, Any] = {
        "partition": "batch", "time": "00:07:00", "ntasks": 2, "qverbatim": "#SBATCH --hold",
    }  # fmt: skip
    generic: Mapping[str, Any] = {"queue_name": "batch", "time_limit": SECONDS, "processes": SLOTS}
    default: Mapping[str, Any] = {"partition": "batch", "time": "00:09:00"}
    refused: Mapping[str, Any] = {"partition": "nosuch"}
    refusal = "invalid partition specified"
    never: Mapping[str, Any] = {"partition": "debug", "time": "02:00:00"}
    why = "PartitionTimeLimit"
    overdue: Mapping[str, Any] = {"partition": "batch", "time": "00:01:00"}

    def __init__(self, slurm: Slurm) -> None:
        self.slurm = slurm

    def request(self, queue_id: str) -> Request:
        """Return what ``scontrol`` says of a job."""
        text = self.slurm.call("scontrol", "show", "job", queue_id)
        found = dict(re.findall(r"\b(JobName|Partition|TimeLimit|NumTasks)=(\S+)", text))
        hours, minutes, seconds = map(int, found["TimeLimit"].split(":"))
        limit = 3600 * hours + 60 * minutes + seconds
        return Request(found["JobName"], found["Partition"], limit, int(found["NumTasks"]))

    def is_unasked(self, request: Request) -> bool:
        """The default partition and its limit, for one task."""
        return (request.queue, request.seconds, request.slots) == ("debug", 3600, 1)

    def end(self, queue_id: str) -> None:
        """Cancel a job."""
        self.slurm.call("scancel", queue_id)

    def has(self, queue_id: str) -> bool:
        """Whether a job waits, runs, or is just ending."""
        return self.slurm.state(queue_id) in ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED")

    def hurry(self, queue_id: str) -> None:
        """Limits are whole minutes, but the end may be set to the second. The controller looks every 30 s."""
        self.slurm.call("scontrol", "update", f"JobId={queue_id}", "EndTime=now+1")


class OnGridEngine:
    """A Grid Engine with the queues ``all.q`` and ``batch.q`` and the parallel environment ``smp``."""

    queue = "batch.q"
    held: Mapping[str, Any] = {"queue": "batch.q", "walltime": "420", "model": "smp 2", "qverbatim": "#$ -h"}
    generic: Mapping[str, Any] = {
        "queue_name": "batch.q",
        "time_limit": SECONDS,
        "processes": SLOTS,
        "scheduler_kwargs": {"model": "smp"},
    }
    default: Mapping[str, Any] = {"queue": "batch.q", "walltime": "540"}
    refused: Mapping[str, Any] = {"queue": "nosuch.q"}
    refusal = "unknown queue"
    never: Mapping[str, Any] = {"qverbatim": "#$ -o /nonexistent/x"}
    why = "error state"
    overdue: Mapping[str, Any] = {"walltime": "3"}

    def __init__(self, sge: GridEngine) -> None:
        self.sge = sge

    def request(self, queue_id: str) -> Request:
        """Return what ``qstat -j`` says of a job or, when it is over, the accounting."""
        if self.sge.state(queue_id):
            text = self.sge.call("qstat", "-j", queue_id)
            name, queue = _found(r"^job_name: +(\S+)", text), _found(r"^hard_queue_list: +(\S+)", text)
            slots = _found(r"^parallel environment: +smp range: (\d+)", text)
            return Request(name, queue, _limit(text), int(slots or 1))
        record = self.sge.record(queue_id)
        asked = record.get("category", "")
        queue = record["qname"] if "-q " in asked else ""
        return Request(record["jobname"], queue, _limit(asked), int(record["slots"]))

    def is_unasked(self, request: Request) -> bool:
        """Any queue, no limit, one slot."""
        return (request.queue, request.seconds, request.slots) == ("", None, 1)

    def end(self, queue_id: str) -> None:
        """Delete a job."""
        self.sge.call("qdel", queue_id)

    def has(self, queue_id: str) -> bool:
        """Whether a job is listed."""
        return self.sge.state(queue_id) != ""

    def hurry(self, queue_id: str) -> None:
        """Nothing: a limit of a few seconds can be asked for."""


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def _limit(text: str) -> int | None:
    return int(_found(r"\bh_rt=(\d+)", text) or 0) or None


def scheduler_of(place: Place) -> Scheduler | None:
    """Return the scheduler of a place; None for a plain shell, which knows neither queues nor limits."""
    if place.slurm is not None:
        return OnSlurm(place.slurm)
    return OnGridEngine(place.sge) if place.sge is not None else None
