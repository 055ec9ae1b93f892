"""What an override rule does: the jobs it decides, and where it is beaten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from reconciler.cli.context import Context
from reconciler.cli.views.data import Data, rule_data
from reconciler.cli.views.listing import as_json, as_yaml, cell_text, show
from reconciler.cli.views.provenance import Provenance, level_text, person_text, place_text
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Kind
from reconciler.model.run_config import Rule
from reconciler.model.settings import Level, Origin, Setting
from reconciler.plan.explain import Share, share_of_rule
from reconciler.plan.unmatched import unmatched_rules

COLUMNS = ("key", "state", "decides", "beaten_by")


def explain_rule(context: Context, name: str) -> None:
    """Print the explanation of a rule.

    Raises
    ------
    InputError
        The revision that was applied last has no such rule.
    """
    with context.store(must_exist=True, read_only=True) as store:
        provenance = Provenance(context, store)
        rule = _find(provenance.desired, name)
        with store.read() as view:
            jobs = {flow: view.jobs_of(flow) for flow in provenance.desired.flows}
        data = _explanation(provenance, rule, list(_shares(provenance, rule, jobs)))
    if context.options.output in ("json", "yaml"):
        form = as_json if context.options.output == "json" else as_yaml
        click.echo(form(data).rstrip())
    elif context.options.output == "name":
        for row in data["jobs"]:
            click.echo(row["key"])
    else:
        _echo(context, data)


def _find(desired: DesiredState, name: str) -> Rule:
    for rule in desired.rules:
        if rule.name == name:
            return rule
    raise InputError(
        f"{desired.revision} has no rule '{name}'",
        hint=did_you_mean(name, [rule.name for rule in desired.rules]),
    )


def _shares(provenance: Provenance, rule: Rule, jobs: dict[str, Any]) -> Iterator[Share]:
    for flow, records in jobs.items():
        configs = provenance.configs(flow)
        if configs is None or not rule.matches_flow(flow, configs.flow.labels):
            continue
        by_id = {record.id: record for record in records}
        for record in records:
            share = share_of_rule(rule, configs, record, by_id) if record.current else None
            if share is not None:
                yield share


def _explanation(provenance: Provenance, rule: Rule, shares: list[Share]) -> Data:
    desired = provenance.desired
    warnings = [] if shares else unmatched_rules(desired, provenance.session.actual(desired))
    mine = [w for w in warnings if f"rule '{rule.name}' " in w.message]
    origin = Origin(Level.RULE, Kind.OVERRIDE_RULE, rule.name, "")
    return {
        "rule": rule_data(desired, rule),
        "revision": provenance.revision,
        "place": provenance.of_origin(origin),
        "jobs": [_row(provenance, share) for share in shares],
        "warning": f"{mine[0].message}{'; ' + mine[0].hint if mine[0].hint else ''}" if mine else None,
    }


def _row(provenance: Provenance, share: Share) -> Data:
    return {
        "key": share.record.path,
        "state": str(share.record.state),
        "decides": {field: setting.shown for field, setting in share.decides.items()},
        "beaten_by": {field: _winner(provenance, setting) for field, setting in share.beaten_by.items()},
    }


def _winner(provenance: Provenance, setting: Setting) -> Data:
    found = provenance.desired.provenance(setting.origin)
    return {"value": setting.shown} | found


def _echo(context: Context, data: Data) -> None:
    rule, place = data["rule"], data["place"]
    where = ", ".join(filter(None, (place_text(place), person_text(place))))
    click.echo(f"rule {rule['name']} (order {rule['order']})   # {where}")
    selector = {key: rule[key] for key in ("flows", "labels", "name_filter", "name_glob", "function_filter")}
    given = {key: value for key, value in selector.items() if value}
    click.echo(
        f"  selects: {cell_text(given) if given else 'every job'}{'' if rule['dynamic'] else ', not dynamic'}"
    )
    click.echo(f"  sets:    {cell_text(rule['sets'])}")
    if data["warning"]:
        click.echo(context.style(f"  warning: {data['warning']}", fg="yellow"))
        return
    decided = sum(1 for row in data["jobs"] if row["decides"])
    click.echo(f"decides something for {decided} of the {len(data['jobs'])} jobs that it matches")
    rows = [
        row | {"beaten_by": _beaten(row["beaten_by"]), "decides": row["decides"] or None}
        for row in data["jobs"]
    ]
    show(context, rows, COLUMNS, (), name="key")


def _beaten(winners: dict[str, Data]) -> str | None:
    texts = [f"{field}: {level_text(winner)}" for field, winner in winners.items()]
    return ", ".join(texts) or None
