"""``reconcile events`` and ``reconcile history``: what happened, oldest first."""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import click

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.formats import emit
from reconciler.cli.job_selectors import (
    JobFinder,
    check_filters,
    find_jobs,
    is_uuid,
    read_words,
    require_worker,
)
from reconciler.cli.live_names import complete_selectors
from reconciler.cli.options import LIMIT, global_options
from reconciler.cli.views.data import event_data
from reconciler.cli.views.history_text import heading, of_flow, revision_data, text_row
from reconciler.cli.views.listing import show
from reconciler.cli.views.provenance import level_text, person_text, place_text, value_text
from reconciler.cli.views.words import one_line, some, time_text
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.applied import AppliedRevision
from reconciler.model.records import Change, Event

_COLUMNS = (("time", "revision", "author", "actions", "outcome", "subject"), ("commit", "path"))

_FEW = 10
"""As many groups of events of one revision are shown without --verbose."""


@click.command()
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...", shell_complete=complete_selectors)
@click.option("--for", "about", metavar="job/FLOW/JOB|flow/FLOW|worker/NAME", help="Only events about this.")
@click.option("--limit", type=LIMIT, default=100, show_default=True, help="The newest N.")
@global_options
def events(context: Context, *, selectors: tuple[str, ...], about: str | None, limit: int) -> None:
    """Print what happened, oldest first.

    SELECTORs are those of `reconcile get jobs`. FLOW, label:, flowset: and 'item.COLUMN>VALUE' give the
    events of flows and of all their jobs; worker:NAME gives those of the worker itself.
    """
    if selectors and about is not None:
        raise InputError("SELECTOR cannot be combined with --for", hint="give only selectors")
    if about is not None and not about.startswith(("job/", "flow/", "worker/")):
        hint = f"write job/{about}, flow/{about} or worker/{about}"
        raise InputError(f"'{about}' does not name a job, flow or worker", hint=hint)
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        found = view.events(_subjects(view, selectors) if selectors else about, limit=limit)
        if about is not None and not found:
            kind, _, name = about.partition("/")
            if kind == "job":
                find_jobs(view, name)
            elif kind == "worker":
                require_worker(view, name)
            elif view.flow(name) is None:
                near = did_you_mean(name, [flow.name for flow in view.flows()])
                raise InputError(f"there is no flow '{name}'", hint=near)

    def text() -> None:
        for event in found:
            revision = f"  [{event.revision}]" if event.revision else ""
            click.echo(
                f"{time_text(event.time)}  {event.about:<32} {event.type:<10} "
                f"{one_line(event.message)}{revision}"
            )
            for change in event.changes:
                click.echo(f"    {_change_text(change)}")

    emit(context, lambda: [event_data(event) for event in found], text)


def _subjects(view: View, words: Sequence[str]) -> set[str]:
    """Return the subjects that selectors choose: ``flow/NAME``, ``job/FLOW/JOB``, ``worker/NAME``.

    Raises
    ------
    InputError
        A selector is wrong, or chooses nothing.
    """
    workers = [word.partition(":")[2] for word in words if word.startswith("worker:")]
    others = [word for word in words if not word.startswith("worker:")]
    found = set()
    for name in ",".join(workers).split(",") if workers else ():
        require_worker(view, name)
        found.add(f"worker/{name}")
    if not others:
        return found
    wanted = read_words(others)
    if wanted.states or wanted.failures or any("/" in name or is_uuid(name) for name in wanted.names):
        return found | {f"job/{job.path}" for job in JobFinder(view).find(wanted).jobs}
    flows = {flow.name: flow for flow in view.flows()}
    check_filters(wanted, view, flows.values())
    for pattern in wanted.names:
        if not fnmatch.filter(flows, pattern):
            hint = did_you_mean(pattern, flows) or "list them with `reconcile get flows`"
            raise InputError(f"no flow matches '{pattern}'", hint=hint)
    for flow in flows.values():
        if wanted.selects_flow(flow.name, flow.labels, flow.flowset, flow.item):
            found.add(f"flow/{flow.name}")
            found |= {f"job/{job.path}" for job in view.jobs_of(flow.name)}
    return found


