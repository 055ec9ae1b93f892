"""The global options as click options, accepted before and after the command."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import click

from reconciler.cli.context import Context, Options
from reconciler.cli.formats import FORMATS, check_format

_GLOBAL = (
    click.option("--repo", metavar="PATH|URL", help="Git repository of the campaign.  [default: .]"),
    click.option(
        "--branch", metavar="NAME", help="Branch, tag or commit.  [default: the checked-out branch]"
    ),
    click.option("--path", metavar="DIR", help="Folder of reconciler.yaml inside the repository."),
    click.option("--state-dir", metavar="DIR", help="Directory of the state."),
    click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        help="Output format. markdown: only plan, diff; mermaid, dot, png: only graph.",
    ),
    click.option("-q", "--quiet", is_flag=True, default=None, help="Print no progress on stderr."),
    click.option("-v", "--verbose", count=True, default=None, help="Print more detail."),
    click.option("--color", type=click.Choice(["auto", "always", "never"]), help="When to use colors."),
)
_PATHS = ("file", "out", "log_file", "base", "head")
"""Parameters of commands that name files or revisions, which may be any bytes."""

_NAMES = ("repo", "branch", "path", "state_dir", "output", "quiet", "verbose", "color")


def global_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the global options, and pass it a :class:`Context` as first argument.

    An option after the command overrides the same option before it.
    """

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> Any:
        click_context = click.get_current_context()
        given = {name: arguments.pop(name) for name in _NAMES}
        merged = {**(click_context.obj or {}), **{k: v for k, v in given.items() if v is not None}}
        click_context.obj = merged
        if not isinstance(click_context.command, click.Group):
            check_format(merged.get("output"), click_context.command.name or "")
        arguments = {
            name: value if name in _PATHS else _displayable(value) for name, value in arguments.items()
        }
        click_context.color = {"always": True, "never": False}.get(merged.get("color", ""))
        return command(Context(Options(**merged)), **arguments)

    for option in reversed(_GLOBAL):
        wrapper = option(wrapper)
    return wrapper


def _displayable(value: Any) -> Any:
    """Return an argument with bytes that are not UTF-8 escaped: no name in the state has such bytes."""
    if isinstance(value, tuple):
        return tuple(map(_displayable, value))
    return os.fsencode(value).decode(errors="backslashreplace") if isinstance(value, str) else value
