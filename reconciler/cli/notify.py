"""``reconcile notify``: try a notify rule of the Project."""

from __future__ import annotations

import click

from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.planning import checked
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.notifications import Notice, message_of


@click.command(name="notify", help="Send a test message by a notify rule of the Project.")
@click.argument("rule")
@global_options
def command(context: Context, rule: str) -> None:
    """Send a message to the target of a committed rule; nothing needs to be applied for this."""
    from reconciler.notify.targets import deliver

    state, _ = checked(context.source())
    rules = {known.name: known for known in state.project.notify}
    if rule not in rules:
        raise InputError(
            f"{state.revision} has no notify rule '{rule}'",
            hint=did_you_mean(rule, rules)
            or f"known: {', '.join(rules) or 'none'}; see spec.notify of the Project",
        )
    test = Notice(
        object="source",
        reason="Test",
        message=f"this is a test of the notify rule '{rule}'",
        revision=str(state.revision),
    )
    deliver(rules[rule], message_of(state.project_name, rule, [test]))
    click.echo(f"sent a test message by notify rule '{rule}'")
