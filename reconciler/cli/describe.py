"""``reconcile describe``: everything about one flow or one job."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from reconciler.actual.store import Store, View
from reconciler.cli.context import Context
from reconciler.cli.get import find_jobs
from reconciler.cli.options import global_options
from reconciler.cli.views.data import event_data, flow_data, flows_data, job_data, job_keys, resource_data
from reconciler.cli.views.listing import as_json, as_yaml, cell_text, cut, terminal_width
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.records import Event, JobRecord
from reconciler.model.run_config import FIELDS
from reconciler.model.settings import Resources, Setting

_EVENTS = 12


@click.group(name="describe", no_args_is_help=False, help="Show everything about one flow or job.")
@global_options
def command(context: Context) -> None:
    """Take the global options also between `describe` and the kind."""


@command.command(name="flow", help="Show one flow: sync, health, jobs, events.")
@click.argument("name")
@global_options
def flow(context: Context, name: str) -> None:
    """Show one flow."""
    with context.store(must_exist=True) as store, store.read() as view:
        facts = _flow_facts(view, name)
        jobs = view.jobs_of(name)
        events = view.events(f"flow/{name}", limit=_EVENTS)
    if context.options.output in ("json", "yaml"):
        keys = job_keys(jobs)
        facts |= {"members": [job_data(job, keys) for job in jobs if job.current]}
        _structured(context, facts | {"events": [event_data(event) for event in events]})
        return
    for field in ("name", "sync", "health", "reason", "revision", "labels"):
        click.echo(f"{field + ':':<10} {cell_text(facts[field] or None)}")
    if jobs:
        click.echo("jobs:")
    for job in jobs:
        if job.current:
            error = f"  {job.error.strip().splitlines()[-1]}" if job.error else ""
            line = f"  {job.key:<24} {job.state:<13} {job.config.worker_name}{error}"
            click.echo(cut(line, terminal_width() or len(line)))
    _echo_events(events)


def _flow_facts(view: View, name: str) -> dict[str, Any]:
    """Return a flow; also one that was never submitted, since something is in its way."""
    record = view.flow(name)
    if record is not None:
        return flow_data(record, view.jobs_of(name), view.config())
    flows = {flow["name"]: flow for flow in flows_data(view)}
    if name not in flows:
        raise InputError(f"there is no flow '{name}'", hint=did_you_mean(name, flows))
    return flows[name]


@command.command(name="job", help="Show one job: state, run config with its provenance, error, events.")
@click.argument("key")
@global_options
def job(context: Context, key: str) -> None:
    """Show one job, or every generation of it."""
    with context.store(must_exist=True) as store:
        with store.read() as view:
            records = find_jobs(view, key)
        origins = _Origins(context, store)
        with store.read() as view:
            found = [_facts(view, record, origins) for record in records]
    if context.options.output in ("json", "yaml"):
        _structured(context, found[0] if len(found) == 1 else found)
        return
    for number, facts in enumerate(found):
        click.echo("" if number == 0 else "\n", nl=False)
        _echo_job(facts)


class _Origins:
    """Who set a value: looked up in the revision that was applied last, and in its history."""

    def __init__(self, context: Context, store: Store) -> None:
        from reconciler.loop import Session

        with store.read() as view:
            config = view.config()
        assert config is not None, "there is a job, so something was applied"
        self.source = context.source(fetch=False)
        self.commit = config.commit
        self.desired = Session(self.source, store, self.source.revision(config.commit)).load().state

    def of(self, setting: Setting) -> dict[str, Any]:
        """Return value, level, kind, name, file, line, commit, author and time of a setting."""
        value = setting.value
        shown = resource_data(value) if isinstance(value, Resources) else value
        found = {"value": shown} | self.desired.provenance(setting.origin)
        return found | self._person(found)

    def _person(self, found: dict[str, Any]) -> dict[str, Any]:
        """The last good version of a broken document stands in an older commit: its lines are not these."""
        stale = f"{found['kind']}/{found['name']}" in self.desired.stale
        who = (
            None
            if stale or not found["file"]
            else self.source.blame(self.commit, found["file"], found["line"])
        )
        if who is None:
            return {"commit": None, "author": None, "time": None}
        return {"commit": who.commit, "author": who.author, "time": who.time}


def _facts(view: View, record: JobRecord, origins: _Origins) -> dict[str, Any]:
    keys = job_keys(view.jobs_of(record.flow))
    for parent in record.parents:
        if parent not in keys and (found := view.generations(parent)):
            keys[parent] = found[-1].path
    facts = job_data(record, keys)
    facts["provenance"] = {
        field: origins.of(setting)
        for field in FIELDS
        if (setting := record.config.setting(field)) is not None
    }
    facts["events"] = [event_data(e) for e in view.events(f"job/{record.path}", limit=_EVENTS)]
    return facts


def _echo_job(facts: dict[str, Any]) -> None:
    for field in ("key", "state", "function", "uuid", "index", "attempt", "run_dir", "generated_by"):
        if facts[field] is not None:
            click.echo(f"{field + ':':<13} {facts[field]}")
    if facts["parents"]:
        click.echo(f"{'needs:':<13} {', '.join(facts['parents'])}")
    click.echo("run config:")
    for line in _config_lines(facts["provenance"]):
        click.echo(line)
    if facts["deferred"]:
        click.echo(f"  ! deferred: {cell_text(facts['deferred'])} (until the job is editable)")
    if facts["error"]:
        click.echo("error:")
        for line in facts["error"].rstrip().splitlines():
            click.echo(f"  {line}")
    _echo_events([msgspec.convert(event, Event) for event in facts["events"]])


def _config_lines(provenance: dict[str, dict[str, Any]]) -> Iterator[str]:
    for field in FIELDS:
        origin = provenance.get(field)
        if origin is None:
            yield f"  {field + ':':<12} (none)"
            continue
        place = f"{origin['file']}:{origin['line']}" if origin["file"] else "no longer in the revision"
        who = f", {origin['commit'][:7]} by {origin['author']}" if origin["commit"] else ""
        value = _shown(origin["value"])
        yield f"  {field + ':':<12} {value}   # {origin['level']} {origin['name']}, {place}{who}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _echo_events(events: list[Event]) -> None:
    if events:
        click.echo("events:")
    for event in events:
        click.echo(f"  {time_text(event.time)}  {event.type:<10} {event.message}")


def time_text(seconds: float) -> str:
    """Return a time as the user's clock shows it."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _structured(context: Context, value: Any) -> None:
    click.echo(as_json(value) if context.options.output == "json" else as_yaml(value).rstrip())
