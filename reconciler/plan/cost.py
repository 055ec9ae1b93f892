"""What a plan costs at most: jobs x cores x time limit, where the manifests give both. Pure.

Jobs without a known number of cores or time limit are counted separately; nothing is guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.schedulers import SCHEDULERS
from reconciler.model.schedulers.requests import UNKNOWN, ResourceRequest
from reconciler.model.states import PENDING, JobState
from reconciler.plan.checks import worker_defaults
from reconciler.plan.configs import FlowConfigs

Workers = Mapping[str, WorkerSpec]


class CostGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one worker with the same resources; ``request`` is what each of them asks for."""

    worker: str
    resources: Any
    jobs: int
    request: ResourceRequest

    @property
    def core_hours(self) -> float | None:
        """Of all jobs together, at most."""
        return _times(self.request.core_hours, self.jobs)

    @property
    def gpu_hours(self) -> float | None:
        """Of all jobs together, at most."""
        return _times(self.request.gpu_hours, self.jobs)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan costs at most.

    ``groups`` are the jobs that it will run (submitted or replaced), the most expensive first. ``before`` and
    ``after`` are core-hours of the patched jobs that have not run, as far as both are known (``patched``
    jobs); ``patched_unknown`` others get another worker or other resources, at a cost that is not known.
    """

    groups: tuple[CostGroup, ...] = ()
    patched: int = 0
    patched_unknown: int = 0
    before: float = 0.0
    after: float = 0.0

    @property
    def core_hours(self) -> float:
        """Core-hours of all jobs that will run and whose cost is known."""
        return sum(group.core_hours or 0.0 for group in self.groups)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all jobs that will run, as far as known."""
        return sum(group.gpu_hours or 0.0 for group in self.groups)

    @property
    def jobs(self) -> int:
        """How many jobs will run at a known cost."""
        return sum(group.jobs for group in self.groups if group.core_hours is not None)

    @property
    def unknown(self) -> int:
        """How many jobs will run at a cost that is not known."""
        return sum(group.jobs for group in self.groups if group.core_hours is None)

    @property
    def known(self) -> bool:
        """Whether the cost of any job is known."""
        return self.jobs > 0 or self.patched > 0


def plan_cost(
    plan: Plan, desired: DesiredState, jobs: Mapping[str, list[JobRecord]], workers_before: Workers
) -> Cost:
    """Return what a plan costs.

    ``jobs`` are the records of each flow that the plan was made with, ``workers_before`` the workers that
    they know; where a worker is missing there, that of the desired state counts.
    """
    configs = _Configs(desired)
    records = {flow: {job.id: job for job in found} for flow, found in jobs.items()}
    new = [config for action in plan.actions if (config := configs.to_run(action, records)) is not None]
    pairs = list(_patched(plan, configs, jobs))
    changes = [_change(old, new, dict(workers_before), desired.workers) for old, new in pairs]
    known = [(old, new) for old, new in changes if old is not None and new is not None]
    return Cost(
        groups=tuple(_groups(new, desired.workers)),
        patched=len(known),
        patched_unknown=len(changes) - len(known),
        before=sum(old for old, _ in known),
        after=sum(new for _, new in known),
    )


class _Configs:
    """The run config that an action wants: as planned, or as the manifest shows it before a build."""

    def __init__(self, desired: DesiredState) -> None:
        self.desired = desired
        self._flows: dict[str, dict[str, RunConfig]] = {}

    def to_run(self, action: Action, records: Mapping[str, Mapping[str, JobRecord]]) -> RunConfig | None:
        """Return the run config of a job that is going to run; None if nothing runs."""
        if action.subject is not Subject.JOB or action.type not in (ActionType.SUBMIT, ActionType.REPLACE):
            return None
        if action.wanted is not None:
            job = action.wanted.job
            flow = action.key.partition("/")[0]
            known = records.get(flow, {}).get(f"{job.uuid}_{job.index}")
            if known is not None and known.state is JobState.COMPLETED:
                return None  # wanted again, and its result is still there
        return self.of(action)

    def of(self, action: Action) -> RunConfig | None:
        """Return the run config that an action on a job wants."""
        if action.wanted is not None:
            return action.wanted.config
        flow, _, key = action.key.partition("/")
        if flow not in self._flows:
            self._flows[flow] = self._of_preview(flow)
        return self._flows[flow].get(key)

    def _of_preview(self, name: str) -> dict[str, RunConfig]:
        flow = self.desired.flows.get(name)
        if flow is None:
            return {}
        configs = FlowConfigs(self.desired, flow, worker_defaults(self.desired))
        return {job.key: configs.of_preview(job) for job in flow.preview}


def _patched(
    plan: Plan, configs: _Configs, jobs: Mapping[str, list[JobRecord]]
) -> Iterator[tuple[RunConfig, RunConfig]]:
    """Yield (old, new) of the jobs that have yet to run and whose worker or resources change."""
    for action in plan.actions:
        if action.type is not ActionType.PATCH or action.subject is not Subject.JOB:
            continue
        record, new = action.record or _record(jobs, action.key), configs.of(action)
        if record is None or new is None or record.state not in PENDING:
            continue
        if any(record.config.value(field) != new.value(field) for field in ("worker", "resources")):
            yield record.config, new


def _record(jobs: Mapping[str, list[JobRecord]], path: str) -> JobRecord | None:
    """A job that is only foreseen carries no record."""
    found = (job for job in jobs.get(path.partition("/")[0], ()) if job.current and job.path == path)
    return next(found, None)


def _change(
    old: RunConfig, new: RunConfig, before: Workers, after: Workers
) -> tuple[float | None, float | None]:
    return _request(old, {**after, **before}).core_hours, _request(new, after).core_hours


def _request(config: RunConfig, workers: Workers) -> ResourceRequest:
    worker = workers.get(config.worker_name)
    if worker is None:
        return UNKNOWN
    return SCHEDULERS[worker.scheduler_type].request_of(config.resources_value)


def _groups(configs: Iterable[RunConfig], workers: Workers) -> list[CostGroup]:
    """Jobs share settings, so that few of them must be looked at."""
    counted: Counter[tuple[str, int]] = Counter()
    samples: dict[tuple[str, int], RunConfig] = {}
    for config in configs:
        key = config.worker_name, id(config.resources)
        counted[key] += 1
        samples[key] = config  # keeps the setting alive, and so its id unique
    merged: Counter[tuple[str, bytes]] = Counter()
    one: dict[tuple[str, bytes], RunConfig] = {}
    for key, config in samples.items():
        content = msgspec.json.encode(config.resources_value, order="deterministic")
        merged[key[0], content] += counted[key]
        one[key[0], content] = config
    groups = [_group(one[key], jobs, workers) for key, jobs in merged.items()]
    return sorted(groups, key=lambda group: (-(group.core_hours or 0.0), group.worker, -group.jobs))


def _group(config: RunConfig, jobs: int, workers: Workers) -> CostGroup:
    request = _request(config, workers)
    resources = config.shown("resources")
    return CostGroup(worker=config.worker_name, resources=resources, jobs=jobs, request=request)


def _times(value: float | None, number: int) -> float | None:
    return None if value is None else value * number
