"""``reconcile get``: list flows, jobs, failures, workers, batches, rules, FlowSets or Makers."""

from __future__ import annotations

import fnmatch
import functools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import click
import msgspec

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.job_selectors import (
    GLOB,
    check_filters,
    glob_hint,
    is_uuid,
    near_job,
    read_flow_words,
    read_words,
)
from reconciler.cli.live_names import complete_flow_selectors, complete_selectors
from reconciler.cli.options import LIMIT, Duration, KindGroup, global_options
from reconciler.cli.views.conditions import READABLE, readable_conditions, say_attempt
from reconciler.cli.views.data import (
    batches_data,
    failure_groups,
    flows_data,
    flowsets_data,
    is_gone,
    job_data,
    job_keys,
    maker_data,
    ordered_jobs,
    rule_data,
    worker_data,
)
from reconciler.cli.views.listing import Listing, Row, is_table, show_listing
from reconciler.cli.views.tree import TREE_COLUMNS, tree_rows, tree_symbols
from reconciler.cli.views.words import (
    coming_retry,
    duration_text,
    last_line,
    readable_worker,
    time_text,
)
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.files import space_text
from reconciler.jobs.waiting import WhyWaiting
from reconciler.model.manifests import Kind
from reconciler.model.records import FlowRecord, JobRecord

FLOW_COLUMNS = (("name", "sync", "health", "jobs", "reason"), ("revision", *READABLE, "labels"))
JOB_COLUMNS = (
    ("key", "state", "worker", "priority", "error"),
    (
        *("cause", "name", "index", "uuid", "exec_config", "resources", "qresources", "deferred"),
        *("submitted", "started", "ended", "seconds", "cpu", "memory"),
        *("run_worker", "queue_id", "run_dir"),
    ),
)
WORKER_COLUMNS = (
    ("name", "type", "scheduler_type", "max_jobs", "active", "ready", "status"),
    ("last_seen", "work_dir", "python", "jobflow", *READABLE),
)
BATCH_COLUMNS = (
    ("worker", "allocation", "queue_id", "state", "busy", "slots", "done", "remaining", "reason"),
    ("node", "submitted", "ended", "closed"),
)
FAILURE_COLUMNS = (
    ("failure", "jobs", "flows", "cause", "error", "example"),
    ("state", "workers", "fix", "retry"),
)
RULE_COLUMNS = (
    ("name", "order", "flows", "name_filter", "name_glob", "function_filter", "sets"),
    ("labels", "makers", "dynamic"),
)
MAKER_COLUMNS = (("name", "class", "kwargs", "flows"), ("valid", "file", "line"))


FLOWSET_COLUMNS = (("name", "items", "flows", "completed", "failed", "frozen"), ("jobs",))


@click.group(
    cls=KindGroup,
    name="get",
    no_args_is_help=False,
    help="List flows, jobs, failures, workers, batches, rules, FlowSets or Makers.",
)
@global_options
def command(context: Context) -> None:
    """Accept the global options also between `get` and the kind."""


_WATCH = click.option(
    "-w", "--watch", is_flag=True,
    help="Keep watching: a live table on a terminal, changed rows in a pipe.",
)  # fmt: skip


class Arrangement(msgspec.Struct, frozen=True):
    """How a user wants a table: its columns, its order, and whether it has headers."""

    columns: str | None
    sort_by: str | None
    no_headers: bool


