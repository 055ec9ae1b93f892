"""``reconcile get``: list flows, jobs, workers or rules as the store has them."""

from __future__ import annotations

import fnmatch
import time
from itertools import chain, islice
from typing import Any

import click

from reconciler.actual.store import View
from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.views.data import flows_data, is_gone, job_data, job_keys, rule_data, worker_data
from reconciler.cli.views.listing import show
from reconciler.cli.views.retry_text import coming_retry
from reconciler.cli.views.tree import TREE_COLUMNS, signs, tree_rows
from reconciler.cli.views.worker_text import readable_worker
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError

FLOW_COLUMNS = (("name", "sync", "health", "jobs", "reason"), ("revision", "labels"))
JOB_COLUMNS = (
    ("key", "state", "worker", "priority", "error"),
    (
        *("cause", "name", "index", "uuid", "exec_config", "resources", "qresources", "deferred"),
        *("run_worker", "queue_id", "run_dir"),
    ),
)
WORKER_COLUMNS = (
    ("name", "type", "scheduler_type", "max_jobs", "active", "ready", "status"),
    ("last_seen", "work_dir", "python", "jobflow"),
)
RULE_COLUMNS = (
    ("name", "order", "flows", "name_filter", "name_glob", "function_filter", "sets"),
    ("labels", "dynamic"),
)


@click.group(name="get", no_args_is_help=False, help="List flows, jobs, workers or rules.")
@global_options
def command(context: Context) -> None:
    """Take the global options also between `get` and the kind."""


@command.command(name="flows", help="List flows with sync, health and the number of jobs by state.")
@click.argument("patterns", nargs=-1)
@click.option("--tree", is_flag=True, help="Below each flow its jobs, and what they generated, as a tree.")
@global_options
def flows(context: Context, *, patterns: tuple[str, ...], tree: bool) -> None:
    """List flows; PATTERNS are globs on their names."""
    as_text = context.options.output in ("table", "wide")
    with context.store(must_exist=True) as store, store.read() as view:
        rows = [row for row in flows_data(view) if _matches(str(row["name"]), patterns)]
        lines = _trees(context, view, rows) if tree and as_text else []
    _none_found(context, rows, patterns, "flow")
    if lines:
        show(context, lines, *TREE_COLUMNS, name="name")
        return
    if as_text:
        rows = [row | {"jobs": _counts(row["jobs"]), "labels": row["labels"] or None} for row in rows]
    show(context, rows, *FLOW_COLUMNS, name="name")


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
@global_options
def jobs(
    context: Context,
    *,
    patterns: tuple[str, ...],
    states: tuple[str, ...],
    flow: str | None,
    worker: str | None,
    limit: int | None,
    history: bool,
) -> None:
    """List jobs in the order of their flows and ages."""
    wanted = _states(states)
    with context.store(must_exist=True) as store, store.read() as view:
        _check_filters(view, flow, worker)
        rows: list[dict[str, Any]] = []
        for name in [flow] if flow else _flow_names(view, history):
            if len(rows) == limit:
                break
            records = view.jobs_of(name)
            keys = job_keys(records)
            found = (
                job
                for job in records
                if (history or job.current)
                and (not wanted or job.state in wanted)
                and (worker is None or job.config.worker_name == worker)
                and _matches(job.path, patterns)
            )
            room = limit - len(rows) if limit is not None else None
            rows += [job_data(job, keys) for job in islice(found, room)]
    _none_found(context, rows, patterns, "job")
    if context.options.output in ("table", "wide"):
        now = time.time()
        rows = [row | {"error": _problem(row, now)} for row in rows]
    show(context, rows, *_job_columns(context, rows), name="key")


@command.command(name="workers", help="List workers with how many jobs they have.")
@global_options
def workers(context: Context) -> None:
    """List the workers of the last applied revision."""
    with context.store(must_exist=True) as store, store.read() as view:
        config = view.config()
        known = config.workers if config is not None else {}
        rows = [worker_data(view, name, known[name]) for name in sorted(known)]
    if context.options.output in ("table", "wide"):
        rows = [readable_worker(row, time.time()) for row in rows]
    show(context, rows, *_worker_columns(rows), name="name")


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


def _trees(context: Context, view: View, flows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    drawn, everything = signs(), context.options.verbose > 0
    rows = (tree_rows(flow, view.jobs_of(flow["name"]), drawn, everything=everything) for flow in flows)
    return list(chain.from_iterable(rows))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _flow_names(view: View, history: bool) -> list[str]:
    """A flow that was removed is history once its last job has ended."""
    return [flow.name for flow in view.flows() if history or not is_gone(view, flow)]


def _job_columns(context: Context, rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A change that waits must not go unseen: its column appears as soon as there is one."""
    narrow, wide = JOB_COLUMNS
    if context.options.output == "wide" or not any(row["deferred"] for row in rows):
        return narrow, wide
    return (*narrow[:-1], "deferred", narrow[-1]), wide


def _worker_columns(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
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


def require_worker(view: View, name: str) -> None:
    """Say so if the last applied revision has no worker of this name.

    Raises
    ------
    InputError
        It has none; the hint names the nearest.
    """
    config = view.config()
    if config is not None and name not in config.workers:
        raise InputError(f"there is no worker '{name}'", hint=did_you_mean(name, config.workers))


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


def find_jobs(view: View, key: str) -> list[Any]:
    """Return the jobs that a user means by ``flow/job``, ``flow/job@2``, a uuid or ``uuid_index``.

    Raises
    ------
    InputError
        There is none; the hint names the nearest key.
    """
    flow, _, job = key.partition("/")
    if job:
        records = view.jobs_of(flow)
        found = [record for record in records if record.key == job]
        current = [record for record in found if record.current]
        if found:
            return current or found
        names = [f"{flow}/{record.key}" for record in records if record.current]
        flows_known = [f"{record.name}/{job}" for record in view.flows()]
        hint = did_you_mean(key, names or flows_known)
        raise InputError(f"there is no job '{key}'", hint=hint or "list them with `reconcile get jobs`")
    found = view.generations(key) or ([one] if (one := view.job(key)) is not None else [])
    if not found:
        raise InputError(
            f"there is no job '{key}'", hint="jobs are named flow/job: `reconcile get jobs -o name`"
        )
    return found