def _change_text(change: Change) -> str:
    """Return ``priority: 5 -> 10   # rule urgent, rules/urgent.yaml:7, 1a2b3c4 2026-11-24 Ada <ada@x>``."""
    found = change.provenance
    where = (level_text(found), place_text(found)) if found is not None else ()
    person = {"commit": change.commit, "author": change.author, "time": change.time}
    why = ", ".join(filter(None, (*where, person_text(person))))
    text = f"{change.field}: {value_text(change.old)} -> {value_text(change.new)}"
    return f"{text}   # {why}" if why else text


@click.command(help="List the applied revisions, oldest first: author, actions, outcome.")
@click.argument("flow", required=False)
@click.option("--limit", type=LIMIT, metavar="N", help="Only the newest N.")
@global_options
def history(context: Context, *, flow: str | None, limit: int | None) -> None:
    """List applied revisions: all of them, or with FLOW those that changed it, and how."""
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        revisions = view.revisions()
        named = of_flow(revisions, flow) if flow is not None else [("", applied) for applied in revisions]
        if flow is not None and not named:
            known = {name for applied in revisions for name in applied.flows} | {f.name for f in view.flows()}
            if flow not in known:
                hint = did_you_mean(flow, known)
                raise InputError(f"no applied revision has a flow '{flow}'", hint=hint)
        named = named[-limit:] if limit is not None else named
        if flow is not None and context.options.output == "table":
            _show_flow(context, view, flow, named)
            return
    rows = [applied for _, applied in named]

    def text() -> None:
        show(context, [text_row(row, time_text(row.time)) for row in rows], *_COLUMNS, name="commit")

    emit(
        context,
        lambda: [revision_data(applied) for applied in rows],
        text,
        names=lambda: (applied.commit for applied in rows),
    )


def _show_flow(context: Context, view: View, flow: str, named: list[tuple[str, AppliedRevision]]) -> None:
    """Print below each revision the events of a flow, which had the given name at that revision."""
    if not named:
        context.say("nothing to show")
    everything = context.options.verbose > 0
    keys = dict.fromkeys(job.key for job in view.jobs_of(flow))
    by_revision: defaultdict[tuple[float, str | None], list[Event]] = defaultdict(list)
    for name in {name for name, _ in named}:
        for about in (f"flow/{name}", *(f"job/{name}/{key}" for key in keys)):
            for event in view.events(about):
                by_revision[event.time, event.revision].append(event)
    for _, applied in named:
        click.echo(heading(context, applied, time_text(applied.time)))
        groups = _grouped(by_revision[applied.time, str(applied)], everything=everything)
        shown = groups if everything else groups[:_FEW]
        for group in shown:
            for line in _group_lines(group, everything=everything):
                click.echo(f"      {line}")
        if len(shown) < len(groups):
            click.echo(f"      and {len(groups) - len(shown)} more (-v shows all)")


def _grouped(events: Iterable[Event], *, everything: bool) -> list[list[Event]]:
    """Group the jobs to which the same happened; with ``everything`` each event is its own group."""
    groups: dict[object, list[Event]] = {}
    for event in events:
        subject = event.about if everything else event.about.startswith("flow/")
        key = (subject, event.type, event.message, str([_change_text(change) for change in event.changes]))
        groups.setdefault(key, []).append(event)
    return list(groups.values())


def _group_lines(group: list[Event], *, everything: bool) -> Iterator[str]:
    first = group[0]
    kind, _, path = first.about.partition("/")
    if len(group) > 1:
        keys = [event.about.split("/", 2)[2] for event in group]
        path = f"{path.partition('/')[0]}/{{{some(keys, 3)}}}"
    yield f"{first.type:<10} {kind:<4} {path}  ({first.message})"
    if everything or first.type != "Submitted":
        for change in first.changes:
            yield f"    {_change_text(change)}"
