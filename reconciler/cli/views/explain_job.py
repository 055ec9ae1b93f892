"""Why a job has its run config: field by field the value, who set it, since when, and what it beat."""

from __future__ import annotations

from typing import Any

import click

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.job_selectors import find_jobs
from reconciler.cli.views.data import Data
from reconciler.cli.views.listing import as_json, as_yaml, display_width
from reconciler.cli.views.provenance import Provenance, level_text, person_text, place_text, value_text
from reconciler.cli.views.words import escalation_text
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.records import JobRecord
from reconciler.model.run_config import FIELDS
from reconciler.model.settings import Setting
from reconciler.plan.explain import Decision


def explain_job(context: Context, key: str, field: str | None) -> None:
    """Print the explanation of a job; of one field if it is given.

    Raises
    ------
    InputError
        There is no such job, or no such field.
    """
    if field is not None and field not in FIELDS:
        raise InputError(f"a run config has no field '{field}'", hint=did_you_mean(field, FIELDS))
    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            record = find_jobs(view, key)[-1]
            members = view.jobs_of(record.flow)
        provenance = Provenance(context, store)
        with store.read() as view:
            data = _explanation(view, provenance, record, members, field)
    match context.options.output:
        case "json":
            click.echo(as_json(data))
        case "yaml":
            click.echo(as_yaml(data), nl=False)
        case _:
            _echo(context, data)


def _explanation(
    view: View, provenance: Provenance, record: JobRecord, members: list[JobRecord], field: str | None
) -> Data:
    decisions = provenance.decisions(record, members)
    escalated = provenance.of_escalation(record, decisions)
    found = [
        _decision(view, provenance, record, decision, escalated if decision.field == "resources" else None)
        for decision in decisions
        if field in (None, decision.field)
    ]
    return {
        "key": record.path,
        "state": str(record.state),
        "editable": record.editable,
        "revision": provenance.revision,
        "fields": found,
    }


def _decision(
    view: View, provenance: Provenance, record: JobRecord, decision: Decision, escalated: Data | None
) -> Data:
    field = decision.field
    given = record.config.shown(field) if field != "priority" else record.config.priority_value
    deferred = [change.new for change in record.wanted_changes if change.field == field]
    return {
        "field": field,
        "value": escalated["value"] if escalated is not None else given,
        "escalated": escalated,
        "set_by": _setting(provenance, decision.in_effect),
        "wanted": _setting(provenance, decision.wanted),
        "deferred": deferred[0] if deferred else None,
        "beats": [provenance.of_setting(setting) for setting in decision.beaten],
        "content": _content(provenance, decision.in_effect) if field == "exec_config" else None,
        "since": _since(view, record, field),
    }


def _setting(provenance: Provenance, setting: Setting | None) -> Data | None:
    return provenance.of_setting(setting) if setting is not None else None


def _content(provenance: Provenance, setting: Setting | None) -> Data | None:
    """A named ExecConfig stands elsewhere than its name."""
    named = setting is not None and isinstance(setting.value, str)
    return provenance.of_content(setting) if setting is not None and named else None


def _since(view: View, record: JobRecord, field: str) -> Data | None:
    """Return the event that gave the job the value, with who caused it."""
    for event in reversed(view.events(f"job/{record.path}")):
        for change in event.changes:
            if change.field == field and event.type in ("Patched", "Submitted"):
                return {
                    "time": event.time, "revision": event.revision, "old": change.old,
                    "commit": change.commit, "author": change.author,
                }  # fmt: skip
    return None


# text -------------------------------------------------------------------------------------------------


def _echo(context: Context, data: Data) -> None:
    click.echo(f"{data['key']}  {data['state']}  (by {data['revision']})")
    for found in data["fields"]:
        click.echo(f"{context.style(found['field'], bold=True)}: {value_text(found['value'])}")
        for line in _aligned(_rows(found)):
            click.echo(f"  {line}".rstrip())


def _rows(found: Data) -> list[tuple[str, ...]]:
    rows = []
    if found["wanted"] is not None:
        waits = "! deferred" if found["deferred"] is not None else "! waits"
        rows.append(_row(waits, found["wanted"]))
    elif found["deferred"] is not None:
        rows.append(("! deferred", value_text(found["deferred"]), "", "", "", ""))
    if found["escalated"] is not None:
        by = found["escalated"]["by"]
        rows.append(("escalated", escalation_text(found["escalated"]), *_row("", by)[2:]))
    if found["set_by"] is not None:
        rows.append(_row("set by", found["set_by"]))
    if found["content"] is not None:
        rows.append(_row("content", found["content"] | {"value": ""}))
    rows += [_row("beats", beaten) for beaten in found["beats"]]
    if found["since"] is not None:
        rows.append(_since_row(found["since"]))
    return rows


def _row(what: str, setting: Data) -> tuple[str, ...]:
    return (
        what, value_text(setting["value"]), level_text(setting), place_text(setting), person_text(setting),
        setting["summary"] or "",
    )  # fmt: skip


def _since_row(since: Data) -> tuple[str, ...]:
    from reconciler.cli.views.words import time_text

    change = f"was {value_text(since['old'])}" if since["old"] is not None else ""
    who = f"{since['commit'][:7]} {since['author']}" if since["commit"] else ""
    return ("since", change, time_text(since["time"]), since["revision"] or "", who, "")


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)] if rows else []
    return ["  ".join(_padded(cell, width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _padded(cell: Any, width: int) -> str:
    return f"{cell}{' ' * (width - display_width(cell))}"
