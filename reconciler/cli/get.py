"""``reconcile get``: list flows, jobs, workers or rules as the store has them."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

import click
import msgspec

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.job_selectors import require_worker
from reconciler.cli.options import global_options
from reconciler.cli.views.conditions import READABLE, counted_attempt, readable_conditions, say_attempt
from reconciler.cli.views.data import flows_data, is_gone, job_data, job_keys, rule_data, worker_data
from reconciler.cli.views.listing import Listing, Row, is_table, show, show_listing
from reconciler.cli.views.tree import TREE_COLUMNS, TreeSymbols, tree_rows, tree_symbols
from reconciler.cli.views.words import coming_retry, readable_worker
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.records import JobRecord

FLOW_COLUMNS = (("name", "sync", "health", "jobs", "reason"), ("revision", *READABLE, "labels"))
JOB_COLUMNS = (
    ("key", "state", "worker", "priority", "error"),
    (
        *("cause", "name", "index", "uuid", "exec_config", "resources", "qresources", "deferred"),
        *("run_worker", "queue_id", "run_dir"),
    ),
)
WORKER_COLUMNS = (
    ("name", "type", "scheduler_type", "max_jobs", "active", "ready", "status"),
    ("last_seen", "work_dir", "python", "jobflow", *READABLE),
)
RULE_COLUMNS = (
    ("name", "order", "flows", "name_filter", "name_glob", "function_filter", "sets"),
    ("labels", "dynamic"),
)


@click.group(name="get", no_args_is_help=False, help="List flows, jobs, workers or rules.")
@global_options
def command(context: Context) -> None:
    """Take the global options also between `get` and the kind."""


_WATCH = click.option(
    "-w", "--watch", is_flag=True, help="Go on: on a terminal a table that lives, else the rows that change."
)


@command.command(name="flows", help="List flows with sync, health and the number of jobs by state.")
@click.argument("patterns", nargs=-1)
@click.option("--tree", is_flag=True, help="Below each flow its jobs, and what they generated, as a tree.")
@_WATCH
@global_options
def flows(context: Context, *, patterns: tuple[str, ...], tree: bool, watch: bool) -> None:
    """List flows; PATTERNS are globs on their names."""
    look = partial(_flow_rows, patterns=patterns)
    listing = Listing(look, lambda rows: FLOW_COLUMNS, "name", _readable_flow)
    if tree and is_table(context):
        drawn, everything = tree_symbols(), context.options.verbose > 0
        listing = Listing(
            lambda view: _trees(view, look(view), drawn, everything), lambda rows: TREE_COLUMNS, "name"
        )
    _list(context, listing, watch, patterns, "flow")


@command.command(name="jobs", help="List jobs; PATTERNS are globs on flow/job.")
@click.argument("patterns", nargs=-1)
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only jobs in this state.")
@click.option("--flow", "flow", metavar="NAME", help="Only jobs of this flow.")
@click.option("--worker", "worker", metavar="NAME", help="Only jobs of this worker.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.")
@click.option(
    "--all",
    "history",
    is_flag=True,
    help="Also history: jobs that newer content replaced, or of removed flows.",
)
@_WATCH
@global_options
def jobs(context: Context, *, watch: bool, states: tuple[str, ...], **filters: Any) -> None:
    """List jobs in the order of their flows and ages."""
    wanted = Filters(states=_states(states), **filters)
    columns = partial(_job_columns, context)
    listing = Listing(wanted.rows, columns, "key", lambda row: row | {"error": _problem(row, time.time())})
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        _check_filters(view, wanted.flow, wanted.worker)
    _list(context, listing, watch, wanted.patterns, "job")


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are listed. ``history``: also those that newer content replaced, or of removed flows."""

    patterns: tuple[str, ...]
    states: set[str]
    flow: str | None
    worker: str | None
    limit: int | None
    history: bool

    def rows(self, view: View) -> list[Row]:
        """Return the rows of these jobs."""
        rows: list[Row] = []
        for name in [self.flow] if self.flow else _flow_names(view, self.history):
            if len(rows) == self.limit:
                break
            records = view.jobs_of(name)
            keys = job_keys(records)
            room = self.limit - len(rows) if self.limit is not None else None
            rows += [job_data(job, keys) for job in islice(filter(self._pass, records), room)]
        return rows

    def _pass(self, job: JobRecord) -> bool:
        return (
            (self.history or job.current)
            and (not self.states or job.state in self.states)
            and (self.worker is None or job.config.worker_name == self.worker)
            and _matches(job.path, self.patterns)
        )


