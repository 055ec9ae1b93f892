"""``reconcile history``: the revisions that were applied, and what each did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import click

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.events import change_text
from reconciler.cli.options import global_options
from reconciler.cli.views.history_text import heading, of_flow, revision_data, text_row
from reconciler.cli.views.listing import echo_data, show
from reconciler.cli.views.words import some, time_text
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.records import AppliedRevision, Event

_COLUMNS = (("time", "revision", "author", "actions", "outcome", "subject"), ("commit", "path"))
_FEW = 10


@click.command(name="history", help="List the applied revisions, oldest first: who, what, how it ended.")
@click.argument("flow", required=False)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@global_options
def command(context: Context, *, flow: str | None, limit: int | None) -> None:
    """List applied revisions: all of them, or with FLOW those that changed it, and how."""
    chosen = context.options.output
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        revisions = view.revisions()
        named = of_flow(revisions, flow) if flow is not None else [("", applied) for applied in revisions]
        if flow is not None and not named:
            _require(view, flow, revisions)
        named = named[-limit:] if limit is not None else named
        if flow is not None and chosen == "table":
            _show_flow(context, view, flow, named)
            return
    rows = [applied for _, applied in named]
    match chosen:
        case "json" | "yaml":
            echo_data(context, [revision_data(applied) for applied in rows])
        case "name":
            for applied in rows:
                click.echo(applied.commit)
        case _:
            texts = [text_row(applied, time_text(applied.time)) for applied in rows]
            show(context, texts, *_COLUMNS, name="commit")


def _require(view: View, flow: str, revisions: Sequence[AppliedRevision]) -> None:
    """Say so if there never was a flow of this name."""
    known = {name for applied in revisions for name in applied.flows} | {f.name for f in view.flows()}
    if flow not in known:
        raise InputError(f"no applied revision has a flow '{flow}'", hint=did_you_mean(flow, known))


def _show_flow(context: Context, view: View, flow: str, named: list[tuple[str, AppliedRevision]]) -> None:
    if not named:
        context.say("nothing to show")
    everything = context.options.verbose > 0
    keys = dict.fromkeys(job.key for job in view.jobs_of(flow))
    events = _events(view, {name for name, _ in named}, keys)
    for _, applied in named:
        click.echo(heading(context, applied, time_text(applied.time)))
        groups = _alike(events[applied.time, str(applied)], everything=everything)
        shown = groups if everything else groups[:_FEW]
        for group in shown:
            for line in _lines(group, everything=everything):
                click.echo(f"      {line}")
        if len(shown) < len(groups):
            click.echo(f"      and {len(groups) - len(shown)} more (-v shows all)")


Events = defaultdict[tuple[float, str | None], list[Event]]


def _events(view: View, names: Iterable[str], keys: Iterable[str]) -> Events:
    """Return what was written down about a flow and its jobs, by time and revision."""
    found: Events = defaultdict(list)
    for name in names:
        for about in (f"flow/{name}", *(f"job/{name}/{key}" for key in keys)):
            for event in view.events(about):
                found[event.time, event.revision].append(event)
    return found


def _alike(events: Iterable[Event], *, everything: bool) -> list[list[Event]]:
    """Join what happened to several jobs in the same way, unless each is asked for."""
    groups: dict[object, list[Event]] = {}
    for event in events:
        one = event.about if everything else event.about.startswith("flow/")
        key = (one, event.type, event.message, str([change_text(change) for change in event.changes]))
        groups.setdefault(key, []).append(event)
    return list(groups.values())


def _lines(alike: list[Event], *, everything: bool) -> Iterator[str]:
    first = alike[0]
    kind, _, path = first.about.partition("/")
    if len(alike) > 1:
        keys = [event.about.split("/", 2)[2] for event in alike]
        path = f"{path.partition('/')[0]}/{{{some(keys, 3)}}}"
    yield f"{first.type:<10} {kind:<4} {path}  ({first.message})"
    if everything or first.type != "Submitted":
        for change in first.changes:
            yield f"    {change_text(change)}"
