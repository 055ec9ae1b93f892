"""``reconcile events``: what happened, oldest first."""

from __future__ import annotations

import click

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.job_selectors import find_jobs, require_worker
from reconciler.cli.options import global_options
from reconciler.cli.views.data import event_data
from reconciler.cli.views.listing import echo_data
from reconciler.cli.views.provenance import level_text, person_text, place_text, value_text
from reconciler.cli.views.words import time_text
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.records import Change, Event


@click.command(name="events", help="Print what happened, oldest first.")
@click.option("--for", "about", metavar="job/FLOW/JOB|flow/FLOW|worker/NAME", help="Only events about this.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The newest N.")
@global_options
def command(context: Context, *, about: str | None, limit: int) -> None:
    """Print events."""
    if about is not None and not about.startswith(("job/", "flow/", "worker/")):
        hint = f"write job/{about}, flow/{about} or worker/{about}"
        raise InputError(f"'{about}' is no job, flow or worker", hint=hint)
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        events = view.events(about, limit=limit)
        if about is not None and not events:
            _require(view, about)
    if context.options.output in ("json", "yaml"):
        data = [event_data(event) for event in events]
        echo_data(context, data)
        return
    for event in events:
        click.echo(_line(event))
        for change in event.changes:
            click.echo(f"    {change_text(change)}")


def _require(view: View, about: str) -> None:
    """Say so if nothing has this name; InputError with the nearest one."""
    kind, _, name = about.partition("/")
    if kind == "job":
        find_jobs(view, name)
    elif kind == "worker":
        require_worker(view, name)
    elif view.flow(name) is None:
        raise InputError(
            f"there is no flow '{name}'", hint=did_you_mean(name, [f.name for f in view.flows()])
        )


def _line(event: Event) -> str:
    revision = f"  [{event.revision}]" if event.revision else ""
    return f"{time_text(event.time)}  {event.about:<32} {event.type:<10} {event.message}{revision}"


def change_text(change: Change) -> str:
    """Return ``priority: 5 -> 10   # rule urgent, rules/urgent.yaml:7, 1a2b3c4 2026-11-24 Ada <ada@x>``."""
    found = change.provenance
    where = (level_text(found), place_text(found)) if found is not None else ()
    person = {"commit": change.commit, "author": change.author, "time": change.time}
    why = ", ".join(filter(None, (*where, person_text(person))))
    text = f"{change.field}: {value_text(change.old)} -> {value_text(change.new)}"
    return f"{text}   # {why}" if why else text
