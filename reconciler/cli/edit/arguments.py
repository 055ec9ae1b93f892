"""What `set` takes from its command line: selectors, values, and what to do with the edit."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import click

from reconciler.desired.yaml.builder import OutOfRangeError, resolve_plain
from reconciler.errors import InputError

_INTEGER = re.compile(r"[-+]?\d+")
_NEGATIVE = re.compile(r"-\d+")
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

SELECTING = (
    click.argument("selector"),
    click.argument("value"),
    click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only flows with this label."),
    click.option("--function", metavar="PATH", help="Only jobs of this function, e.g. eos.jobs.relax."),
)
PUBLISHING = (
    click.option("-m", "--message", metavar="TEXT", help="Message of the commit.  [default: what is set]"),
    click.option("--push", is_flag=True, help="Push the branch to its upstream after the commit."),
    click.option("--dry-run", is_flag=True, help="Print the diff of the file and change nothing."),
)


def with_parameters(parameters: Sequence[_Decorator]) -> _Decorator:
    """Return a decorator that gives a command these arguments and options, in this order."""
    return lambda command: functools.reduce(lambda made, give: give(made), reversed(parameters), command)


class NumberCommand(click.Command):
    """A command whose last argument may be a negative number, which is not taken for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put a negative number behind ``--``, unless it is the value of an option."""
        options = [param for param in self.params if isinstance(param, click.Option)]
        before_value = {
            name for option in options if not (option.is_flag or option.count) for name in option.opts
        }
        for number, argument in enumerate(args):
            if argument == "--":
                break
            if _NEGATIVE.fullmatch(argument) and not (number and args[number - 1] in before_value):
                args = [*args[:number], *args[number + 1 :], "--", argument]
                break
        return super().parse_args(ctx, args)


def read_label(text: str) -> tuple[str, str]:
    """Return key and value of ``KEY=VALUE``. Raises InputError if it has another form."""
    key, found, value = text.partition("=")
    if not key or not found:
        raise InputError(f"'{text}' is no label", hint="write --label KEY=VALUE")
    return key, value


def read_priority(text: str) -> int:
    """Return an integer. Raises InputError if the text is none."""
    if not _INTEGER.fullmatch(text):
        raise InputError(f"'{text}' is no priority", hint="it is an integer, such as 10 or -3")
    try:
        value = resolve_plain(text)
    except OutOfRangeError as error:
        raise InputError(f"the priority {text} {error}") from error
    return cast(int, value)


def read_exec_config(text: str) -> str | dict[str, Any]:
    """Return the name of an ExecConfig, or one written in place as a YAML mapping.

    Raises
    ------
    InputError
        The text begins as a mapping and is none.
    """
    return read_mapping(text) if text.lstrip().startswith("{") else text


def read_mapping(text: str) -> dict[str, Any]:
    """Return a mapping given as YAML. Raises InputError if the text is none."""
    from reconciler.desired.yaml.reader import read_documents

    result = read_documents(text.encode(errors="surrogatepass"))
    problems = [result.failure] if result.failure is not None else []
    problems += [problem for document in result.documents for problem in document.problems]
    contents = [document.content for document in result.documents]
    if not problems and len(contents) == 1 and isinstance(contents[0], dict):
        return contents[0]
    reason = f": {problems[0].message}" if problems else ""
    raise InputError(
        f"'{text}' is no YAML mapping{reason}",
        hint="write it in quotes, such as '{nodes: 2, time: \"2:00:00\"}'",
    )