@command.command(name="workers", help="List workers: how they are, and how many jobs they have.")
@_WATCH
@global_options
def workers(context: Context, *, watch: bool) -> None:
    """List the workers of the last applied revision."""
    _list(context, Listing(_worker_rows, _worker_columns, "name", _readable_worker), watch)


def _worker_rows(view: View) -> list[Row]:
    config = view.config()
    known = config.workers if config is not None else {}
    return [worker_data(view, name, known[name]) for name in sorted(known)]


def _readable_worker(row: Row) -> Row:
    return readable_conditions(readable_worker(row, time.time()))


def _list(
    context: Context, listing: Listing, watch: bool, patterns: tuple[str, ...] = (), what: str = ""
) -> None:
    """Show a listing once, or until it is interrupted."""
    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            rows = listing.look(view)
            attempt = counted_attempt(view) if what == "flow" else None
        _none_found(context, rows, patterns, what)
        if not watch:
            say_attempt(context, attempt)
            show_listing(context, listing, rows)
            return
        from reconciler.cli.views.listing import follow

        follow(context, store, listing)


@command.command(name="rules", help="List override rules in the order in which they apply.")
@global_options
def rules(context: Context) -> None:
    """List the override rules of the revision; a later one wins."""
    source = context.source()
    with context.store() as store:
        from reconciler.loop import Session

        state = Session(source, store).load().state
    rows = [rule_data(state, rule) for rule in state.rules]
    show(context, rows, *RULE_COLUMNS, name="name")


def _flow_rows(view: View, patterns: tuple[str, ...]) -> list[Row]:
    return [row for row in flows_data(view) if _matches(str(row["name"]), patterns)]


def _readable_flow(row: Row) -> Row:
    return readable_conditions(row) | {"jobs": _counts(row["jobs"]), "labels": row["labels"] or None}


def _trees(view: View, flows: list[Row], drawn: TreeSymbols, everything: bool) -> list[Row]:
    rows = (tree_rows(flow, view.jobs_of(flow["name"]), drawn, everything=everything) for flow in flows)
    return list(chain.from_iterable(rows))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _flow_names(view: View, history: bool) -> list[str]:
    """A flow that was removed is history once its last job has ended."""
    return [flow.name for flow in view.flows() if history or not is_gone(view, flow)]


def _job_columns(context: Context, rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A change that waits must not go unseen: its column appears as soon as there is one."""
    narrow, wide = JOB_COLUMNS
    if context.options.output == "wide" or not any(row["deferred"] for row in rows):
        return narrow, wide
    return (*narrow[:-1], "deferred", narrow[-1]), wide


def _worker_columns(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """An outage explains itself, where there is one."""
    narrow, wide = WORKER_COLUMNS
    return (*narrow, "next_try", "reason") if any(row["reason"] for row in rows) else narrow, wide


def _states(names: tuple[str, ...]) -> set[str]:
    from reconciler.model.states import JobState

    known = {str(state) for state in JobState}
    wanted = {name.upper() for name in names}
    for name in sorted(wanted - known):
        raise InputError(f"there is no state '{name}'", hint=did_you_mean(name, known))
    return wanted


def _check_filters(view: View, flow: str | None, worker: str | None) -> None:
    """A filter that names nothing is a slip of the pen, not an empty answer."""
    if flow is not None and view.flow(flow) is None:
        raise InputError(
            f"there is no flow '{flow}'", hint=did_you_mean(flow, [f.name for f in view.flows()])
        )
    if worker is not None:
        require_worker(view, worker)


def _none_found(context: Context, rows: list[Any], patterns: tuple[str, ...], what: str) -> None:
    if not rows and patterns:
        context.say(f"no {what} matches {' '.join(patterns)}")


def _counts(counts: dict[str, int]) -> str:
    return " ".join(f"{number} {state}" for state, number in counts.items()) or "-"


def _problem(row: dict[str, Any], now: float) -> str | None:
    """Return in one line why a job failed and when it is tried again, or why it can never start."""
    if row["stuck"]:
        return f"stuck: {row['stuck']}"
    last = str(row["error"]).strip().splitlines()[-1] if row["error"] else None
    return ": ".join(filter(None, (coming_retry(row, now), last))) or None
