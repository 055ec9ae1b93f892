"""A plan as text: one line per action with its changes below, and a summary."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reconciler.cli.context import Context
from reconciler.cli.views.words import many
from reconciler.model.actions import SYMBOLS, Action, ActionType, Plan, Subject
from reconciler.model.records import Change
from reconciler.plan.cost import Cost

_COLORS = {
    ActionType.SUBMIT: "green",
    ActionType.PATCH: "yellow",
    ActionType.REPLACE: "yellow",
    ActionType.CANCEL: "red",
    ActionType.FORGET: "red",
    ActionType.DEFER: "magenta",
}
_FEW = 40


def plan_lines(context: Context, plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan. In a long plan, similar jobs of a flow share one line unless --verbose."""
    for refusal in plan.refusals:
        yield context.style(f"  ! refused: {refusal}", fg="red", bold=True)
    shorten = len(plan.effective) > _FEW and not context.options.verbose
    for action in grouped(plan.actions) if shorten else plan.actions:
        action_type = ActionType.DEFER if action.is_deferred else action.type
        symbol = "?" if action.build and action_type is ActionType.REPLACE else SYMBOLS[action_type]
        line = f"{symbol:>4} {action.subject.lower():<4} {action.key}  ({action.reason})"
        color = _COLORS.get(action_type)
        yield context.style(line, fg=color) if color else line
        if _shows_changes(action) or context.options.verbose:
            yield from (_change_line(change) for change in action.changes)


def _change_line(change: Change) -> str:
    origin = change.provenance
    where = f"   # {origin['level']}: {origin_place(origin)}" if origin is not None else ""
    return f"            {change.field}: {plan_value(change.old)} -> {plan_value(change.new)}{where}"


def origin_place(origin: Mapping[str, Any]) -> str:
    """Return where a value is set: ``rules/a.yaml:7``, or the manifest if its file is unknown."""
    return f"{origin['file']}:{origin['line']}" if origin["file"] else f"{origin['kind']} {origin['name']}"


def plan_value(value: Any) -> str:
    """Return a value of a change on one line."""
    return "(none)" if value is None else value if isinstance(value, str) else json.dumps(value)


def grouped(actions: Iterable[Action]) -> Iterator[Action]:
    """Join consecutive actions on jobs of one flow that only differ in the job: ``flow/{a, b}``."""

    def similarity(action: Action) -> object:
        if action.subject is not Subject.JOB:
            return id(action)  # never joined
        values = [(change.field, str(change.old), str(change.new)) for change in action.changes]
        shown = values if _shows_changes(action) else []
        return (action.type, action.reason, action.key.partition("/")[0], shown)

    for _, run in itertools.groupby(actions, similarity):
        yield _joined(list(run))


def _shows_changes(action: Action) -> bool:
    return action.type is ActionType.PATCH or action.is_deferred


def _joined(run: list[Action]) -> Action:
    first = run[0]
    if len(run) == 1:
        return first
    flow = first.key.partition("/")[0]
    names = ", ".join(action.key.partition("/")[2] for action in run[:3])
    more = f" and {len(run) - 3} more" if len(run) > 3 else ""
    return Action(
        type=first.type, subject=Subject.JOB, key=f"{flow}/{{{names}{more}}}", reason=first.reason,
        changes=first.changes,
    )  # fmt: skip


_WORDS = (
    (ActionType.SUBMIT, "to submit"),
    (ActionType.REPLACE, "to replace"),
    (ActionType.PATCH, "to patch"),
    (ActionType.DEFER, "deferred"),
    (ActionType.CANCEL, "to cancel"),
    (ActionType.FORGET, "to forget"),
)


def summary_line(context: Context, plan: Plan, *, compared: bool = False) -> str:
    """Return the last line of a plan. ``compared`` is for a plan from its base, not from the store."""
    name = f"{plan.base}..{plan.revision}" if compared else plan.revision
    line = f"{name}: {summary_text(plan)}"
    return context.style(line, bold=True) if plan.effective else line


def summary_text(plan: Plan) -> str:
    """Return how many flows and jobs the plan submits, replaces, patches ...; or ``no changes``."""
    waiting = f"; {many(len(plan.waiting), 'job')} with a deferred change" if plan.waiting else ""
    if not plan.effective:
        return f"no changes{waiting}"
    parts = []
    for action_type, words in _WORDS:
        jobs, flows = plan.count(action_type, Subject.JOB), plan.count(action_type, Subject.FLOW)
        counted = [many(flows, "flow")] * bool(flows) + [many(jobs, "job")] * bool(jobs)
        if counted:
            parts.append(f"{' and '.join(counted)} {words}")
    line = ", ".join(parts)
    if plan.to_build:
        line += f"; {many(len(plan.to_build), 'flow')} to be built first"
    return line + waiting


# cost -----------------------------------------------------------------------------------------------------


def cost_line(cost: Cost) -> str | None:
    """Return a summary of the cost on one line; None if nothing is known about it."""
    if not cost.known:
        return None
    parts = []
    if cost.jobs:
        gpus = f" and {hours(cost.gpu_hours)} GPU-h" if cost.gpu_hours else ""
        parts.append(f"at most {hours(cost.core_hours)} core-h{gpus} for {many(cost.jobs, 'job')}")
    if cost.unknown:
        parts.append(f"unknown for {many(cost.unknown, 'job')}")
    if cost.patched:
        sign = "+" if cost.after >= cost.before else "-"
        difference = f"{sign}{hours(abs(cost.after - cost.before))}"
        parts.append(
            f"{hours(cost.before)} -> {hours(cost.after)} core-h ({difference}) "
            f"for {many(cost.patched, 'patched job')}"
        )
    if cost.patched_unknown:
        parts.append(f"unknown for {many(cost.patched_unknown, 'patched job')}")
    return f"cost: {', '.join(parts)}"


def hours(value: float) -> str:
    """Return hours for people: about two digits, and no fraction from 100 hours on."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
