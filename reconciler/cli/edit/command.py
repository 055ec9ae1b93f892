"""``reconcile set``: commit a value for many jobs, or the suspension of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.context import Context
from reconciler.cli.edit.arguments import (
    PUBLISHING,
    SELECTING,
    NumberCommand,
    read_exec_config,
    read_label,
    read_mapping,
    read_priority,
    with_parameters,
)
from reconciler.cli.options import global_options

if TYPE_CHECKING:  # the shell asks for completions at every key: what does the work is imported when used
    from reconciler.cli.edit.session import Publishing


@click.group(name="set", no_args_is_help=False, help="Commit a value for jobs, or suspend a flow.")
@global_options
def command(context: Context) -> None:
    """Take the global options also between `set` and what is set."""


_FIELDS: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
    ("worker", "worker", "Set the worker: VALUE is the name of a Worker.", str),
    (
        "exec-config",
        "exec_config",
        "Set the exec_config: VALUE is a name, or a YAML mapping.",
        read_exec_config,
    ),
    (
        "resources",
        "resources",
        "Set the scheduler's keywords: VALUE is a YAML mapping; {} for none.",
        read_mapping,
    ),
    ("qresources", "qresources", "Set generic resources: VALUE is a YAML mapping.", read_mapping),
    (
        "retries",
        "retries",
        "Set the automatic retries: VALUE is a YAML mapping; '{limit: 0}' for none.",
        read_mapping,
    ),
    ("priority", "priority", "Set the priority: VALUE is an integer; higher goes first.", read_priority),
)


def _add(word: str, key: str, help_text: str, read: Callable[[str], Any]) -> None:
    """Add the verb that sets one key of ``spec.set`` of a rule."""

    @with_parameters((*SELECTING, *PUBLISHING))
    @global_options
    def set_field(context: Context, **given: Any) -> None:
        from reconciler.cli.edit.rule import set_value
        from reconciler.plan.set_rule import WantedValue, parse_selector

        labels = dict(read_label(text) for text in given["labels"])
        selector = parse_selector(given["selector"], labels, given["function"])
        wanted = WantedValue(key, read(given["value"]))
        message = f"set {word} {given['value']} for {selector}"
        set_value(context, selector, wanted, _publishing(given, message))

    about = (
        f"{help_text}\n\nSELECTOR is FLOWGLOB or FLOWGLOB/JOBGLOB, with globs on names as in 'eos-*/relax*'."
    )
    command.command(name=word, cls=NumberCommand, help=about, short_help=help_text)(set_field)


for _field in _FIELDS:
    _add(*_field)


@command.command(name="suspend", help="Suspend a flow (on), or end that (off), by its spec.suspend.")
@click.argument("flow")
@click.argument("switch", type=click.Choice(["on", "off"]))
@click.option("--reason", metavar="TEXT", help="Why: shown with the flow while it is suspended.")
@with_parameters(PUBLISHING)
@global_options
def suspend(context: Context, *, flow: str, switch: str, reason: str | None, **given: Any) -> None:
    """Set ``spec.suspend`` and ``spec.suspend_reason`` of a flow."""
    from reconciler.cli.edit.suspend import set_suspend

    message = f"set suspend {switch} for {flow}" + (f": {reason}" if reason else "")
    set_suspend(context, flow, switch == "on", reason, _publishing(given, message))


def _publishing(given: dict[str, Any], message: str) -> Publishing:
    from reconciler.cli.edit.session import Publishing
    from reconciler.errors import InputError

    if given["message"] is not None and not given["message"].strip():
        raise InputError(
            "the message of the commit is empty", hint="leave -m out for a message that says what is set"
        )
    return Publishing(given["message"] or message, given["push"], given["dry_run"])
