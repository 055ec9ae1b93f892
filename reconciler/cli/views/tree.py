"""Flows as trees: below each its jobs, and below a job what it generated."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from reconciler.cli.views.listing import cell_text
from reconciler.model.graph import Branch, job_tree
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE, BROKEN

TREE_COLUMNS = (("name", "state", "worker", "message"), ("function", "uuid", "index"))

Row = dict[str, Any]

_FEW = 40
"""As many alike jobs side by side are shown one by one."""

_FIRST, _NEWS = 5, 10
"""Of more than that: the first ones, and so many that run or failed."""


class TreeSymbols(msgspec.Struct, frozen=True):
    """What the lines of a tree are drawn with."""

    middle: str
    last: str
    through: str
    past: str
    more: str


BOXES = TreeSymbols("├─ ", "└─ ", "│  ", "   ", "…")
ASCII = TreeSymbols("|- ", "`- ", "|  ", "   ", "...")


def tree_symbols() -> TreeSymbols:
    """Return the symbols that stdout can show."""
    try:
        "".join(msgspec.structs.astuple(BOXES)).encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return BOXES


def tree_rows(
    flow: Row, members: Sequence[JobRecord], drawn: TreeSymbols, *, everything: bool
) -> Iterator[Row]:
    """Yield the rows of a table: the flow, as ``get flows`` has it, and its current jobs as a tree below it.

    Of many jobs side by side that generated nothing only some are shown, unless ``everything`` is asked for.
    """
    yield _row(flow["name"], flow["health"], message=flow["reason"])
    # No recursion: a job may be the thousandth that one generated the other.
    waiting = _under("", job_tree(members), drawn, everything=everything)
    while waiting:
        row, below, line = waiting.pop()
        yield row
        if below:
            waiting += _under(line, below, drawn, everything=everything)


Waiting = list[tuple[Row, list[Branch], str]]


def _under(line: str, branches: Sequence[Branch], drawn: TreeSymbols, *, everything: bool) -> Waiting:
    """Return the rows below a line, the last first: each with what is below it, and how that begins."""
    shown, left_out = (branches, []) if everything else _shorter(branches)
    found: Waiting = []
    for number, branch in enumerate(shown, 1):
        is_last = number == len(shown) and not left_out
        row = _job_row(branch.job, line + (drawn.last if is_last else drawn.middle))
        found.append((row, branch.below, line + (drawn.past if is_last else drawn.through)))
    if left_out:
        states = Counter(str(branch.job.state) for branch in left_out)
        message = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        name = f"{line}{drawn.last}{drawn.more} {len(left_out)} more"
        found.append((_row(name, None, message=f"{message} (-v shows all)"), [], ""))
    return found[::-1]


def _shorter(branches: Sequence[Branch]) -> tuple[list[Branch], list[Branch]]:
    """Return which branches to show and which to count, in their order."""
    leaves = [branch for branch in branches if not branch.below]
    if len(leaves) <= _FEW:
        return list(branches), []
    news = [branch for branch in leaves[_FIRST:] if branch.job.state in BROKEN]
    news += [branch for branch in leaves[_FIRST:] if branch.job.state in ACTIVE]
    hidden = {branch.job.id for branch in leaves[_FIRST:]} - {branch.job.id for branch in news[:_NEWS]}
    shown = [branch for branch in branches if branch.job.id not in hidden]
    return shown, [branch for branch in leaves if branch.job.id in hidden]


def _job_row(job: JobRecord, line: str) -> Row:
    # On one line before it is drawn: a line break in a name must not break the tree.
    name = f"{line}{cell_text(job.key)}"
    worker = job.config.value("worker")
    return _row(name, str(job.state), worker=worker, message=_message(job)) | {
        "function": job.function, "uuid": job.uuid, "index": job.index
    }  # fmt: skip


def _row(name: str, state: str | None, *, message: str | None, worker: str | None = None) -> Row:
    return {
        "name": name, "state": state, "worker": worker, "message": message,
        "function": None, "uuid": None, "index": None,
    }  # fmt: skip


def _message(job: JobRecord) -> str | None:
    """Return what is special about a job: it is cancelled, stuck or failed, or a change waits for it."""
    if job.cancel is not None:
        return f"cancelling: {job.cancel}"
    if job.stuck:
        return f"stuck: {job.stuck}"
    if job.error:
        retry = f"to be retried after {job.cause}: " if job.retry_at is not None else ""
        return retry + job.error.strip().splitlines()[-1]
    waits = {change.field: change.new for change in job.wanted_changes}
    return f"deferred: {cell_text(waits)}" if waits else None
