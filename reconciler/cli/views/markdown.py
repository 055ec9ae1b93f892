"""A plan as Markdown, for the discussion of a pull request: what needs a decision comes first.

What users wrote (names, values, messages) is never read as Markdown: it stands in code spans, or with every
special character escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from reconciler.cli.views.plan_text import cost_line, grouped, hours, plan_value, summary_text
from reconciler.cli.views.words import many
from reconciler.diagnostics import Diagnostic
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.records import Change
from reconciler.plan.cost import Cost, CostGroup

# Text of users inside of Markdown, so that it is shown and never read: GitHub's and GitLab's dialect.


_LONGEST_TEXT = 300
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Breaks of lines and of what people see: no reader should be shown another order of characters."""


def _one_line(text: str) -> str:
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def code(text: str) -> str:
    """Return a code span that shows the text as it is, on one line."""
    text = _one_line(text)
    if not text:
        return ""
    runs = {len(run) for run in re.findall("`+", text)}
    fence = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def cell(text: str) -> str:
    """Return a code span for a cell of a table: there a bar would end the cell, even inside of a span."""
    return code(text).replace("|", "\\|")


_SPECIAL = re.compile(r"[\\`*_{}\[\]()#!|~$]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LINK = re.compile(r"([@#!%&~])(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)")
"""What would call a person, or become a link to an issue or a page: broken by a joiner of no width."""


def plain(text: str) -> str:
    """Return text that is shown as it is."""
    text = _LINK.sub(lambda found: f"{found[0]}\u2060", _one_line(text))
    text = "".join(_HTML.get(character, character) for character in text)
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the cells must have been made by :func:`cell`, or hold no bar."""
    return [_line(header), _line(["---"] * len(header)), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def details(summary: str, lines: Iterable[str]) -> list[str]:
    """Return lines that are folded until the reader clicks on ``summary``."""
    return [f"<details><summary>{summary}</summary>", "", *lines, "", "</details>"]


MARKER = "<!-- reconciler-plan -->"
"""First line of the comment, by which a bot finds the one that it wrote before."""

_LONGEST = 60_000
"""Characters; GitHub takes 65,536 in a comment."""
_LIMITS = (200, 60, 20, 5, 1)
_FEW = 10

Lines = list[str]
T = TypeVar("T")


def plan_markdown(plan: Plan, cost: Cost, notes: Sequence[str] = (), *, compared: bool = False) -> str:
    """Return the plan as one comment; lists that would make it too long for a comment are cut."""
    text = ""
    for limit in _LIMITS:
        text = "\n".join(_comment(plan, cost, notes, limit, compared=compared))
        if len(text) <= _LONGEST:
            break
    return text


def _comment(plan: Plan, cost: Cost, notes: Sequence[str], limit: int, *, compared: bool) -> Iterator[str]:
    yield MARKER
    yield f"### reconcile plan: {_span(plan, compared=compared)}"
    yield ""
    yield f"**{plain(summary_text(plan))}**" + (f" · {cost_line(cost)}" if cost.known else "")
    yield from (f"\n> **Note** {plain(note)}" for note in notes)
    for section in _sections(plan, cost, limit):
        if section:
            yield ""
            yield from section


def _span(plan: Plan, *, compared: bool) -> str:
    if not compared:
        return code(plan.revision) + (f" (applied: {code(plan.base)})" if plan.base else "")
    return code(f"{plan.base}..{plan.revision}")


def _sections(plan: Plan, cost: Cost, limit: int) -> Iterator[Lines]:
    yield _refusals(plan)
    yield _diagnostics(plan, limit)
    deferred = [action for action in plan.actions if action.is_deferred]
    yield _changes("Deferred until the job is editable", deferred, limit)
    yield _held(plan, limit)
    yield _actions("Replaced", _of(plan, ActionType.REPLACE), limit)
    yield _actions("Submitted", _of(plan, ActionType.SUBMIT), limit)
    yield _actions("Cancelled or forgotten", _of(plan, ActionType.CANCEL, ActionType.FORGET), limit)
    yield _changes("Patched", _of(plan, ActionType.PATCH), limit)
    yield _cost(cost, limit)


def _of(plan: Plan, *verbs: ActionType) -> list[Action]:
    return [action for action in plan.actions if action.type in verbs]


# what needs a decision ------------------------------------------------------------------------------------


def _refusals(plan: Plan) -> Lines:
    if not plan.refusals:
        return []
    lines = [f"- {plain(refusal)}" for refusal in plan.refusals]
    return ["#### Refused by a guard", "", *lines, "", "It is applied only with `--allow-prune`."]


def _diagnostics(plan: Plan, limit: int) -> Lines:
    if not plan.diagnostics:
        return []
    errors = sum(1 for diagnostic in plan.diagnostics if diagnostic.is_error)
    warnings = len(plan.diagnostics) - errors
    counts = [many(errors, "error")] * bool(errors) + [many(warnings, "warning")] * bool(warnings)
    ordered = sorted(plan.diagnostics, key=lambda found: (not found.is_error, found.sort_key()))
    return [f"#### {' and '.join(counts)}", "", *_list(ordered, _diagnostic, limit)]


def _diagnostic(found: Diagnostic) -> str:
    where = f"{code(str(found.location))} " if found.location is not None else ""
    related = "".join(f"; {plain(note.label)}: {code(str(note.location))}" for note in found.related)
    hint = f" (help: {plain(found.hint)})" if found.hint else ""
    return f"- **{found.severity}** {where}{plain(found.message)}{related}{hint} {code(found.code)}"


def _held(plan: Plan, limit: int) -> Lines:
    held = [action for action in _of(plan, ActionType.KEEP) if not action.is_deferred]
    lines = _list(held, lambda action: f"- {code(action.key)}: {plain(action.reason)}", limit)
    return _titled("Held, or not known yet", held, lines)


# what is done ---------------------------------------------------------------------------------------------


def _actions(title: str, actions: list[Action], limit: int) -> Lines:
    shown = list(grouped(actions)) if len(actions) > _FEW else actions
    return _titled(title, actions, _list(shown, _action, limit))


def _action(action: Action) -> str:
    return f"- {action.subject.lower()} {code(action.key)}: {plain(action.reason)}"


def _changes(title: str, actions: list[Action], limit: int) -> Lines:
    shown = list(grouped(actions)) if len(actions) > _FEW else actions
    rows = [(action.key, change) for action in shown for change in action.changes]
    silent = [action for action in shown if not action.changes]
    lines = (
        table(("job", "field", "old", "new", "set by"), [_row(*row) for row in rows[:limit]]) if rows else []
    )
    lines += _more(len(rows) - limit)
    lines += [""] * bool(rows and silent) + _list(silent, _action, limit)
    return _titled(title, actions, lines)


def _row(key: str, change: Change) -> tuple[str, ...]:
    values = (cell(plan_value(value)) for value in (change.old, change.new))
    return (cell(key), cell(change.field), *values, _place(change))


def _place(change: Change) -> str:
    found = change.provenance
    if found is None:
        return ""
    place = f"{found['file']}:{found['line']}" if found["file"] else f"{found['kind']} {found['name']}"
    return f"{found['level']} {cell(place)}"


def _titled(title: str, actions: Sequence[Action], lines: Lines) -> Lines:
    """Short lists stand open, long ones are folded."""
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
    return ["", f"… and {number} more; `-o json` has all of them."] if number > 0 else []


# cost -----------------------------------------------------------------------------------------------------


def _cost(cost: Cost, limit: int) -> Lines:
    """A cost of which nothing is known is one line: it must not look like none at all."""
    if not cost.known:
        jobs = cost.unknown
        return [f"Cost: unknown for {many(jobs, 'job')}: no cores or no time limit."] if jobs else []
    lines = ["#### Cost, at most", ""]
    if cost.groups:
        header = ("worker", "resources", "jobs", "cores", "GPUs", "time limit", "core-h")
        lines += table(header, [_group(group) for group in cost.groups[:limit]])
        lines += [*_more(len(cost.groups) - limit), ""]
    return [*lines, plain((cost_line(cost) or "").partition(": ")[2])]


def _group(group: CostGroup) -> tuple[str, ...]:
    request = group.request
    return (
        cell(group.worker), cell(plan_value(group.resources)), f"{group.jobs}", _known(request.cores),
        _known(request.gpus), _known(request.seconds, _clock), _known(group.core_hours, hours),
    )  # fmt: skip


def _known(value: T | None, form: Callable[[T], str] = str) -> str:
    return "unknown" if value is None else form(value)


def _clock(seconds: int) -> str:
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
