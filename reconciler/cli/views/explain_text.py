"""The answers of ``reconcile explain``: why a job has its run config, what a rule sets, what a field means.

For jobs and rules one function returns the data (the contract of ``-o json``) and one prints it. The
documentation of a kind comes from its JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.views.data import Data, rule_data
from reconciler.cli.views.listing import cell_text, display_width, show, terminal_width
from reconciler.cli.views.provenance import Provenance, level_text, person_text, place_text, value_text
from reconciler.cli.views.words import escalation_text, time_text
from reconciler.desired.schemas import load_schema, resolve
from reconciler.diagnostics import did_you_mean, nearest
from reconciler.errors import InputError
from reconciler.model.manifests import Kind
from reconciler.model.records import JobRecord
from reconciler.model.run_config import Rule
from reconciler.model.settings import Level, Origin, Setting
from reconciler.plan.explain import Decision, share_of_rule
from reconciler.plan.unmatched import unmatched_rules

# explain job -----------------------------------------------------------------------------------------------


def job_explanation(
    view: View, provenance: Provenance, record: JobRecord, members: list[JobRecord], field: str | None
) -> Data:
    """Return, for every field of a job's run config or only for ``field``, its value and who set it.

    ``members`` are all jobs of the flow: a generated job inherits from one of them.
    """
    decisions = provenance.decisions(record, members)
    escalated = provenance.of_escalation(record, decisions)
    fields = [
        _field(view, provenance, record, decision, escalated if decision.field == "resources" else None)
        for decision in decisions
        if field in (None, decision.field)
    ]
    return {
        "key": record.path,
        "state": str(record.state),
        "editable": record.editable,
        "revision": provenance.revision,
        "fields": fields,
    }


def _field(
    view: View, provenance: Provenance, record: JobRecord, decision: Decision, escalated: Data | None
) -> Data:
    def setting_data(setting: Setting | None) -> Data | None:
        return provenance.of_setting(setting) if setting is not None else None

    field, setting = decision.field, decision.in_effect
    value = record.config.priority_value if field == "priority" else record.config.shown(field)
    deferred = [change.new for change in record.deferred_changes if change.field == field]
    # A setting that names an ExecConfig says nothing about the commands: they have a place of their own.
    names_exec_config = field == "exec_config" and setting is not None and isinstance(setting.value, str)
    return {
        "field": field,
        "value": escalated["value"] if escalated is not None else value,
        "escalated": escalated,
        "set_by": setting_data(setting),
        "wanted": setting_data(decision.wanted),
        "deferred": deferred[0] if deferred else None,
        "beats": [provenance.of_setting(beaten) for beaten in decision.beaten],
        "content": provenance.of_content(setting) if setting is not None and names_exec_config else None,
        "since": _since(view, record, field),
    }


def _since(view: View, record: JobRecord, field: str) -> Data | None:
    """Return the latest event that changed the field of the job, with its commit and author."""
    for event in reversed(view.events(f"job/{record.path}")):
        for change in event.changes:
            if change.field == field and event.type in ("Patched", "Submitted"):
                return {
                    "time": event.time, "revision": event.revision, "old": change.old,
                    "commit": change.commit, "author": change.author,
                }  # fmt: skip
    return None


def echo_job_explanation(context: Context, data: Data) -> None:
    """Print an explanation of a job: each field with its value, and aligned rows that say who set it."""
    click.echo(f"{data['key']}  {data['state']}  (by {data['revision']})")
    for field in data["fields"]:
        click.echo(f"{context.style(field['field'], bold=True)}: {value_text(field['value'])}")
        rows = _rows(field)
        widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)] if rows else []
        for row in rows:
            cells = (
                cell + " " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True)
            )
            click.echo(f"  {'  '.join(cells)}".rstrip())


def _rows(field: Data) -> list[tuple[str, ...]]:
    """Return the rows below a field, each of six cells: label, value, level, place, author, subject."""

    def row(label: str, setting: Data, value: str | None = None) -> tuple[str, ...]:
        shown = value_text(setting["value"]) if value is None else value
        return (
            label, shown, level_text(setting), place_text(setting), person_text(setting),
            setting["summary"] or "",
        )  # fmt: skip

    rows = []
    if field["wanted"] is not None:
        rows.append(row("! deferred" if field["deferred"] is not None else "! waits", field["wanted"]))
    elif field["deferred"] is not None:
        rows.append(("! deferred", value_text(field["deferred"]), "", "", "", ""))
    if field["escalated"] is not None:
        rows.append(row("escalated", field["escalated"]["by"], escalation_text(field["escalated"])))
    if field["set_by"] is not None:
        rows.append(row("set by", field["set_by"]))
    if field["content"] is not None:
        rows.append(row("content", field["content"], ""))
    rows += [row("beats", beaten) for beaten in field["beats"]]
    if field["since"] is not None:
        since = field["since"]
        old = f"was {value_text(since['old'])}" if since["old"] is not None else ""
        author = f"{since['commit'][:7]} {since['author']}" if since["commit"] else ""
        rows.append(("since", old, time_text(since["time"]), since["revision"] or "", author, ""))
    return rows


# explain rule ----------------------------------------------------------------------------------------------


def rule_explanation(
    provenance: Provenance, rule: Rule, jobs_by_flow: Mapping[str, Sequence[JobRecord]]
) -> Data:
    """Return a rule with the jobs that it matches: the fields that it decides, and where it is beaten.

    A rule that matches no job has a ``warning`` that says what would match.
    """

    def beaten_by(setting: Setting) -> Data:
        return {"value": setting.shown} | provenance.desired.provenance(setting.origin)

    desired = provenance.desired
    shares = []
    for flow, records in jobs_by_flow.items():
        configs = provenance.configs(flow)
        if configs is None or not rule.matches_flow(flow, configs.flow.labels):
            continue
        by_id = {record.id: record for record in records}
        found = (share_of_rule(rule, configs, record, by_id) for record in records if record.current)
        shares += [share for share in found if share is not None]
    warnings = [] if shares else unmatched_rules(desired, provenance.session.actual(desired))
    warning = next((warning for warning in warnings if f"rule '{rule.name}' " in warning.message), None)
    return {
        "rule": rule_data(desired, rule),
        "revision": provenance.revision,
        "place": provenance.of_origin(Origin(Level.RULE, Kind.OVERRIDE_RULE, rule.name, "")),
        "jobs": [
            {
                "key": share.record.path,
                "state": str(share.record.state),
                "decides": {field: setting.shown for field, setting in share.decides.items()},
                "beaten_by": {field: beaten_by(setting) for field, setting in share.beaten_by.items()},
            }
            for share in shares
        ],
        "warning": "; ".join(filter(None, (warning.message, warning.hint))) if warning else None,
    }


def echo_rule_explanation(context: Context, data: Data) -> None:
    """Print an explanation of a rule: its selector and values, then a table of the jobs that it matches."""
    rule, place = data["rule"], data["place"]
    where = ", ".join(filter(None, (place_text(place), person_text(place))))
    click.echo(f"rule {rule['name']} (order {rule['order']})   # {where}")
    parts = ("flows", "labels", "name_filter", "name_glob", "function_filter", "makers")
    selector = {key: rule[key] for key in parts}
    given = {key: value for key, value in selector.items() if value}
    not_dynamic = "" if rule["dynamic"] else ", not generated ones"
    click.echo(f"  selects: {cell_text(given) if given else 'every job'}{not_dynamic}")
    click.echo(f"  sets:    {cell_text(rule['sets'])}")
    if data["warning"]:
        click.echo(context.style(f"  warning: {data['warning']}", fg="yellow"))
        return
    decided = sum(1 for job in data["jobs"] if job["decides"])
    click.echo(f"sets at least one field of {decided} of the {len(data['jobs'])} jobs that it matches")
    rows = []
    for job in data["jobs"]:
        winners = [f"{field}: {level_text(winner)}" for field, winner in job["beaten_by"].items()]
        rows.append(job | {"decides": job["decides"] or None, "beaten_by": ", ".join(winners) or None})
    show(context, rows, ("key", "state", "decides", "beaten_by"), (), name="key")


# explain KIND.field ----------------------------------------------------------------------------------------


def echo_kind(path: str) -> None:
    """Print title, description, default and the fields below of ``Kind`` or ``Kind.field.field``.

    Raises
    ------
    InputError
        There is no such kind or field; the hint names the nearest one.
    """
    kind_name, *fields = path.split(".")
    kind = nearest(kind_name, [str(kind) for kind in Kind])
    if kind is None or kind.lower() != kind_name.lower():
        raise InputError(f"there is no kind '{kind_name}'", hint=did_you_mean(kind_name, list(Kind)))
    schema = load_schema(Kind(kind))
    part = schema
    for field in fields:
        known = schema_fields(schema, part)
        if field not in known:
            raise InputError(f"{path}: there is no field '{field}'", hint=did_you_mean(field, known))
        part = known[field]
    part = resolve(schema, part)
    click.echo(f"{'.'.join([kind, *fields])}  <{schema_type(part)}>")
    click.echo(_wrapped(part.get("description") or part.get("title", ""), "  "))
    if "default" in part:
        click.echo(f"  default: {part['default']}")
    for example in part.get("examples", [])[:2]:
        click.echo(f"  example: {example}")
    below = schema_fields(schema, part)
    if below:
        click.echo("fields:")
    for field, inner in below.items():
        required = " (required)" if field in part.get("required", []) else ""
        click.echo(f"  {field} <{schema_type(inner)}>{required}")
        click.echo(_wrapped(inner.get("description", ""), "      "))


def schema_fields(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the fields below a part of a schema; a list has the fields of its entries."""
    part = resolve(schema, part)
    if "items" in part:
        part = resolve(schema, part["items"])
    fields = dict(part.get("properties", {}))
    for other in (*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("allOf", ())):
        if isinstance(other, dict) and "properties" in resolve(schema, other):
            fields = resolve(schema, other)["properties"] | fields
    return {name: resolve(schema, inner) for name, inner in fields.items() if isinstance(inner, dict)}


def _wrapped(text: str, indent: str) -> str:
    width = terminal_width() or 100
    return click.wrap_text(text, width, initial_indent=indent, subsequent_indent=indent)


def schema_type(part: dict[str, Any]) -> str:
    """Return the type of a part of a schema on one line: ``string|integer``, ``on|off``, ``any``."""
    if "enum" in part:
        return "|".join(str(value) for value in part["enum"])
    if "const" in part:
        return str(part["const"])
    type_ = part.get("type", "any")
    return "|".join(type_) if isinstance(type_, list) else str(type_)
