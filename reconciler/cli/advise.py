"""``reconcile advise``: what jobs asked for beside what they used, and the rules that mend it."""

from __future__ import annotations

import click

from reconciler.cli.context import Context
from reconciler.cli.formats import as_yaml, emit
from reconciler.cli.options import global_options
from reconciler.cli.views.listing import Row, table_lines
from reconciler.cli.views.words import duration_text, many
from reconciler.files import space_text
from reconciler.plan.advice import Use, uses
from reconciler.plan.set_rule import DEFAULT_ORDER, Selector, new_rule

_COLUMNS = ("function", "worker", "jobs", "time", "cores", "memory", "core_hours", "advice")


@click.command(name="advise", help="Compare what jobs asked for with what they used, and propose rules.")
@click.option("--write", is_flag=True, help="Commit the proposed rules, as `reconcile set` does.")
@global_options
def command(context: Context, *, write: bool) -> None:
    """Print a row for each function, and rules that mend requests. Only --write changes anything."""
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        config = view.config()
        found = uses(view.jobs(), config.workers if config is not None else {})
    if write:
        _commit(context, found)
        return
    emit(context, lambda: [_data(use) for use in found], lambda: _show(context, found))


def _data(use: Use) -> Row:
    asked = use.resources
    return {
        "function": use.function,
        "worker": use.worker,
        "jobs": use.jobs,
        "resources": asked.values if asked is not None and not asked.generic else None,
        "qresources": asked.values if asked is not None and asked.generic else None,
        "walltime": use.request.seconds,
        "longest": use.longest,
        "cores": use.request.cores,
        "busy": use.busy,
        "memory": use.memory,
        "core_hours": use.core_hours,
        "reached_walltime": use.walltime,
        "out_of_memory": use.oom,
        "advice": use.reason,
        "rule": _rule(use),
    }


def _rule(use: Use) -> Row | None:
    """Return the rule that sets the proposed resources, as `--write` adds it where no rule is in its way."""
    if use.proposal is None:
        return None
    return new_rule(Selector(function_filter=use.function), use.proposal, DEFAULT_ORDER, ())


def _show(context: Context, found: list[Use]) -> None:
    if not found:
        context.say("no job has ended yet")
    for line in table_lines(context, [_readable(use) for use in found], _COLUMNS):
        click.echo(line)
    proposals = [(use, rule) for use in found if (rule := _rule(use)) is not None]
    for use, rule in proposals:
        click.echo(f"---\n# {use.function} on {use.worker}: {use.reason} ({many(use.jobs, 'job')})")
        click.echo(as_yaml(rule), nl=False)
    if proposals:
        context.say("commit these rules with: reconcile advise --write")


def _readable(use: Use) -> Row:
    limit = duration_text(use.request.seconds) if use.request.seconds is not None else "?"
    longest = duration_text(use.longest) if use.longest is not None else "?"
    busy = f"{use.busy:.0%} of " if use.busy is not None else ""
    return {
        "function": use.function,
        "worker": use.worker,
        "jobs": use.jobs,
        "time": f"{longest} of {limit}",
        "cores": f"{busy}{use.request.cores or '?'}",
        "memory": space_text(use.memory) if use.memory is not None else None,
        "core_hours": f"{use.core_hours:.2f}" if use.core_hours is not None else None,
        "advice": use.reason or None,
    }


def _commit(context: Context, found: list[Use]) -> None:
    from reconciler.cli.edit.rule import set_value
    from reconciler.cli.edit.session import Publishing

    proposals = [(use, use.proposal) for use in found if use.proposal is not None]
    if not proposals:
        context.say("there is nothing to propose")
    for use, proposal in proposals:
        message = f"set {proposal.key} of {use.function}: {use.reason}"
        selector = Selector(function_filter=use.function)
        set_value(context, selector, proposal, Publishing(message, push=False, dry_run=False))
