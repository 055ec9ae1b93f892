"""What the jobs of a flow that must be built first will be, as far as its manifest shows.

Sure only after the build: the code of the repository may make something else of the same manifest. The
actions here are for the eye (``build`` is set); nothing carries them out.
"""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from reconciler.model.actions import Action, ActionType, Subject
from reconciler.model.desired import DesiredState, PreviewJob
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import ActualState, Change, JobRecord
from reconciler.model.run_config import JobFacts, RunConfig
from reconciler.plan.configs import FlowConfigs


def affected_jobs(desired: DesiredState, actual: ActualState) -> set[str]:
    """Return ``flow/job`` of every job whose content changes, or that of a job it needs.

    Only flows in the ``jobs:`` form that were applied before and must be rebuilt are looked at.
    """
    jobs = {
        f"{name}/{job.key}": (name, job)
        for name in actual.previous
        if name in desired.flows
        for job in desired.flows[name].preview
    }
    graph = {key: [need for need in job.needs if need in jobs] for key, (_, job) in jobs.items()}
    affected: set[str] = set()
    for key in graphlib.TopologicalSorter(graph).static_order():
        name, job = jobs[key]
        if _changed(job, actual.previous[name]) or affected.intersection(job.needs):
            affected.add(key)
    return affected


def _changed(job: PreviewJob, before: Mapping[str, str]) -> bool:
    return before.get(job.key) != job.digest


def new_jobs(configs: FlowConfigs) -> Iterator[Action]:
    """Yield the jobs of a flow that is new or wanted again."""
    for job in configs.flow.preview:
        yield _foreseen(configs, ActionType.SUBMIT, job.key, ReasonCode.NEW_FLOW, _all_of(configs, job))


def new_flow_held_by(configs: FlowConfigs) -> str | None:
    """Return why a new flow is going to wait, as far as its jobs are known."""
    flow = configs.flow
    if not flow.preview:
        return configs.held_by(JobFacts(flow.name, flow.labels, None, None), configs.of_unknown())
    for job in flow.preview:
        reason = configs.held_by(configs.facts(job.key, job.name, job.function), configs.of_preview(job))
        if reason is not None:
            return reason
    return None


def foreseen_jobs(
    configs: FlowConfigs, records: Sequence[JobRecord], affected: Collection[str]
) -> Iterator[Action]:
    """Yield what is going to happen to the jobs of a flow that was applied before."""
    if not configs.flow.preview:
        return
    known = {job.key: job for job in records if job.current and job.generated_by is None}
    for job in configs.flow.preview:
        yield from _one(configs, job, known.pop(job.key, None), affected)
    for record in known.values():
        action_type = ActionType.FORGET if record.ended else ActionType.CANCEL
        yield _foreseen(configs, action_type, record.key, ReasonCode.LEFT_FLOW, ())


def _one(
    configs: FlowConfigs, job: PreviewJob, record: JobRecord | None, affected: Collection[str]
) -> Iterator[Action]:
    if record is None:
        yield _foreseen(configs, ActionType.SUBMIT, job.key, ReasonCode.NEW_JOB, _all_of(configs, job))
        return
    changes = configs.changes(record.config, configs.of_preview(job))
    if f"{configs.flow.name}/{job.key}" in affected:
        yield _foreseen(configs, ActionType.REPLACE, job.key, ReasonCode.CONTENT_CHANGED, changes)
        return
    if record.editable and record.name != job.name:
        changes += (Change("name", record.name, job.name),)
    if changes:
        action_type = ActionType.PATCH if record.editable else ActionType.DEFER
        yield _foreseen(configs, action_type, job.key, ReasonCode.RUN_CONFIG_CHANGED, changes)


def _all_of(configs: FlowConfigs, job: PreviewJob) -> tuple[Change, ...]:
    return configs.changes(RunConfig(), configs.of_preview(job))


def _foreseen(
    configs: FlowConfigs, action_type: ActionType, key: str, code: ReasonCode, changes: tuple[Change, ...]
) -> Action:
    return Action(
        type=action_type, subject=Subject.JOB, key=f"{configs.flow.name}/{key}", reason=Reason(code),
        changes=changes, build=True, flow=configs.flow,
    )  # fmt: skip
