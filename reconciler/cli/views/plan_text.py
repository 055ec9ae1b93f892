"""A plan as text: one line per action with its changes below, and a summary."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.cli.context import Context
from reconciler.cli.views.plan_folds import Fold, folded
from reconciler.cli.views.words import many, span_text
from reconciler.model.actions import RUNNING, SYMBOLS, Action, ActionType, DryBuild, Plan, Subject, started
from reconciler.model.reasons import ReasonCode
from reconciler.model.records import Change
from reconciler.model.run_config import FIELDS
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
    """Yield the lines of a plan.

    In a long plan, unless --verbose, similar jobs of a flow share one line, and of many flows that are
    treated alike only the first are shown in full.
    """
    for refusal in plan.refusals:
        yield context.style(f"  ! refused: {refusal}", fg="red", bold=True)
    shorten = len(plan.actions) > _FEW and not context.options.verbose
    now = time.time()
    for part in folded(plan.actions) if shorten else [[action] for action in plan.actions]:
        if isinstance(part, Fold):
            yield from _fold_lines(context, part, now)
            continue
        for run in grouped(part):
            action = run[0]
            line = f"{_symbol(action):>4} {action.subject.lower():<4} {joined_key(run)}"
            yield _colored(context, action, f"{line}  ({reason_text(run, now)})")
            shown = action.changes if context.options.verbose else shown_changes(action)
            yield from (_change_line(change) for change in shown)


def _fold_lines(context: Context, fold: Fold, now: float) -> Iterator[str]:
    """Yield ``+ s-003 ... s-499: 497 flows, 994 jobs``, and below it how often each field changes."""
    first, last = fold.names[0], fold.names[-1]
    flows = sum(action.subject is Subject.FLOW for action in fold.actions)
    counts = [many(flows, "flow")] * bool(flows)
    jobs = len(fold.actions) - flows
    counts += [many(jobs, "job")] * bool(jobs)
    action = fold.actions[0]
    line = f"{_symbol(action):>4} {first} ... {last}: {', '.join(counts)}"
    yield _colored(context, action, f"{line}  ({reason_text(fold.actions, now)})")
    for field, count, same in fold.changes:
        if action.type in (ActionType.SUBMIT, ActionType.CANCEL, ActionType.FORGET):
            break
        text = f"{plan_value(same.old)} -> {plan_value(same.new)}" if same is not None else "other values"
        yield f"            {field}: {text} ({count:,} times)"


def _symbol(action: Action) -> str:
    action_type = ActionType.DEFER if action.is_deferred else action.type
    return "?" if action.build and action_type is ActionType.REPLACE else SYMBOLS[action_type]


def _colored(context: Context, action: Action, line: str) -> str:
    color = _COLORS.get(ActionType.DEFER if action.is_deferred else action.type)
    return context.style(line, fg=color) if color else line


def reason_text(run: Sequence[Action], now: float) -> str:
    """Return why actions of one run are done, and which work that runs they end."""
    text = str(run[0].reason)
    ended = [record for action in run if (record := action.ends) is not None]
    running = [record for record in ended if record.state in RUNNING]
    if running:
        longest = max(running, key=lambda job: now - started(job))
        what = "A RUNNING JOB" if len(running) == 1 else f"{len(running)} RUNNING JOBS"
        upto = "" if len(running) == 1 else "up to "
        worker = longest.attempt.worker or longest.config.worker_name
        text += f"; ENDS {what} ({worker}, {upto}{span_text(max(0.0, now - started(longest)))} so far)"
    elif ended:
        states = ", ".join(sorted({str(record.state) for record in ended}))
        text += f"; cancels {'its attempt' if len(ended) == 1 else many(len(ended), 'attempt')} ({states})"
    return text


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


def grouped(actions: Iterable[Action]) -> Iterator[list[Action]]:
    """Yield runs of consecutive actions on jobs of one flow that only differ in the job."""

    def similarity(action: Action) -> object:
        if action.subject is not Subject.JOB:
            return id(action)  # never joined
        values = [(change.field, str(change.old), str(change.new)) for change in shown_changes(action)]
        flow = action.key.partition("/")[0]
        return (action.type, action.reason, flow, values, action.ends_running, action.ends is None)

    for _, run in itertools.groupby(actions, similarity):
        yield list(run)


def shown_changes(action: Action) -> Sequence[Change]:
    """Return the changes that are shown without --verbose: all of a patch, and those of the content."""
    if action.type is ActionType.PATCH or action.is_deferred or action.subject is Subject.FLOW:
        return action.changes
    return [change for change in action.changes if change.field not in FIELDS]


def joined_key(run: Sequence[Action]) -> str:
    """Return the key of one action, or of several: ``flow/{a, b, c and 2 more}``."""
    if len(run) == 1:
        return run[0].key
    names = ", ".join(action.key.partition("/")[2] for action in run[:3])
    more = f" and {len(run) - 3} more" if len(run) > 3 else ""
    return f"{run[0].key.partition('/')[0]}/{{{names}{more}}}"


def summary_line(context: Context, plan: Plan, *, compared: bool = False) -> str:
    """Return the last line of a plan. ``compared`` is for a plan from its base, not from the store."""
    name = f"{plan.base}..{plan.revision}" if compared else plan.revision
    line = f"{name}: {summary_text(plan)}"
    return context.style(line, bold=True) if plan.effective else line


def summary_text(plan: Plan) -> str:
    """Return how many flows and jobs the plan submits, replaces, patches ...; or ``no changes``.

    For example ``2 flows to rebuild, 3 jobs to replace, 1 of them running; 2 flows to be built first``.
    """
    waiting = f"; {many(len(plan.waiting), 'job')} with a deferred change" if plan.waiting else ""
    if not plan.effective:
        return f"no changes{waiting}"
    flows = [action for action in plan.effective if action.subject is Subject.FLOW]
    jobs = [action for action in plan.effective if action.subject is Subject.JOB]
    shown = {action.key.partition("/")[0] for action in jobs}
    hidden = any(flow.build and flow.type is ActionType.SUBMIT and flow.key not in shown for flow in flows)
    back = [action for action in jobs if action.keeps_result]
    parts = []

    def add(words: str, counted_flows: Sequence[Action], counted_jobs: Sequence[Action] = ()) -> None:
        names = [many(len(counted_flows), "flow")] if counted_flows else []
        at_least = "at least " if words == "to submit" and hidden else ""
        names += [at_least + many(len(counted_jobs), "job")] if counted_jobs else []
        if names:
            running = sum(action.ends_running for action in counted_jobs)
            parts.append(
                f"{' and '.join(names)} {words}" + (f", {running} of them running" if running else "")
            )

    def of(actions: Sequence[Action], action_type: ActionType) -> list[Action]:
        return [one for one in actions if one.type is action_type and not one.keeps_result]

    removed = [flow for flow in flows if flow.reason.code is ReasonCode.REMOVED_ENDED]
    forgotten = of(flows, ActionType.FORGET)
    orphaned = [flow for flow in forgotten if flow.reason.code is ReasonCode.REMOVED_ORPHANED]
    patched = of(jobs, ActionType.PATCH)
    done = sum(action.reason.code is ReasonCode.RUN_CONFIG_STORED for action in patched)
    add("to submit", of(flows, ActionType.SUBMIT), of(jobs, ActionType.SUBMIT))
    add("to rebuild", of(flows, ActionType.REPLACE))
    add("to replace", [], of(jobs, ActionType.REPLACE))
    add("to take back with their results" if len(back) > 1 else "to take back with its result", [], back)
    add("to patch", of(flows, ActionType.PATCH), patched)
    if done and parts:
        parts[-1] += f" ({done} of them COMPLETED)" if len(patched) > done else " (COMPLETED)"
    add("deferred", of(flows, ActionType.DEFER), of(jobs, ActionType.DEFER))
    add(
        "to cancel",
        [one for one in of(flows, ActionType.CANCEL) if one not in removed],
        of(jobs, ActionType.CANCEL),
    )
    add("to remove", removed)
    add("to orphan", orphaned)
    add("to delete", [flow for flow in forgotten if flow not in orphaned])
    add("to supersede", [], of(jobs, ActionType.FORGET))
    line = ", ".join(parts)
    if plan.to_build:
        line += f"; {many(len(plan.to_build), 'flow')} to be built first"
    computes = plan.to_build or of(jobs, ActionType.SUBMIT) or of(jobs, ActionType.REPLACE)
    if back and not computes:
        line += "; nothing is computed"
    return line + waiting


def built_text(build: DryBuild) -> str:
    """Return what a dry build did: ``7 of 8 flows built; cannot be built: x``."""
    if not build.flows:
        return "no flow had to be built"
    text = f"{build.built} of {many(build.flows, 'flow')} built"
    if build.failed:
        text += f"; cannot be built: {', '.join(build.failed)}"
    if build.blocked:
        text += f"; not tried, because what they refer to cannot be built: {', '.join(build.blocked)}"
    return text


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
