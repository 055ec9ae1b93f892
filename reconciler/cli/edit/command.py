"""``reconcile set``: commit a value for many jobs, or the suspension of a flow."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from reconciler.cli.context import Context
from reconciler.cli.live_names import complete_rule_selectors
from reconciler.cli.options import global_options
from reconciler.desired.yaml.builder import OutOfRangeError, resolve_plain
from reconciler.errors import InputError

if TYPE_CHECKING:  # imported when used: shell completion runs this module at each press of the tab key
    from reconciler.cli.edit.session import Publishing

_INTEGER = re.compile(r"[-+]?\d+")
_NEGATIVE = re.compile(r"-\d+")


class NumberCommand(click.Command):
    """A command whose last argument may be a negative number, which is not taken for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move a negative number behind ``--``, unless it is the value of an option."""
        options = [param for param in self.params if isinstance(param, click.Option)]
        with_value = {
            name for option in options if not (option.is_flag or option.count) for name in option.opts
        }
        for number, argument in enumerate(args):
            if argument == "--":
                break
            if _NEGATIVE.fullmatch(argument) and not (number and args[number - 1] in with_value):
                args = [*args[:number], *args[number + 1 :], "--", argument]
                break
        return super().parse_args(ctx, args)


def _publishing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to do with an edit."""
    options = (
        click.option("-m", "--message", metavar="TEXT", help="Commit message.  [default: what is set]"),
        click.option("--push", is_flag=True, help="Push the branch to its upstream after the commit."),
        click.option("--dry-run", is_flag=True, help="Print the diff of the file and change nothing."),
    )
    return functools.reduce(lambda made, add: add(made), reversed(options), command)


@click.group(name="set", no_args_is_help=False, help="Commit a value for jobs, or suspend a flow.")
@global_options
def command(context: Context) -> None:
    """Accept the global options also between `set` and what is set."""


def _read_priority(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise InputError(f"'{text}' is not a priority", hint="use an integer, such as 10 or -3")
    try:
        return cast(int, resolve_plain(text))
    except OutOfRangeError as error:
        raise InputError(f"the priority {text} {error}") from error


def _read_exec_config(text: str) -> str | dict[str, Any]:
    """Return the name of an ExecConfig, or an inline one from a YAML mapping."""
    return _read_mapping(text) if text.lstrip().startswith("{") else text


def _read_mapping(text: str) -> dict[str, Any]:
    """Parse a YAML mapping. Raises InputError if the text is not one."""
    from reconciler.desired.yaml.reader import read_documents

    result = read_documents(text.encode(errors="surrogatepass"))
    problems = [result.failure] if result.failure is not None else []
    problems += [problem for document in result.documents for problem in document.problems]
    contents = [document.content for document in result.documents]
    if not problems and len(contents) == 1 and isinstance(contents[0], dict):
        return contents[0]
    reason = f": {problems[0].message}" if problems else ""
    raise InputError(
        f"'{text}' is not a YAML mapping{reason}",
        hint="write it in quotes, such as '{nodes: 2, time: \"2:00:00\"}'",
    )


_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "worker": ("Set the worker: VALUE is the name of a Worker.", str),
    "exec-config": ("Set the exec_config: VALUE is a name, or a YAML mapping.", _read_exec_config),
    "resources": ("Set the scheduler's keywords: VALUE is a YAML mapping; {} for none.", _read_mapping),
    "qresources": ("Set generic resources: VALUE is a YAML mapping.", _read_mapping),
    "retries": (
        "Set the automatic retries: VALUE is a YAML mapping; '{limit: 0}' for none.",
        _read_mapping,
    ),
    "priority": ("Set the priority: VALUE is an integer; higher goes first.", _read_priority),
}
"""The subcommands that set one key of ``spec.set`` of a rule: help, and how their VALUE is read."""


def _name_and_labels(words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the one name of selectors, ``*`` if there is none, and the labels.

    Raises
    ------
    InputError
        A selector is wrong, or none that a rule has.
    """
    from reconciler.cli.job_selectors import read_words

    found = read_words(words)
    if found.states or found.workers or found.failures or found.flowsets or found.items:
        raise InputError(
            "a rule selects jobs by names and labels only, since it also counts for future jobs",
            hint="write FLOWGLOB/JOBGLOB, label:KEY=VALUE or --function PATH",
        )
    if len(found.names) > 1:
        raise InputError(
            f"give one name, not {len(found.names)}", hint="a glob selects several, as in 'eos-*/relax*'"
        )
    several = [key for key, values in found.labels.items() if len(values) > 1]
    if several:
        raise InputError(f"give one value of the label '{several[0]}'", hint="run the command for each value")
    return (found.names or ["*"])[0], {key: next(iter(values)) for key, values in found.labels.items()}


def _add(name: str, help_text: str, read: Callable[[str], Any]) -> None:
    """Add the subcommand that sets one key."""

    @click.argument(
        "selectors", nargs=-1, required=True, metavar="SELECTOR...", shell_complete=complete_rule_selectors
    )
    @click.argument("value")
    @click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only flows with this label.")
    @click.option("--function", metavar="PATH", help="Only jobs of this function, e.g. eos.jobs.relax.")
    @_publishing_options
    @global_options
    def set_field(
        context: Context,
        selectors: tuple[str, ...],
        value: str,
        labels: tuple[str, ...],
        function: str,
        **given: Any,
    ) -> None:
        from reconciler.cli.edit.rule import set_value
        from reconciler.plan.set_rule import WantedValue, parse_selector

        for text in labels:
            key, found, _ = text.partition("=")
            if not key or not found:
                raise InputError(f"'{text}' is not a label", hint="write --label KEY=VALUE")
        name_glob, pairs = _name_and_labels([*selectors, *(f"flow:{text}" for text in labels)])
        parsed = parse_selector(name_glob, pairs, function)
        wanted = WantedValue(name.replace("-", "_"), read(value))
        set_value(context, parsed, wanted, _publishing(f"set {name} {value} for {parsed}", **given))

    about = (
        f"{help_text}\n\nSELECTORs are FLOWGLOB or FLOWGLOB/JOBGLOB, with globs on names as in "
        "'eos-*/relax*', and label:KEY=VALUE for the flows that have all of these labels."
    )
    command.command(name=name, cls=NumberCommand, help=about, short_help=help_text)(set_field)


for _name, (_help, _read) in _FIELDS.items():
    _add(_name, _help, _read)


@command.command(name="suspend", help="Suspend a flow (on), or resume it (off), by its spec.suspend.")
@click.argument("flow")
@click.argument("switch", type=click.Choice(["on", "off"]))
@click.option("--reason", metavar="TEXT", help="Why; shown with the flow while it is suspended.")
@_publishing_options
@global_options
def suspend(context: Context, *, flow: str, switch: str, reason: str | None, **given: Any) -> None:
    """Set ``spec.suspend`` and ``spec.suspend_reason`` of a flow."""
    from reconciler.cli.edit.suspend import set_suspend

    message = f"set suspend {switch} for {flow}" + (f": {reason}" if reason else "")
    set_suspend(context, flow, switch == "on", reason, _publishing(message, **given))


def _publishing(default: str, *, message: str | None, push: bool, dry_run: bool) -> Publishing:
    from reconciler.cli.edit.session import Publishing

    if message is not None and not message.strip():
        raise InputError("the commit message is empty", hint="omit -m for a message that says what is set")
    return Publishing(message or default, push, dry_run)
