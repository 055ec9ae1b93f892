"""``reconcile get``: list flows, jobs, workers or rules."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Sequence
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
from reconciler.cli.views.tree import TREE_COLUMNS, tree_rows, tree_symbols
from reconciler.cli.views.words import coming_retry, readable_worker
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState

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
    """Accept the global options also between `get` and the kind."""


_WATCH = click.option(
    "-w", "--watch", is_flag=True,
    help="Keep watching: a live table on a terminal, changed rows in a pipe.",
)  # fmt: skip


@command.command(name="flows", help="List flows with sync, health and the number of jobs by state.")
@click.argument("patterns", nargs=-1)
@click.option("--tree", is_flag=True, help="Show the jobs of each flow, and what they generated, as a tree.")
@_WATCH
@global_options
def flows(context: Context, *, patterns: tuple[str, ...], tree: bool, watch: bool) -> None:
    """List flows; PATTERNS are globs on their names."""

    def rows(view: View) -> list[Row]:
        return [row for row in flows_data(view) if _matches(row["name"], patterns)]

    def readable(row: Row) -> Row:
        counts = " ".join(f"{number} {state}" for state, number in row["jobs"].items()) or "-"
        return readable_conditions(row) | {"jobs": counts, "labels": row["labels"] or None}

    symbols, everything = tree_symbols(), context.options.verbose > 0

    def tree_look(view: View) -> list[Row]:
        trees = (
            tree_rows(flow, view.jobs_of(flow["name"]), symbols, everything=everything) for flow in rows(view)
        )
        return list(chain.from_iterable(trees))

    listing = Listing(rows, lambda rows: FLOW_COLUMNS, "name", readable)
    if tree and is_table(context):
        listing = Listing(tree_look, lambda rows: TREE_COLUMNS, "name")
    _list(context, listing, watch, patterns, "flow")


@command.command(name="jobs", help="List jobs; PATTERNS are globs on flow/job.")
@click.argument("patterns", nargs=-1)
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only jobs in this state.")
@click.option("--flow", "flow", metavar="NAME", help="Only jobs of this flow.")
@click.option("--worker", "worker", metavar="NAME", help="Only jobs of this worker.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Show at most N jobs.")
@click.option(
    "--all", "history", is_flag=True,
    help="Include history: superseded jobs, and jobs of removed flows.",
)  # fmt: skip
@_WATCH
@global_options
def jobs(context: Context, *, watch: bool, states: tuple[str, ...], **filters: Any) -> None:
    """List jobs in the order of their flows and ages."""
    wanted = _Filters(states=_states(states), **filters)

    def columns(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        narrow, wide = JOB_COLUMNS
        if context.options.output == "wide" or not any(row["deferred"] for row in rows):
            return narrow, wide
        return (*narrow[:-1], "deferred", narrow[-1]), wide  # a deferred patch must not go unseen

    listing = Listing(wanted.rows, columns, "key", lambda row: row | {"error": _problem(row, time.time())})
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        if wanted.flow is not None and view.flow(wanted.flow) is None:
            hint = did_you_mean(wanted.flow, [flow.name for flow in view.flows()])
            raise InputError(f"there is no flow '{wanted.flow}'", hint=hint)
        if wanted.worker is not None:
            require_worker(view, wanted.worker)
    _list(context, listing, watch, wanted.patterns, "job")


class _Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are listed. ``history``: also superseded jobs, and jobs of removed flows."""

    patterns: tuple[str, ...]
    states: set[str]
    flow: str | None
    worker: str | None
    limit: int | None
    history: bool

    def rows(self, view: View) -> list[Row]:
        """Return the rows of these jobs."""
        # A removed flow is history as soon as its last job has ended.
        flows = [flow.name for flow in view.flows() if self.history or not is_gone(view, flow)]
        rows: list[Row] = []
        for name in [self.flow] if self.flow else flows:
            if len(rows) == self.limit:
                break
            records = view.jobs_of(name)
            keys = job_keys(records)
            room = self.limit - len(rows) if self.limit is not None else None
            rows += [job_data(job, keys) for job in islice(filter(self._matches, records), room)]
        return rows

    def _matches(self, job: JobRecord) -> bool:
        return (
            (self.history or job.current)
            and (not self.states or job.state in self.states)
            and (self.worker is None or job.config.worker_name == self.worker)
            and _matches(job.path, self.patterns)
        )


def _states(names: tuple[str, ...]) -> set[str]:
    known = {str(state) for state in JobState}
    wanted = {name.upper() for name in names}
    for name in sorted(wanted - known):
        raise InputError(f"there is no state '{name}'", hint=did_you_mean(name, known))
    return wanted


def _problem(row: dict[str, Any], now: float) -> str | None:
    """Return in one line why a job failed and when it is retried, or why it can never start."""
    if row["stuck"]:
        return f"stuck: {row['stuck']}"
    last = str(row["error"]).strip().splitlines()[-1] if row["error"] else None
    return ": ".join(filter(None, (coming_retry(row, now), last))) or None


@command.command(name="workers", help="List workers with their status and number of jobs.")
@_WATCH
@global_options
def workers(context: Context, *, watch: bool) -> None:
    """List the workers of the last applied revision."""

    def rows(view: View) -> list[Row]:
        config = view.config()
        known = config.workers if config is not None else {}
        return [worker_data(view, name, known[name]) for name in sorted(known)]

    def columns(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        narrow, wide = WORKER_COLUMNS
        return (*narrow, "next_try", "reason") if any(row["reason"] for row in rows) else narrow, wide

    def readable(row: Row) -> Row:
        return readable_conditions(readable_worker(row, time.time()))

    _list(context, Listing(rows, columns, "name", readable), watch)


@command.command(name="rules", help="List override rules in the order in which they apply.")
@global_options
def rules(context: Context) -> None:
    """List the override rules of the revision; a later one wins."""
    source = context.source()
    with context.store() as store:
        from reconciler.loop import Session

        state = Session(source, store).load().state
    show(context, [rule_data(state, rule) for rule in state.rules], *RULE_COLUMNS, name="name")


def _list(
    context: Context, listing: Listing, watch: bool, patterns: tuple[str, ...] = (), kind: str = ""
) -> None:
    """Print a listing once, or with ``watch`` until it is interrupted."""
    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            rows = listing.look(view)
            attempt = counted_attempt(view) if kind == "flow" else None
        if not rows and patterns:
            context.say(f"no {kind} matches {' '.join(patterns)}")
        if not watch:
            say_attempt(context, attempt)
            show_listing(context, listing, rows)
            return
        from reconciler.cli.views.listing import follow

        follow(context, store, listing)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
