"""What jobs asked for beside what they used, and better requests. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import JobAttempt, JobRecord
from reconciler.model.retries import Cause
from reconciler.model.schedulers import scheduler_of
from reconciler.model.schedulers.requests import ResourceRequest, clock_text
from reconciler.model.settings import Resources
from reconciler.model.states import JobState
from reconciler.plan.set_rule import WantedValue

ENOUGH = 3
"""Ended jobs of a kind from which a request can be judged."""

_MARGIN = 2.0
"""A proposed time limit is this many times the longest run."""

_TOO_LONG = 4.0
"""A time limit of more than this many times the longest run is worth a proposal."""

_SHORT = 150.0
"""Seconds. Shorter runs say nothing about time limits: a limit of ten minutes is short enough."""

_NEAR = 0.8
"""A share of the time limit from which on a job that was ended by its limit can have had this one."""

_IDLE = 0.5
"""A share of the cores below which their number is worth a look."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What jobs of one function asked for and used, on one worker with the same resources.

    ``longest`` is the longest run in seconds, ``memory`` the most of one process in bytes, both None if no
    job told. ``busy`` is the share of the reserved core time that was CPU time. It is None if unknown, and
    where less than half a core was busy: then ``srun`` or the like ran the work, whose processes are not
    children of the job's. ``core_hours`` are those reserved while the jobs ran. ``walltime`` counts the jobs
    that their time limit has ended, and ``oom`` those that ran out of memory. ``proposal`` are better
    resources, with ``reason``.
    """

    function: str
    worker: str
    resources: Resources | None
    request: ResourceRequest
    jobs: int
    completed: int
    longest: float | None
    memory: int | None
    busy: float | None
    core_hours: float | None
    walltime: int
    oom: int
    reason: str = ""
    proposal: WantedValue | None = None


def uses(jobs: Iterable[JobRecord], workers: Mapping[str, WorkerSpec]) -> list[Use]:
    """Return what ended jobs used, by function; those that reserved the most core-hours first.

    A proposal is for all jobs of a function, so there is none where they ask for different resources.
    """
    tallies: dict[tuple[str, str, str], _Tally] = {}
    for job in jobs:
        worker = job.attempt.worker
        if job.attempt.ended is None or worker is None or worker not in workers:
            continue
        asked = job.asked
        key = json.dumps([asked.values, asked.generic] if asked is not None else None, sort_keys=True)
        if (job.function, worker, key) not in tallies:
            request = scheduler_of(workers[worker].scheduler_type).request_of(asked)
            tallies[job.function, worker, key] = _Tally(asked, request)
        tallies[job.function, worker, key].add(job)
    variants = Counter(function for function, _, _ in tallies)
    found = [
        _with_advice(tally.use(function, worker), workers[worker], is_only=variants[function] == 1)
        for (function, worker, _), tally in tallies.items()
    ]
    return sorted(found, key=lambda use: (-(use.core_hours or 0.0), use.function, use.worker))


class _Tally:
    """Adds up what jobs used that asked for the same."""

    def __init__(self, asked: Resources | None, request: ResourceRequest) -> None:
        self.asked, self.request = asked, request
        self.jobs = self.completed = self.walltime = self.oom = self.memory = 0
        self.longest = self.seconds = self.measured = self.cpu = 0.0

    def add(self, job: JobRecord) -> None:
        """Add a job that has ended."""
        attempt = job.attempt
        seconds = attempt.seconds or 0.0
        self.jobs += 1
        self.completed += job.state is JobState.COMPLETED
        self.walltime += job.cause == Cause.WALLTIME and self._is_limit_of(attempt)
        self.oom += job.cause == Cause.OOM
        self.longest = max(self.longest, seconds)
        self.seconds += seconds
        self.memory = max(self.memory, attempt.memory or 0)
        if attempt.cpu is not None:
            self.measured += seconds
            self.cpu += attempt.cpu

    def _is_limit_of(self, attempt: JobAttempt) -> bool:
        """Whether an attempt came near the limit that its job asks for now: it may have had a shorter one."""
        limit, start, end = self.request.seconds, attempt.started, attempt.ended
        return limit is None or start is None or end is None or end - start >= _NEAR * limit

    def use(self, function: str, worker: str) -> Use:
        """Return the sums, without advice."""
        cores = self.request.cores
        return Use(
            function=function,
            worker=worker,
            resources=self.asked,
            request=self.request,
            jobs=self.jobs,
            completed=self.completed,
            longest=self.longest or None,
            memory=self.memory or None,
            busy=self.cpu / (self.measured * cores)
            if cores and self.cpu >= 0.5 * self.measured > 0
            else None,
            core_hours=self.seconds * cores / 3600 if cores else None,
            walltime=self.walltime,
            oom=self.oom,
        )


def _with_advice(use: Use, spec: WorkerSpec, *, is_only: bool) -> Use:
    reason = "; ".join(_reasons(use))
    limit, asked = _better_limit(use), use.resources
    if limit is None or asked is None or not is_only:
        return msgspec.structs.replace(use, reason=reason)
    if asked.generic:
        proposal = WantedValue("qresources", {**asked.values, "time_limit": limit})
    else:
        keyword = scheduler_of(spec.scheduler_type).time_keyword
        proposal = WantedValue("resources", {**asked.values, keyword: clock_text(limit)})
    return msgspec.structs.replace(use, reason=reason, proposal=proposal)


def _reasons(use: Use) -> Iterator[str]:
    """Yield what is worth a change, in words."""
    if use.walltime:
        yield f"{use.walltime} of {use.jobs} jobs reached their time limit"
    elif _limit_is_too_long(use):
        longest, limit = math.ceil(use.longest or 0), use.request.seconds or 0
        yield f"the longest job took {clock_text(longest)} of {clock_text(limit)}"
    if use.oom:
        yield f"{use.oom} of {use.jobs} jobs ran out of memory"
    if use.busy is not None and (use.request.cores or 0) > 1 and use.completed >= ENOUGH and use.busy < _IDLE:
        yield f"{use.busy:.0%} of {use.request.cores} cores were busy"


def _limit_is_too_long(use: Use) -> bool:
    limit, longest = use.request.seconds, use.longest
    if limit is None or longest is None or use.completed < ENOUGH:
        return False
    return limit > _TOO_LONG * max(longest, _SHORT)


def _better_limit(use: Use) -> int | None:
    """Return a better time limit in seconds; None if the present one is good, or unknown."""
    limit, longest = use.request.seconds, use.longest
    if limit is not None and use.walltime:
        return _rounded(_MARGIN * limit)
    return _rounded(_MARGIN * longest) if longest is not None and _limit_is_too_long(use) else None


def _rounded(seconds: float) -> int:
    """Round a time limit up: to five minutes, above an hour to a quarter, above six hours to a whole hour."""
    step = 300 if seconds <= 3600 else 900 if seconds <= 6 * 3600 else 3600
    return math.ceil(seconds / step) * step
