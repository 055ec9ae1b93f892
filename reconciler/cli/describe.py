"""``reconcile describe``: everything about one flow, job, worker or Maker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.formats import emit
from reconciler.cli.job_selectors import find_jobs, require_worker
from reconciler.cli.live_names import complete_flows, complete_jobs, complete_makers, complete_workers
from reconciler.cli.options import KindGroup, global_options
from reconciler.cli.views.conditions import condition_lines, say_attempt
from reconciler.cli.views.data import (
    event_data,
    flow_data,
    flows_data,
    job_data,
    job_keys,
    maker_facts,
    ordered_jobs,
    worker_facts,
)
from reconciler.cli.views.listing import cell_text, cut, terminal_width
from reconciler.cli.views.provenance import Provenance, level_text, person_text, place_text, value_text
from reconciler.cli.views.words import (
    bounded_lines,
    duration_text,
    escalation_text,
    last_line,
    many,
    one_line,
    readable_worker,
    retry_line,
    time_text,
)
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.files import space_text
from reconciler.jobs.flow_health import blocks
from reconciler.jobs.waiting import WhyWaiting
from reconciler.model.manifests import Kind
from reconciler.model.records import Event, JobRecord
from reconciler.model.run_config import FIELDS
from reconciler.model.states import JobState

_EVENTS = 12


@click.group(
    cls=KindGroup,
    name="describe",
    no_args_is_help=False,
    help="Show everything about one flow, job, worker or Maker.",
)
@global_options
def command(context: Context) -> None:
    """Accept the global options also between `describe` and the kind."""


@command.command(name="flow", help="Show one flow: sync, health, jobs, events.")
@click.argument("name", shell_complete=complete_flows)
@global_options
def flow(context: Context, name: str) -> None:
    """Show one flow."""
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        record, why = view.flow(name), WhyWaiting(view)
        if record is not None:
            facts = flow_data(view, record, view.config(), view.counted_attempt(), why)
        else:  # perhaps it was never submitted because something prevents it
            flows = {flow["name"]: flow for flow in flows_data(view)}
            if name not in flows:
                raise InputError(f"there is no flow '{name}'", hint=did_you_mean(name, flows))
            facts = flows[name]
        jobs = ordered_jobs(view, name)
        keys = job_keys(jobs)
        members = [job_data(job, keys, why) for job in jobs if job.current]
        events = view.events(f"flow/{name}", limit=_EVENTS)
        say_attempt(context, view.counted_attempt())

    def data() -> dict[str, Any]:
        return facts | {"members": members, "events": [event_data(event) for event in events]}

    def text() -> None:
        for field in ("name", "sync", "health", "reason", "fix", "revision", "labels"):
            if field != "fix" or facts[field]:
                click.echo(f"{field + ':':<10} {cell_text(facts[field] or None)}")
        if facts["removed"]:
            click.echo("removed:   it is no longer in the repository; its jobs are history")
        _echo_conditions(facts)
        history = sum(not job.current for job in jobs)
        if jobs:
            hidden = f"{many(history, 'superseded job')} not shown: `reconcile get jobs {name} --all`"
            click.echo(f"jobs: ({hidden})" if history else "jobs:")
        current = (job for job in jobs if job.current)
        for job, member in zip(current, members, strict=True):
            remark = _remark(job, member["waiting"])
            line = f"  {job.key:<24} {job.state:<13} {job.config.worker_name}{remark}"
            click.echo(cut(line, terminal_width() or len(line)))
        _echo_events(events)

    emit(context, data, text)


def _remark(job: JobRecord, waiting: str | None) -> str:
    """Return what is special about a job: a deferred patch, why it waits, a coming retry, an error."""
    waits = {change.field: change.new for change in job.deferred_changes}
    deferred = f"  ! deferred: {cell_text(waits)}" if waits else ""
    stuck = f"  stuck: {job.attempt.stuck}" if job.attempt.stuck else ""
    stuck += f"  waits: {waiting}" if waiting and not stuck else ""
    retry = f"  to be retried after {job.cause}:" if job.retry.at is not None else ""
    return deferred + stuck + retry + (f"  {last_line(job.error)}" if job.error else "")


@command.command(name="job", help="Show one job: state, run config with its provenance, error, events.")
@click.argument("key", shell_complete=complete_jobs)
@global_options
def job(context: Context, key: str) -> None:
    """Show one job, or every generation of it."""
    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            records = find_jobs(view, key)
        provenance = Provenance(context, store)
        with store.read() as view:
            found = [_job_facts(view, record, provenance) for record in records]

    def text() -> None:
        for number, facts in enumerate(found):
            click.echo("" if number == 0 else "\n", nl=False)
            _echo_job(facts)

    emit(context, lambda: found[0] if len(found) == 1 else found, text)


def _job_facts(view: View, record: JobRecord, origins: Provenance) -> dict[str, Any]:
    members = view.jobs_of(record.flow)
    keys = job_keys(members)
    for parent in record.parents:  # a parent may belong to another flow
        if parent not in keys and (found := view.generations(parent)):
            keys[parent] = found[-1].path
    facts = job_data(record, keys, WhyWaiting(view))
    decisions = origins.decisions(record, members)
    facts["provenance"] = {
        decision.field: origins.of_setting(decision.in_effect)
        | {"beats": [origins.of_setting(setting) for setting in decision.beaten]}
        | {"escalated": origins.of_escalation(record, decisions) if decision.field == "resources" else None}
        for decision in decisions
        if decision.in_effect is not None
    }
    facts["stored_data"] = record.stored_data
    facts["continues"] = record.retry.run_dirs if record.continues is not None else []
    waits = record.current and record.state is JobState.WAITING
    block = blocks(view)(record) if waits else None
    facts["blocked"] = str(block) if block is not None else None
    facts["fix"] = block.fix if block is not None else ""
    # Events name the key, which several generations and superseded jobs share; older ones name no job.
    events = [event for event in view.events(f"job/{record.path}") if event.job in (None, record.id)]
    facts["events"] = [event_data(event) for event in events[-_EVENTS:]]
    return facts


def _echo_job(facts: dict[str, Any]) -> None:
    for field in (
        *("key", "state", "function", "uuid", "index", "attempt", "run_worker", "queue_id", "run_dir"),
        *("generated_by", "stuck", "waiting", "cause"),
    ):
        if facts[field] is not None:
            mark = " (superseded)" if field == "state" and not facts["current"] else ""
            click.echo(f"{field.replace('_', ' ') + ':':<13} {facts[field]}{mark}")
    for field in ("submitted", "started", "ended"):
        if facts[field] is not None:
            ran = f" (ran {duration_text(facts['seconds'])})" if field == "ended" and facts["seconds"] else ""
            click.echo(f"{field + ':':<13} {time_text(facts[field])}{ran}")
    if facts["cpu"] is not None:
        used = f"{duration_text(facts['cpu'])} of CPU time, {space_text(facts['memory'])} of memory"
        click.echo(f"{'used:':<13} {used}")
    if facts["expected_start"] is not None:
        start = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["expected_start"]))
        click.echo(f"{'starts:':<13} about {start}, says its scheduler")
    retries = retry_line(facts, time.time())
    if retries is not None:
        click.echo(f"{'retry:':<13} {retries}")
    for run_dir in facts["continues"]:
        click.echo(f"{'continues:':<13} {run_dir}")
    if facts["parents"]:
        click.echo(f"{'needs:':<13} {', '.join(facts['parents'])}")
    if facts["blocked"] is not None:
        click.echo(f"{'blocked:':<13} {facts['blocked']}")
        click.echo(f"{'fix:':<13} {facts['fix']}")
    if facts["stored_data"] is not None:
        click.echo(f"{'stored data:':<13} {cell_text(facts['stored_data'])}")
    click.echo("run config:")
    for line in _config_lines(facts["provenance"]):
        click.echo(line)
    if facts["deferred"]:
        click.echo(f"  ! deferred: {cell_text(facts['deferred'])} (until the job is editable)")
    if facts["error"]:
        click.echo("error:")
        for line in bounded_lines(facts["error"]):
            click.echo(f"  {line}")
    _echo_events([msgspec.convert(event, Event) for event in facts["events"]])


def _config_lines(provenance: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield for each field of the run config its value and origin, and the values that it overrides."""

    def origin(found: dict[str, Any]) -> str:
        return ", ".join(filter(None, (level_text(found), place_text(found), person_text(found))))

    for field in FIELDS:
        found = provenance.get(field)
        if found is None:
            yield f"  {field + ':':<12} {'0   # default' if field == 'priority' else '(none)'}"
            continue
        escalated = found["escalated"]
        if escalated is not None:
            why = f"escalated: {escalation_text(escalated)}, {origin(escalated['by'])}"
            yield f"  {field + ':':<12} {value_text(escalated['value'])}   # {why}"
            yield f"  {'':<12}   from {value_text(found['value'])}   # {origin(found)}"
        else:
            yield f"  {field + ':':<12} {value_text(found['value'])}   # {origin(found)}"
        for beaten in found["beats"]:
            yield f"  {'':<12}   beats {value_text(beaten['value'])}   # {origin(beaten)}"


