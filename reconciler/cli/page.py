"""``reconcile page``: the documents that ``-o json`` prints as one HTML file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.options import LIMIT, global_options
from reconciler.cli.views.data import (
    failure_groups,
    flows_data,
    flowsets_data,
    job_data,
    job_keys,
    ordered_jobs,
    worker_data,
)
from reconciler.cli.views.graph_text import graph_data, state_group
from reconciler.cli.views.history_text import text_row
from reconciler.cli.views.words import duration_text, last_line, many, time_text
from reconciler.errors import InputError
from reconciler.files import write_atomically
from reconciler.jobs.waiting import WhyWaiting
from reconciler.model.applied import AttemptResult
from reconciler.model.graph import flow_graph
from reconciler.model.states import BROKEN, Health, JobState, Sync
from reconciler.plan.advice import uses

_JOBS, _ROWS = 200, 100
"""Jobs of one flow, and rows of the other tables, that a report has."""

_GROUPS = {
    Health.HEALTHY: "done",
    Health.DEGRADED: "failed",
    Health.PROGRESSING: "active",
    Health.SUSPENDED: "paused",
}
_STATE_GROUPS = {str(state): state_group(state) for state in JobState}

Facts = dict[str, Any]


@click.command(name="page", help="Write a report of the campaign as one HTML file.")
@click.argument("file", default="report.html", type=click.Path(dir_okay=False))
@click.option("--limit", type=LIMIT, default=200, show_default=True, help="At most N flows in detail.")
@global_options
def command(context: Context, *, file: str, limit: int) -> None:
    """Write a report to mail, publish or attach. FILE is report.html unless you name another one.

    It loads nothing from elsewhere and opens offline.
    """
    from reconciler.page.report import render

    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        facts = report_facts(view, limit, time.time())
    text = render(facts)
    try:
        write_atomically(Path(file), text.encode("utf-8", "backslashreplace"), sync=False)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}", hint="give another FILE") from error
    context.say(f"{file}: {many(len(facts['flows']), 'flow')}, {len(text) >> 10} kB")


def report_facts(view: View, limit: int, now: float) -> Facts:
    """Return everything that a report shows. Flows that need attention come first; ``limit`` bounds them."""
    config, last = view.config(), view.last_revision()
    flows = sorted(flows_data(view), key=_urgency)
    workers = (
        [worker_data(view, name, spec) for name, spec in sorted(config.workers.items())] if config else []
    )
    attention = [*_attention(view, workers, flows)]
    why = WhyWaiting(view)
    shown = [_flow_facts(view, flow, why) for flow in flows[:limit]]
    flowsets = _flowsets(view, shown)
    failures = failure_groups(job for state in sorted(BROKEN) for job in view.in_state(state))
    use = [
        {
            "function": one.function,
            "worker": one.worker,
            "jobs": one.jobs,
            "longest": duration_text(one.longest) if one.longest is not None else "",
            "core_hours": f"{one.core_hours:.2f}" if one.core_hours is not None else "",
            "advice": one.reason,
        }
        for one in uses(view.jobs(), config.workers if config else {})[:_ROWS]
    ]
    sections = [("overview", "Overview")]
    sections += [("failures", "Failures")] if failures else []
    sections += [(f"flowset-{number}", one["name"]) for number, one in enumerate(flowsets, 1)]
    sections += [("flows", "Flows"), ("workers", "Workers")]
    sections += [("use", "Core hours")] if use else []
    sections += [("history", "History")]
    return {
        "project": config.project_name if config else "reconciler",
        "revision": config.revision if config else "",
        "subject": last.subject if last is not None else "",
        "written": time_text(now),
        "sections": sections,
        "totals": _totals(flows),
        "attention": attention[:_ROWS],
        "attention_left_out": max(0, len(attention) - _ROWS),
        "failures": failures[:_ROWS],
        "flowsets": flowsets,
        "flows": shown,
        "flows_left_out": max(0, len(flows) - limit),
        "workers": [
            worker | {"next_try": time_text(worker["next_try"]) if worker["next_try"] else ""}
            for worker in workers
        ],
        "use": use,
        "history": [text_row(one, time_text(one.time)) for one in view.revisions()[: -_ROWS - 1 : -1]],
    }


def _urgency(flow: Facts) -> tuple[int, str]:
    order = [Health.DEGRADED, Health.PROGRESSING, Health.SUSPENDED, Health.HEALTHY]
    rank = order.index(flow["health"]) if flow["health"] in order else len(order)
    return (rank if flow["sync"] == Sync.SYNCED else min(rank, 1), flow["name"])


def _totals(flows: Sequence[Facts]) -> list[tuple[str, list[tuple[str, int, str]]]]:
    """Return (title, [(word, number, CSS class)]) of each tile of the overview."""
    health = Counter(flow["health"] for flow in flows)
    sync = Counter(flow["sync"] for flow in flows)
    jobs: Counter[str] = Counter()
    for flow in flows:
        jobs.update(flow["jobs"])
    return [
        (
            "Flows by health",
            [(word, number, _GROUPS.get(Health(word), "pending")) for word, number in health.items()],
        ),
        (
            "Flows by sync",
            [(word, n, "done" if word == Sync.SYNCED else "paused") for word, n in sync.items()],
        ),
        ("Jobs by state", [(str(s), jobs[s], state_group(s)) for s in JobState if jobs[s]]),
    ]


def _attention(view: View, workers: Sequence[Facts], flows: Sequence[Facts]) -> Iterator[dict[str, str]]:
    attempt = view.counted_attempt()
    if attempt is not None and attempt.result is not AttemptResult.APPLIED:
        why = f"revision {attempt.revision} is not applied: {attempt.reason}"
        yield {"what": "source", "why": why, "fix": "see `reconcile validate` and `reconcile plan`"}
    last = view.last_revision()
    if last is not None and last.errors:
        why = f"{last} has {many(last.errors, 'error')}, so it is applied only in part"
        yield {"what": "source", "why": why, "fix": "see `reconcile validate`"}
    for worker in workers:
        if worker["reachable"] is False:
            yield {"what": f"worker {worker['name']}", "why": worker["reason"], "fix": worker["fix"] or ""}
    for one in flowsets_data(view):
        if one["frozen"]:
            yield {"what": f"FlowSet {one['name']}", "why": one["frozen"], "fix": "see `reconcile expand`"}
    for flow in flows:
        if flow["health"] == Health.DEGRADED:
            yield {"what": f"flow {flow['name']}", "why": flow["reason"], "fix": flow["fix"]}


def _flow_facts(view: View, flow: Facts, why: WhyWaiting) -> Facts:
    """Return a flow with its jobs and its drawing."""
    from reconciler.page.drawing import drawing

    jobs = ordered_jobs(view, flow["name"])
    keys = job_keys(jobs)
    current = [job for job in jobs if job.current]
    rows = [_job_facts(job_data(job, keys, why)) for job in current[:_JOBS]]
    graph = graph_data(flow_graph(flow["name"], jobs), flow["revision"] or "")
    return flow | {
        "group": _GROUPS.get(Health(flow["health"]), "pending"),
        "members": rows,
        "members_left_out": max(0, len(current) - _JOBS),
        "drawing": drawing(graph, _STATE_GROUPS) if len(current) > 1 else None,
    }


def _job_facts(job: Facts) -> Facts:
    error = last_line(job["error"]) if job["error"] else ""
    return {
        "key": job["key"],
        "name": job["key"].partition("/")[2],
        "state": job["state"],
        "group": _STATE_GROUPS[job["state"]],
        "worker": job["worker"],
        "submitted": time_text(job["submitted"]) if job["submitted"] else "",
        "ran": duration_text(job["seconds"]) if job["seconds"] is not None else "",
        "attempt": job["attempt"],
        "note": job["stuck"] or job["waiting"] or error,
    }


def _flowsets(view: View, shown: Sequence[Mapping[str, Any]]) -> list[Facts]:
    """Return FlowSets with a row for each of their flows that the report shows."""
    found = flowsets_data(view)
    for one in found:
        one["rows"] = [
            {"number": number, "name": flow["name"], "jobs": flow["members"]}
            for number, flow in enumerate(shown, 1)
            if flow["flowset"] == one["name"]
        ]
    return found