def _arranged(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of an :class:`Arrangement` to a listing, which gets it as ``arrangement``."""

    @click.option("--columns", metavar="NAME,...", help="Show these fields of -o json, as in labels.metal.")
    @click.option("--sort-by", metavar="NAME", help="Sort by a field; -NAME: largest first.")
    @click.option("--no-headers", is_flag=True, help="Print no header line.")
    @functools.wraps(command)
    def wrapper(*, columns: str | None, sort_by: str | None, no_headers: bool, **more: Any) -> None:
        command(arrangement=Arrangement(columns, sort_by, no_headers), **more)

    return wrapper


@command.command(name="flows", help="List flows with sync, health and the number of jobs by state.")
@click.argument(
    "selectors",
    nargs=-1,
    metavar="[FLOW|label:KEY=VALUE|flowset:SET|item.COLUMN>VALUE]...",
    shell_complete=complete_flow_selectors,
)
@click.option("--tree", is_flag=True, help="Show the jobs of each flow, and what they generated, as a tree.")
@_WATCH
@_arranged
@global_options
def flows(
    context: Context, *, selectors: tuple[str, ...], tree: bool, watch: bool, arrangement: Arrangement
) -> None:
    """List flows; globs work in names."""
    wanted = read_flow_words(selectors, hint="use `reconcile get jobs`")

    def rows(view: View) -> list[Row]:
        return [
            row for row in flows_data(view)
            if wanted.selects_flow(row["name"], row["labels"], row["flowset"], row["item"])
        ]  # fmt: skip

    def readable(row: Row) -> Row:
        counts = " ".join(f"{number} {state}" for state, number in row["jobs"].items()) or "-"
        return readable_conditions(row) | {"jobs": counts, "labels": row["labels"] or None}

    symbols, everything = tree_symbols(), context.options.verbose > 0

    def tree_look(view: View) -> list[Row]:
        trees = (
            tree_rows(flow, ordered_jobs(view, flow["name"]), symbols, everything=everything)
            for flow in rows(view)
        )
        return list(chain.from_iterable(trees))

    listing = Listing(rows, lambda rows: FLOW_COLUMNS, "name", readable)
    if tree and is_table(context):
        listing = Listing(tree_look, lambda rows: TREE_COLUMNS, "name")
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        check_filters(wanted, view, view.flows())
        names = [flow["name"] for flow in flows_data(view)] if wanted.names else []
        for pattern in wanted.names:
            if not fnmatch.filter(names, pattern):
                hint = did_you_mean(pattern, names)
                context.say(f"no flow matches '{pattern}'" + (f"; {hint}" if hint is not None else ""))
        say_attempt(context, view.counted_attempt() if not watch else None)
    _list(context, listing, arrangement, watch)


@command.command(name="jobs")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...", shell_complete=complete_selectors)
@click.option("--state", "states", multiple=True, metavar="STATE,...", help="Only jobs in these states.")
@click.option("--flow", "flow", metavar="NAME", help="Only jobs of this flow.")
@click.option("--worker", "worker", metavar="NAME", help="Only jobs of this worker.")
@click.option("--limit", type=LIMIT, metavar="N", help="Show at most N jobs.")
@click.option(
    "--all", "history", is_flag=True,
    help="Include history: superseded jobs, and jobs of removed flows.",
)  # fmt: skip
@click.option(
    "--since", type=Duration(), metavar="DURATION", help="Only jobs that moved in the last DURATION."
)
@_WATCH
@_arranged
@global_options
def jobs(
    context: Context,
    *,
    selectors: tuple[str, ...],
    states: tuple[str, ...],
    flow: str | None,
    worker: str | None,
    limit: int | None,
    history: bool,
    since: float | None,
    watch: bool,
    arrangement: Arrangement,
) -> None:
    """List jobs in the order of their flows and their definitions.

    SELECTORs are names and filters, as for `reconcile retry`. Names: FLOW for all its jobs, FLOW/JOB (globs
    work in both), a uuid or its beginning. Filters: state:FAILED,REMOTE_ERROR, worker:NAME,
    label:KEY=VALUE, flowset:SET, failure:ID, 'item.COLUMN>VALUE'.
    """
    wanted = read_words([*selectors, *(f"state:{names}" for names in states)])
    if worker is not None:
        wanted.workers.add(worker)

    removed: set[str] = set()

    def rows(view: View) -> list[Row]:
        found: list[Row] = []
        why = WhyWaiting(view)
        for record in _flows_listed(view, wanted.names, flow, history=history):
            if record.removed:
                removed.add(record.name)
            if len(found) == limit:
                break
            jobs = ordered_jobs(view, record.name)
            keys = job_keys(jobs)
            listed = (
                job_data(job, keys, why) for job in jobs
                if (history or job.current)
                and (since is None or job.updated >= time.time() - since)
                and wanted.pass_job(job, record)
                and (not wanted.names or any(_is_named(name, job) for name in wanted.names))
            )  # fmt: skip
            found += islice(listed, limit - len(found) if limit is not None else None)
        return found

    def columns(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        narrow, wide = JOB_COLUMNS
        if context.options.output == "wide" or not any(row["deferred"] for row in rows):
            return narrow, wide
        return (*narrow[:-1], "deferred", narrow[-1]), wide  # a deferred patch must not go unseen

    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        if flow is not None and view.flow(flow) is None:
            why = _why_not_submitted(view, flow)
            if why is None:
                raise InputError(f"there is no flow '{flow}'", hint=did_you_mean(flow, _names(view)))
            context.say(why)
        check_filters(wanted, view, view.flows())
        _warn_of_unmatched(context, view, wanted.names, flow, history=history)

    def readable(row: Row) -> Row:
        texts = {name: time_text(row[name]) for name in ("submitted", "started", "ended") if row[name]}
        for name in ("seconds", "cpu"):
            if row[name] is not None:
                texts[name] = duration_text(row[name])
        if row["memory"] is not None:
            texts["memory"] = space_text(row["memory"])
        return row | texts | {"error": _problem(row, time.time(), removed)}

    _list(context, Listing(rows, columns, "key", readable), arrangement, watch)


def _flows_listed(
    view: View, names: Sequence[str], flow: str | None, *, history: bool
) -> Iterator[FlowRecord]:
    """Yield the flows that may have jobs to list, by name."""
    exact = {name.partition("/")[0] for name in names}
    only = exact if names and not any(is_uuid(name) or GLOB.search(name) for name in names) else None
    for record in view.flows():
        if flow is not None and record.name != flow:
            continue
        # A removed flow is history as soon as its last job has ended.
        if (only is None or record.name in only) and (history or not is_gone(view, record)):
            yield record


def _is_named(name: str, job: JobRecord) -> bool:
    """Return whether a name selects a job: a flow or ``flow/job``, with globs in both, or a uuid."""
    flow, slash, key = name.partition("/")
    if fnmatch.fnmatchcase(job.flow, flow):
        return not slash or job.key == key or fnmatch.fnmatchcase(job.key, key)
    return is_uuid(name) and (job.id == name.lower() or ("_" not in name and job.id.startswith(name.lower())))


def _warn_of_unmatched(
    context: Context, view: View, names: Sequence[str], flow: str | None, *, history: bool
) -> None:
    """Print on stderr the names that select no job, with the nearest one that does."""
    missing = dict.fromkeys(names)
    for record in _flows_listed(view, names, flow, history=history):
        if not missing:
            return
        for job in view.jobs_of(record.name):
            if history or job.current:
                missing = {name: None for name in missing if not _is_named(name, job)}
    for name in missing:
        near, slash, key = name.partition("/")
        why = _why_not_submitted(view, near)
        if why is not None:
            context.say(why)
            continue
        if not history and any(
            _is_named(name, job) for record in view.flows() for job in view.jobs_of(record.name)
        ):
            hint: str | None = "superseded jobs match: add --all"
        else:
            hint = near_job(view, near, key) if slash else did_you_mean(near, _names(view))
            hint = glob_hint(name) or hint or near_job(view, "", name)
        context.say(f"no job matches '{name}'" + (f"; {hint}" if hint else ""))


def _why_not_submitted(view: View, flow: str) -> str | None:
    """Return why a flow of the applied revision has no jobs; None for any other name."""
    config = view.config()
    if config is None or flow not in config.out_of_sync or view.flow(flow) is not None:
        return None
    reason = config.out_of_sync[flow].removeprefix("last good version kept: ")
    return f"flow {flow} is not submitted: {reason}"


def _names(view: View) -> list[str]:
    return [flow.name for flow in view.flows()]


def _problem(row: dict[str, Any], now: float, removed: Collection[str]) -> str | None:
    """Return in one line that a job is history, and why it failed, waits, or can never start."""
    history = "superseded" if not row["current"] else "its flow was removed" * (row["flow"] in removed)
    if row["stuck"]:
        problem = f"stuck: {row['stuck']}"
    elif row["waiting"]:
        problem = f"waits: {row['waiting']}"
    else:
        last = last_line(row["error"]) if row["error"] else None
        problem = ": ".join(filter(None, (coming_retry(row, now), last)))
    return "; ".join(filter(None, (history, problem))) or None


@command.command(name="failures")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...", shell_complete=complete_selectors)
@_WATCH
@_arranged
@global_options
def failures(context: Context, *, selectors: tuple[str, ...], watch: bool, arrangement: Arrangement) -> None:
    """List failed jobs in groups that failed alike, the largest first.

    Failures are alike if they have the same cause and, apart from numbers, paths and uuids, the same error.
    `reconcile retry failure:ID` runs the jobs of a group again, and `get jobs failure:ID` lists them.
    """
    wanted = read_words(selectors)

    def rows(view: View) -> list[Row]:
        return failure_groups(
            job
            for record in _flows_listed(view, wanted.names, None, history=False)
            for job in view.jobs_of(record.name)
            if wanted.pass_job(job, record)
            and (not wanted.names or any(_is_named(name, job) for name in wanted.names))
        )

    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        check_filters(wanted, view, view.flows())
    _list(context, Listing(rows, lambda rows: FAILURE_COLUMNS, "failure"), arrangement, watch)


@command.command(name="workers", help="List workers with their status and number of jobs.")
@_WATCH
@_arranged
@global_options
def workers(context: Context, *, watch: bool, arrangement: Arrangement) -> None:
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

    _list(context, Listing(rows, columns, "name", readable), arrangement, watch)


@command.command(name="batches", help="List the allocations of batch workers, and what their agents report.")
@_WATCH
@_arranged
@global_options
def batches(context: Context, *, watch: bool, arrangement: Arrangement) -> None:
    """List the allocations of the workers of the last applied revision, and the latest that have ended."""

    def rows(view: View) -> list[Row]:
        config = view.config()
        known = config.workers if config is not None else {}
        return [row for name in sorted(known) for row in batches_data(view, name, time.time())]

    def readable(row: Row) -> Row:
        times = {name: time_text(row[name]) for name in ("submitted", "ended") if row[name]}
        remaining = duration_text(row["remaining"]) if row["remaining"] is not None else None
        return row | times | {"remaining": remaining}

    listing = Listing(rows, lambda rows: BATCH_COLUMNS, "allocation", readable)
    _list(context, listing, arrangement, watch)


@command.command(name="rules", help="List override rules in the order in which they apply.")
@_arranged
@global_options
def rules(context: Context, *, arrangement: Arrangement) -> None:
    """List the override rules of the revision; a later one wins."""
    source = context.source()
    with context.store() as store:
        from reconciler.loop import Session

        state = Session(source, store).load().state
        listing = Listing(
            lambda view: [rule_data(state, rule) for rule in state.rules], lambda rows: RULE_COLUMNS, "name"
        ).arranged(arrangement.columns, arrangement.sort_by, headers=not arrangement.no_headers)
        with store.read() as view:
            rows = listing.look(view)
    show_listing(context, listing, rows)


@command.command(name="flowsets", help="List FlowSets with their items, and how their flows do.")
@_WATCH
@_arranged
@global_options
def flowsets(context: Context, *, watch: bool, arrangement: Arrangement) -> None:
    """List the FlowSets of the last applied revision, and those that still have flows."""

    def readable(row: Row) -> Row:
        counts = " ".join(f"{number} {state}" for state, number in row["jobs"].items()) or "-"
        return row | {"jobs": counts}

    listing = Listing(flowsets_data, lambda rows: FLOWSET_COLUMNS, "name", readable)
    _list(context, listing, arrangement, watch)


@command.command(name="makers", help="List Makers and the flows that use them.")
@_arranged
@global_options
def makers(context: Context, *, arrangement: Arrangement) -> None:
    """List the Makers of the revision by name."""
    source = context.source()
    with context.store() as store:
        from reconciler.loop import Session

        state = Session(source, store).load().state
        found = [state.manifests[key] for key in sorted(state.manifests) if key.startswith(f"{Kind.MAKER}/")]
        listing = Listing(
            lambda view: [maker_data(state, manifest) for manifest in found],
            lambda rows: MAKER_COLUMNS,
            "name",
        ).arranged(arrangement.columns, arrangement.sort_by, headers=not arrangement.no_headers)
        with store.read() as view:
            rows = listing.look(view)
    show_listing(context, listing, rows)


def _list(context: Context, listing: Listing, arrangement: Arrangement, watch: bool) -> None:
    """Print a listing once, or with ``watch`` until it is interrupted."""
    listing = listing.arranged(arrangement.columns, arrangement.sort_by, headers=not arrangement.no_headers)
    with context.store(must_exist=True, read_only=True) as store:
        if watch:
            from reconciler.cli.views.listing import follow

            follow(context, store, listing)
        else:
            with store.read() as view:
                rows = listing.look(view)
            show_listing(context, listing, rows)
