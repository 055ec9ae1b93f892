"""A plan as Markdown for a comment on a pull request. What needs a decision comes first.

Text of users (names, values, messages) is never interpreted as Markdown: it is in a code span, or every
special character is escaped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from reconciler.cli.views.plan_text import (
    cost_line,
    grouped,
    hours,
    joined_key,
    origin_place,
    plan_value,
    reason_text,
    shown_changes,
    summary_text,
)
from reconciler.cli.views.words import many
from reconciler.diagnostics import Diagnostic
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.records import Change
from reconciler.model.schedulers.requests import clock_text
from reconciler.plan.cost import Cost, CostGroup

# Markdown of GitHub and GitLab, with any text of users in it ------------------------------------------------

_LONGEST_TEXT = 300
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Line breaks, other control characters, and those that change the direction of text."""


def _one_line(text: str) -> str:
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def code(text: str) -> str:
    """Return a code span that shows the text literally, on one line."""
    text = _one_line(text)
    if not text:
        return ""
    runs = {len(run) for run in re.findall("`+", text)}
    fence = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def cell(text: str) -> str:
    """Return a code span for a cell of a table, in which even inside a span a bar would end the cell."""
    return code(text).replace("|", "\\|")


_SPECIAL = re.compile(r"[\\`*_{}\[\]()#!|~$]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LINK = re.compile(r"([@#!%&~])(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)")
"""Where a mention of a person, or a link to an issue or a page, begins; a joiner without width breaks it."""


def plain(text: str) -> str:
    """Return text escaped so that it is shown literally, on one line."""
    text = _LINK.sub(lambda found: f"{found[0]}\u2060", _one_line(text))
    text = "".join(_HTML.get(character, character) for character in text)
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table. Each cell comes from :func:`cell`, or has no bar."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def details(summary: str, lines: Iterable[str]) -> list[str]:
    """Return lines that are folded until the reader clicks ``summary``."""
    return [f"<details><summary>{summary}</summary>", "", *lines, "", "</details>"]


# the comment ----------------------------------------------------------------------------------------------

MARKER = "<!-- reconciler-plan -->"
"""First line of the comment; a bot finds its earlier comment by this line and updates it."""

_LONGEST = 60_000
"""Characters; GitHub takes 65,536 in a comment."""
_LIMITS = (200, 60, 20, 5, 1)
_FEW = 10

Lines = list[str]
T = TypeVar("T")


def plan_markdown(plan: Plan, cost: Cost, notes: Sequence[str] = (), *, compared: bool = False) -> str:
    """Return the plan as one comment. Lists are shortened until it fits into a comment.

    ``compared`` is for a plan from one revision to another, which nothing applies.
    """
    text = ""
    for limit in _LIMITS:
        text = "\n".join(_comment(plan, cost, notes, limit, compared=compared))
        if len(text) <= _LONGEST:
            break
    return text


def _comment(plan: Plan, cost: Cost, notes: Sequence[str], limit: int, *, compared: bool) -> Iterator[str]:
    if compared:
        revisions = code(f"{plan.base}..{plan.revision}")
    else:
        revisions = code(plan.revision) + (f" (applied: {code(plan.base)})" if plan.base else "")
    yield MARKER
    yield f"### reconcile plan: {revisions}"
    yield ""
    yield f"**{plain(summary_text(plan))}**" + (f" · {cost_line(cost)}" if cost.known else "")
    yield from (f"\n> **Note** {plain(note)}" for note in notes)

    def actions(*types: ActionType) -> list[Action]:
        return [action for action in plan.actions if action.type in types]

    deferred = [action for action in plan.actions if action.is_deferred]
    kept = [action for action in actions(ActionType.KEEP) if not action.is_deferred]
    reasons = _list(kept, lambda action: f"- {code(action.key)}: {plain(str(action.reason))}", limit)
    sections = [
        _refusals(plan),
        _diagnostics(plan, limit),
        _changes("Deferred until the job is editable", deferred, limit),
        _titled("On hold, or not known yet", kept, reasons),
        _actions("Replaced", actions(ActionType.REPLACE), limit),
        _actions("Submitted", actions(ActionType.SUBMIT), limit),
        _actions("Cancelled or forgotten", actions(ActionType.CANCEL, ActionType.FORGET), limit),
        _changes("Patched", actions(ActionType.PATCH), limit),
        _cost(cost, limit),
    ]
    for section in filter(None, sections):
        yield ""
        yield from section


def _refusals(plan: Plan) -> Lines:
    if not plan.refusals:
        return []
    lines = [f"- {plain(refusal)}" for refusal in plan.refusals]
    return ["#### Refused by a guard", "", *lines, "", "To apply it anyway, add `--allow-prune`."]


def _diagnostics(plan: Plan, limit: int) -> Lines:
    if not plan.diagnostics:
        return []
    errors = sum(1 for diagnostic in plan.diagnostics if diagnostic.is_error)
    warnings = len(plan.diagnostics) - errors
    counts = [many(errors, "error")] * bool(errors) + [many(warnings, "warning")] * bool(warnings)
    ordered = sorted(plan.diagnostics, key=lambda found: (not found.is_error, found.sort_key()))

    def line(found: Diagnostic) -> str:
        where = f"{code(str(found.location))} " if found.location is not None else ""
        related = "".join(f"; {plain(note.label)}: {code(str(note.location))}" for note in found.related)
        hint = f" (help: {plain(found.hint)})" if found.hint else ""
        return f"- **{found.severity}** {where}{plain(found.message)}{related}{hint} {code(found.code)}"

    return [f"#### {' and '.join(counts)}", "", *_list(ordered, line, limit)]


def _actions(title: str, actions: list[Action], limit: int) -> Lines:
    shown = list(grouped(actions)) if len(actions) > _FEW else [[action] for action in actions]
    return _titled(title, actions, _list(shown, _action, limit))


def _action(run: list[Action]) -> str:
    text = plain(reason_text(run, time.time()))
    changes = [
        f"{cell(change.field)}: {cell(plan_value(change.old))} → {cell(plan_value(change.new))}"
        for change in shown_changes(run[0])[:_FEW]
    ]
    bold = any(action.ends_running for action in run)
    line = f"- {run[0].subject.lower()} {code(joined_key(run))}: {f'**{text}**' if bold else text}"
    return line + (f" ({'; '.join(changes)})" if changes else "")


def _changes(title: str, actions: list[Action], limit: int) -> Lines:
    """Return a table of the changed values, and a list of the actions that change none."""

    def row(key: str, change: Change) -> tuple[str, ...]:
        values = (cell(plan_value(value)) for value in (change.old, change.new))
        origin = change.provenance
        set_by = f"{origin['level']} {cell(origin_place(origin))}" if origin is not None else ""
        return (cell(key), cell(change.field), *values, set_by)

    shown = list(grouped(actions)) if len(actions) > _FEW else [[action] for action in actions]
    rows = [row(joined_key(run), change) for run in shown for change in run[0].changes]
    without_changes = [run for run in shown if not run[0].changes]
    lines = table(("job", "field", "old", "new", "set by"), rows[:limit]) if rows else []
    lines += _more(len(rows) - limit)
    lines += [""] * bool(rows and without_changes) + _list(without_changes, _action, limit)
    return _titled(title, actions, lines)


def _titled(title: str, actions: Sequence[Action], lines: Lines) -> Lines:
    """Return lines below a heading that counts the actions; long lists are folded."""
    if not actions:
        return []
    flows = sum(1 for action in actions if action.subject is Subject.FLOW)
    jobs = len(actions) - flows
    counted = [many(flows, "flow")] * bool(flows) + [many(jobs, "job")] * bool(jobs)
    heading = f"{title}: {' and '.join(counted)}"
    return details(heading, lines) if len(lines) > _FEW + 2 else [f"#### {heading}", "", *lines]


def _list(entries: Sequence[T], line: Callable[[T], str], limit: int) -> Lines:
    return [*map(line, entries[:limit]), *_more(len(entries) - limit)]


def _more(number: int) -> Lines:
    return ["", f"… and {number} more; `-o json` shows all."] if number > 0 else []


def _cost(cost: Cost, limit: int) -> Lines:
    """Return the cost by worker and resources. An unknown cost is said: it must not look like no cost."""
    if not cost.known:
        jobs = cost.unknown
        return [f"Cost: unknown for {many(jobs, 'job')} without cores or a time limit."] if jobs else []

    def known(value: T | None, form: Callable[[T], str] = str) -> str:
        return "unknown" if value is None else form(value)

    def row(group: CostGroup) -> tuple[str, ...]:
        request = group.request
        return (
            cell(group.worker), cell(plan_value(group.resources)), f"{group.jobs}", known(request.cores),
            known(request.gpus), known(request.seconds, clock_text), known(group.core_hours, hours),
        )  # fmt: skip

    lines = ["#### Cost, at most", ""]
    if cost.groups:
        header = ("worker", "resources", "jobs", "cores", "GPUs", "time limit", "core-h")
        lines += table(header, map(row, cost.groups[:limit]))
        lines += [*_more(len(cost.groups) - limit), ""]
    return [*lines, plain((cost_line(cost) or "").partition(": ")[2])]
