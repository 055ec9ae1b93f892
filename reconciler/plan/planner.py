"""``make_plan``: the one decision about what should change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from reconciler.diagnostics import Diagnostic
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.applied import ActualState
from reconciler.model.baseline import Scope
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Kind, Manifest, Prune
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.states import ACTIVE
from reconciler.plan.checks import check_desired, unique, worker_defaults
from reconciler.plan.flow_plan import FlowPlanner, affected_jobs
from reconciler.plan.flowsets import frozen_sets, shrinking_sets
from reconciler.plan.renames import as_renamed, likely_renames, renames
from reconciler.plan.unmatched import matching_flows, unmatched_rules


def make_plan(
    desired: DesiredState, actual: ActualState, *, allow_prune: bool = False, scope: Scope | None = None
) -> Plan:
    """Return the ordered difference between desired and actual state.

    With a ``scope`` both have only the flows in it; a plan without diagnostics is then that of the whole.

    A flow that ``actual.built`` does not have appears as one action with ``build=True``; build it and plan
    again to see its jobs. An impossible run config makes its flow wait, and all others proceed.
    """
    renamed = renames(desired, actual)
    actual = as_renamed(actual, renamed)
    defaults = worker_defaults(desired)
    affected = affected_jobs(desired, actual)
    problems: list[Diagnostic] = []
    actions: list[Action] = []
    restated: list[Action] = []
    unsettled = [
        name
        for name, record in actual.flows.items()
        if name not in desired.flows and record.prune is Prune.DELETE
    ]
    before = {new: old for old, new in renamed.items()}
    for name, flow in sorted(desired.flows.items()):
        try:
            planner = FlowPlanner(desired, flow, actual, defaults, affected, before.get(name))
            actions += planner.actions()
            problems += planner.diagnostics
            restated += planner.restated
            if planner.jobs.unsettled:
                unsettled.append(name)
        except Exception as error:
            bug = report_bug(error, f"flow '{name}' cannot be planned", flow.manifest)
            problems.append(bug)
            actions.append(
                Action(
                    type=ActionType.KEEP, subject=Subject.FLOW, key=name, flow=flow,
                    reason=Reason(ReasonCode.WAITS, {"why": bug.message}),
                )
            )  # fmt: skip
    frozen = frozen_sets(desired, actual, allow_prune=allow_prune)
    actions += _removals(desired, actual, frozen)
    problems += shrinking_sets(desired, frozen)
    witnesses = dict(scope.matched) if scope is not None else {}

    def check_rules(state: DesiredState) -> list[Diagnostic]:
        witnesses.update(matching_flows(state, actual, witnesses))
        return unmatched_rules(state, actual, witnesses)

    for check in (lambda state: likely_renames(state, actual), check_desired, check_rules):
        try:
            problems += check(desired)
        except Exception as error:
            manifest = desired.manifests.get(f"{Kind.PROJECT}/{desired.project_name}")
            problems.append(report_bug(error, "the revision cannot be checked as a whole", manifest))
    found = [*desired.diagnostics, *problems]
    return Plan(
        revision=str(desired.revision),
        base=actual.base,
        actions=tuple(actions),
        # Errors first: of the same problem as error and as warning, the error counts.
        diagnostics=tuple(unique(sorted(found, key=lambda diagnostic: not diagnostic.is_error))),
        refusals=() if allow_prune else tuple(refusals(desired, actual, actions, scope)),
        restated=tuple(restated),
        renames=renamed,
        unsettled=tuple(unsettled),
        frozen=frozen,
        witnesses=witnesses,
    )


def report_bug(error: Exception, what: str, manifest: Manifest | None) -> Diagnostic:
    """Return the report of an exception that is a bug of this program: it must stop nothing else."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        place = f" ({trace.tb_frame.f_code.co_filename.rpartition('/reconciler/')[2]}:{trace.tb_lineno})"
    first_line = (str(error).strip().splitlines() or [""])[0][:200]
    message = f"{what}: {type(error).__name__}: {first_line}{place}"
    hint = "this is a bug in reconciler: report it with this text and the document; everything else goes on"
    if manifest is not None:
        return manifest.diagnostic("plan/bug", message, "/metadata/name", hint=hint)
    return Diagnostic(code="plan/bug", message=message, hint=hint)


