"""Flows as trees: the jobs of a flow below it, and generated jobs below their generator."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from reconciler.cli.views.listing import cell_text
from reconciler.model.failures import error_line
from reconciler.model.graph import Branch, job_tree
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE, BROKEN

TREE_COLUMNS = (("name", "state", "worker", "message"), ("function", "uuid", "index"))

Row = dict[str, Any]

_FEW = 40
"""Up to this number, sibling jobs that generated nothing are all shown."""

_FIRST, _NEWS = 5, 10
"""Of more siblings, this many of the first ones are shown, and this many that failed or run."""


class TreeSymbols(msgspec.Struct, frozen=True):
    """The characters that draw a tree."""

    middle: str
    last: str
    through: str
    past: str
    more: str


BOXES = TreeSymbols("├─ ", "└─ ", "│  ", "   ", "…")
ASCII = TreeSymbols("|- ", "`- ", "|  ", "   ", "...")


def tree_symbols() -> TreeSymbols:
    """Return box-drawing characters, or ASCII if stdout cannot encode them."""
    try:
        "".join(msgspec.structs.astuple(BOXES)).encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return BOXES


def tree_rows(
    flow: Row, members: Sequence[JobRecord], drawn: TreeSymbols, *, everything: bool
) -> Iterator[Row]:
    """Yield the rows of a table: the flow, a row of ``get flows``, and its current jobs as a tree below it.

    Of many sibling jobs that generated nothing only some are shown, unless ``everything`` is true.
    """
    yield _row(flow["name"], flow["health"], message=flow["reason"])
    # A stack instead of recursion: a chain of generated jobs may be longer than Python's recursion limit.
    waiting = _under("", job_tree(members), drawn, everything=everything)
    while waiting:
        row, below, line = waiting.pop()
        yield row
        if below:
            waiting += _under(line, below, drawn, everything=everything)


Waiting = list[tuple[Row, list[Branch], str]]


def _under(line: str, branches: Sequence[Branch], drawn: TreeSymbols, *, everything: bool) -> Waiting:
    """Return the rows below a line, the last one first: each with its branches and their prefix."""
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
    """Return the branches to show and those to only count, in their order."""
    leaves = [branch for branch in branches if not branch.below]
    if len(leaves) <= _FEW:
        return list(branches), []
    news = [branch for branch in leaves[_FIRST:] if branch.job.state in BROKEN]
    news += [branch for branch in leaves[_FIRST:] if branch.job.state in ACTIVE]
    hidden = {branch.job.id for branch in leaves[_FIRST:]} - {branch.job.id for branch in news[:_NEWS]}
    shown = [branch for branch in branches if branch.job.id not in hidden]
    return shown, [branch for branch in leaves if branch.job.id in hidden]


def _job_row(job: JobRecord, line: str) -> Row:
    # ``cell_text`` removes line breaks, which would break the tree.
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
    """Return why a job is cancelled, stuck or failed, or its deferred change; None for other jobs."""
    if job.cancelling:
        return f"cancelling: {job.cancellation.reason}"
    if job.attempt.stuck:
        return f"stuck: {job.attempt.stuck}"
    if job.attempt.waiting:
        return f"waits: {job.attempt.waiting}"
    if job.error:
        retry = f"to be retried after {job.cause}: " if job.retry.at is not None else ""
        return retry + error_line(job.error)
    waits = {change.field: change.new for change in job.deferred_changes}
    return f"deferred: {cell_text(waits)}" if waits else None
