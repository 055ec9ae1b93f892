"""``make_plan``: the one decision about what should change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.diagnostics import Diagnostic
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Prune
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import ActualState, FlowRecord, JobRecord
from reconciler.model.states import ACTIVE
from reconciler.plan.checks import check_desired, unique, worker_defaults
from reconciler.plan.flow_plan import FlowPlanner
from reconciler.plan.foresee import affected_jobs
from reconciler.plan.renames import as_renamed, renames
from reconciler.plan.unmatched import unmatched_rules

# Guards: plans that are refused until the user says that they are meant.


_WORDS = {Prune.CANCEL: "cancel", Prune.DELETE: "delete", Prune.ORPHAN: "let go of"}
"""What becomes of a flow that is removed. To delete is to delete records and outputs, too."""


def refusals(desired: DesiredState, actual: ActualState, actions: Sequence[Action]) -> Iterator[str]:
    """Yield why this plan must not be applied without ``--allow-prune``, and what it would do."""
    live = {name for name, flow in actual.flows.items() if not flow.removed}
    # What is forgotten after its cancellation was allowed before.
    gone = [
        a.key
        for a in actions
        if a.subject is Subject.FLOW and a.type in (ActionType.CANCEL, ActionType.FORGET)
    ]
    removed = [name for name in gone if name in live]
    if not removed:
        return
    what = _what_happens(actual, removed, len(live))
    if actual.rewritten:
        yield (
            f"history was rewritten: {desired.revision} does not follow from {actual.base}, which was "
            f"applied last; applying it would {what}"
        )
    if not desired.flows and not desired.invalid:
        yield f"{desired.revision} has no flow at all; applying it would {what}"
    elif len(live) > 2 and len(removed) > desired.project.max_prune * len(live):
        limit = f"{desired.project.max_prune:.0%}"
        yield f"{desired.revision} would {what}; that is more than max_prune ({limit}) allows"


def _what_happens(actual: ActualState, removed: Sequence[str], live: int) -> str:
    """Return what would become of the flows, and of how many jobs that have not ended."""
    parts = []
    for prune, word in _WORDS.items():
        names = [name for name in removed if actual.flows[name].prune is prune]
        if names:
            shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            outputs = ", with all records and outputs" if prune is Prune.DELETE else ""
            parts.append(f"{word} {len(names)} of {live} flows: {shown}{outputs}")
    jobs = (job for name in removed for job in actual.jobs.get(name, ()))
    unfinished = sum(1 for job in jobs if job.current and not job.ended)
    if unfinished:
        parts.append(f"{unfinished} of their jobs {'has' if unfinished == 1 else 'have'} not ended")
    return "; ".join(parts)


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
            yield _flow_action(ActionType.KEEP, name, ReasonCode.REMOVED_PROTECTED)
        else:
            yield from _remove(record, actual.jobs.get(name, []))


def _remove(record: FlowRecord, jobs: list[JobRecord]) -> Iterator[Action]:
    going_on = (job for job in jobs if job.current and (job.cancel is None or job.again))
    unfinished = [job for job in going_on if not job.ended]
    if record.prune is Prune.ORPHAN:
        yield _flow_action(ActionType.FORGET, record.name, ReasonCode.REMOVED_ORPHANED)
        return
    if record.prune is Prune.DELETE and not any(job.state in ACTIVE for job in jobs):
        yield _flow_action(ActionType.FORGET, record.name, ReasonCode.REMOVED_DELETED)
    elif not record.removed:
        yield _flow_action(ActionType.CANCEL, record.name, ReasonCode.REMOVED)
        for job in unfinished:
            yield Action(
                type=ActionType.CANCEL,
                subject=Subject.JOB,
                key=job.path,
                reason=Reason(ReasonCode.FLOW_REMOVED),
                record=job,
            )


def _flow_action(action_type: ActionType, name: str, code: ReasonCode) -> Action:
    return Action(type=action_type, subject=Subject.FLOW, key=name, reason=Reason(code))