def _removals(desired: DesiredState, actual: ActualState, frozen: Mapping[str, str]) -> Iterator[Action]:
    """Yield what happens to the flows that the revision no longer has, and to their jobs.

    ``frozen`` is :func:`frozen_sets`.

    ``prune: delete`` first cancels a flow whose jobs run, or whose outputs jobs of other flows still need,
    and deletes it in a later plan.
    """
    orphaned = {name for name, record in actual.flows.items() if record.orphaned}
    needed = {
        parent
        for flow, jobs in actual.jobs.items()
        if flow in desired.flows or flow in desired.invalid or flow in orphaned
        for job in jobs
        if job.current and not job.ended
        for parent in job.parents
    }

    def action(type_: ActionType, code: ReasonCode) -> Action:
        return Action(type=type_, subject=Subject.FLOW, key=name, reason=Reason(code))

    for name, record in sorted(actual.flows.items()):
        if name in desired.flows or name in desired.invalid or record.orphaned:
            continue
        jobs = actual.jobs.get(name, [])
        why_frozen = frozen.get(record.flowset or "")
        if why_frozen is not None and not record.removed:
            params = {"flowset": record.flowset, "why": why_frozen}
            reason = Reason(ReasonCode.SET_FROZEN, params)
            yield Action(type=ActionType.KEEP, subject=Subject.FLOW, key=name, reason=reason)
        elif record.protected and not record.removed:
            yield action(ActionType.KEEP, ReasonCode.REMOVED_PROTECTED)
        elif record.prune is Prune.ORPHAN:
            yield action(ActionType.FORGET, ReasonCode.REMOVED_ORPHANED)
        elif record.prune is Prune.DELETE and not any(
            job.state in ACTIVE or job.uuid in needed for job in jobs
        ):
            yield action(ActionType.FORGET, ReasonCode.REMOVED_DELETED)
        elif not record.removed:
            unfinished = [
                job
                for job in jobs
                if job.current and not job.ended and (not job.cancelling or job.cancellation.rerun)
            ]
            yield action(ActionType.CANCEL, ReasonCode.REMOVED if unfinished else ReasonCode.REMOVED_ENDED)
            reason = Reason(ReasonCode.FLOW_REMOVED)
            for job in unfinished:
                yield Action(
                    type=ActionType.CANCEL, subject=Subject.JOB, key=job.path, reason=reason, record=job
                )  # fmt: skip


# guards ---------------------------------------------------------------------------------------------------


def refusals(
    desired: DesiredState, actual: ActualState, actions: Sequence[Action], scope: Scope | None = None
) -> Iterator[str]:
    """Yield why this plan must not be applied without ``--allow-prune``, and what it would do."""
    live = {name for name, flow in actual.flows.items() if not flow.removed}
    # A flow that was removed before was allowed then; only its records are left to be deleted.
    gone = (ActionType.CANCEL, ActionType.FORGET)
    removed = [a.key for a in actions if a.subject is Subject.FLOW and a.type in gone and a.key in live]
    if actual.rewritten and desired.signer:
        yield (
            f"{desired.revision} does not follow from {actual.base}, which was applied last: the branch was "
            "set back or rewritten, and the policy asks for signatures"
        )
    if not removed:
        return
    number = len(live) + sum(actual.live_elsewhere.values())
    others = scope.others if scope is not None else 0
    what = _what_happens(actual, removed, number)
    if actual.rewritten:
        yield (
            f"history was rewritten: {desired.revision} does not follow from {actual.base}, which was "
            f"applied last; applying it would {what}"
        )
    if not desired.flows and not desired.invalid and not others:
        yield f"{desired.revision} has no flows; applying it would {what}"
    elif number > 2 and len(removed) > desired.project.max_prune * number:
        limit = f"{desired.project.max_prune:.0%}"
        yield f"{desired.revision} would {what}; that is more than max_prune ({limit}) allows"


def _what_happens(actual: ActualState, removed: Sequence[str], live: int) -> str:
    """Return what would happen to the removed flows, and to how many jobs that have not ended."""
    words = {Prune.CANCEL: "cancel", Prune.DELETE: "delete", Prune.ORPHAN: "orphan"}
    parts = []
    for prune, word in words.items():
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