@command.command(name="worker", help="Show one worker: status, jobs by state, events.")
@click.argument("name", shell_complete=complete_workers)
@global_options
def worker(context: Context, name: str) -> None:
    """Show one worker of the last applied revision."""
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        require_worker(view, name)
        config = view.config()
        known = config.workers if config is not None else {}
        facts = worker_facts(view, name, known[name], _EVENTS)

    def text() -> None:
        readable = readable_worker(facts, time.time())
        for field in (
            *("name", "type", "host", "scheduler_type", "work_dir", "max_jobs", "python", "jobflow"),
            *("status", "last_seen", "reason", "fix", "failures", "next_try", "jobs"),
        ):
            if readable[field] not in (None, "", {}, 0):
                click.echo(f"{field.replace('_', ' ') + ':':<16} {cell_text(readable[field])}")
        _echo_allocations(facts["allocations"])
        _echo_conditions(facts)
        _echo_events([msgspec.convert(event, Event) for event in facts["events"]])

    emit(context, lambda: facts, text)


@command.command(
    name="maker", help="Show one Maker: class, arguments, what uses it, rules that select by it."
)
@click.argument("name", shell_complete=complete_makers)
@global_options
def maker(context: Context, name: str) -> None:
    """Show one Maker of the revision."""
    source = context.source()
    with context.store() as store:
        from reconciler.comparison import Comparison

        state = Comparison(source, store).load().state
    manifest = state.manifests.get(f"{Kind.MAKER}/{name}")
    if manifest is None:
        names = [key.partition("/")[2] for key in state.manifests if key.startswith(f"{Kind.MAKER}/")]
        if f"{Kind.MAKER}/{name}" in state.unusable:
            raise InputError(
                f"the document of the Maker '{name}' is invalid", hint="see `reconcile validate`"
            )
        raise InputError(f"there is no Maker '{name}'", hint=did_you_mean(name, names))
    facts = maker_facts(state, manifest)

    def text() -> None:
        click.echo(f"{'name:':<10} {name}")
        click.echo(f"{'place:':<10} {facts['file']}:{facts['line']}")
        if not facts["valid"]:
            click.echo(f"{'valid:':<10} no: its last good version is shown; see `reconcile validate`")
        click.echo(f"{'class:':<10} {facts['class']}")
        click.echo("kwargs:" if facts["kwargs"] else f"{'kwargs:':<10} (none)")
        for key, value in facts["kwargs"].items():
            click.echo(f"  {key + ':':<14} {cell_text(value)}")
        for field in ("uses", "used_by"):
            if facts[field]:
                click.echo(f"{field.replace('_', ' ') + ':':<10} {', '.join(facts[field])}")
        click.echo("flows:" if facts["flows"] else f"{'flows:':<10} (none)")
        for flow in facts["flows"]:
            entries = facts["entries"][flow]
            click.echo(f"  {flow}{': ' + ', '.join(entries) if entries else ''}")
        for rule in facts["rules"]:
            click.echo(f"{'rule:':<10} {rule['name']} sets {cell_text(rule['sets'])}")

    emit(context, lambda: facts, text, names=lambda: [name])


def _echo_allocations(allocations: list[dict[str, Any]]) -> None:
    there = [one for one in allocations if one["state"] != "ended"]
    if there:
        click.echo("allocations:")
    for one in there:
        parts = [one["allocation"], one["queue_id"], one["state"]]
        if one["node"]:
            parts.append(
                f"on {one['node']}, {one['busy']} of {one['slots']} slots busy, {one['done']} jobs done"
            )
        if one["remaining"] is not None:
            parts.append(f"{duration_text(one['remaining'])} left")
        click.echo(f"  {'  '.join(part for part in [*parts, one['reason']] if part)}")


def _echo_conditions(facts: dict[str, Any]) -> None:
    click.echo("conditions:")
    for line in condition_lines(facts):
        click.echo(cut(line, terminal_width() or len(line)))


def _echo_events(events: list[Event]) -> None:
    if events:
        click.echo("events:")
    for event in events:
        click.echo(f"  {time_text(event.time)}  {event.type:<10} {one_line(event.message)}")
