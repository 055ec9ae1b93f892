"""``make_plan``: the one decision about what should change."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.diagnostics import Diagnostic
from reconciler.model.actions import Action, Plan, Subject, Verb
from reconciler.model.actual import ActualState
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Prune
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import ACTIVE
from reconciler.plan.checks import check_desired, unique, worker_defaults
from reconciler.plan.flow_plan import FlowPlanner
from reconciler.plan.foresee import affected_jobs
from reconciler.plan.guards import refusals
from reconciler.plan.renames import as_renamed, renames
from reconciler.plan.unmatched import unmatched_rules


def make_plan(desired: DesiredState, actual: ActualState, *, allow_prune: bool = False) -> Plan:
    """Return the ordered difference between desired and actual state.

    Flows that ``actual.built`` does not have appear as one action with ``build=True``; build them and plan
    again to see their jobs. An impossible run config makes its flow wait and all others proceed.
    """
    renamed = renames(desired, actual)
    actual = as_renamed(actual, renamed)
    defaults = worker_defaults(desired)
    affected = affected_jobs(desired, actual)
    problems: list[Diagnostic] = []
    actions: list[Action] = []
    restated: list[Action] = []
    before = {new: old for old, new in renamed.items()}
    for name in sorted(desired.flows):
        planner = FlowPlanner(desired, desired.flows[name], actual, defaults, affected, before.get(name))
        actions += planner.actions()
        problems += planner.diagnostics
        restated += planner.restated
    actions += _removals(desired, actual)
    found = [
        *desired.diagnostics, *problems, *check_desired(desired), *unmatched_rules(desired, actual),
    ]  # fmt: skip
    return Plan(
        revision=str(desired.revision),
        base=actual.base,
        actions=tuple(actions),
        # Errors first: of the same complaint as error and as warning, the error counts.
        diagnostics=tuple(unique(sorted(found, key=lambda diagnostic: not diagnostic.is_error))),
        refusals=() if allow_prune else tuple(refusals(desired, actual, actions)),
        restated=tuple(restated),
        renames=renamed,
    )


def _removals(desired: DesiredState, actual: ActualState) -> Iterator[Action]:
    for name in sorted(actual.flows):
        record = actual.flows[name]
        if name in desired.flows or name in desired.invalid or record.orphaned:
            continue
        if record.protected and not record.removed:
            reason = (
                "removed from git, but protected; to remove it, first commit reconciler/prune: enabled for it"
            )
            yield _flow_action(Verb.KEEP, name, reason)
        else:
            yield from _remove(record, actual.jobs.get(name, []))


def _remove(record: FlowRecord, jobs: list[JobRecord]) -> Iterator[Action]:
    going_on = (job for job in jobs if job.current and (job.cancel is None or job.again))
    unfinished = [job for job in going_on if not job.ended]
    if record.prune is Prune.ORPHAN:
        yield _flow_action(Verb.FORGET, record.name, "removed from git; prune: orphan leaves its jobs alone")
        return
    if record.prune is Prune.DELETE and not any(job.state in ACTIVE for job in jobs):
        yield _flow_action(Verb.FORGET, record.name, "removed from git; prune: delete")
    elif not record.removed:
        yield _flow_action(Verb.CANCEL, record.name, "removed from git")
        for job in unfinished:
            yield Action(
                verb=Verb.CANCEL, subject=Subject.JOB, key=job.path, reason="its flow was removed", record=job
            )


def _flow_action(verb: Verb, name: str, reason: str) -> Action:
    return Action(verb=verb, subject=Subject.FLOW, key=name, reason=reason)
