"""The global options as click options, before and after the verb."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from reconciler.cli.context import FORMATS, Context, Options
from reconciler.errors import InputError

_GLOBAL = (
    click.option("--repo", metavar="PATH|URL", help="Git repository of the campaign.  [default: .]"),
    click.option("--branch", metavar="NAME", help="Branch or commit to read.  [default: what HEAD is]"),
    click.option("--path", metavar="DIR", help="Folder of reconciler.yaml inside the repository."),
    click.option("--state-dir", metavar="DIR", help="Where the state is kept."),
    click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        help="Format of the answer; markdown: plan, diff; mermaid, dot, png: graph.",
    ),
    click.option("-q", "--quiet", is_flag=True, default=None, help="No narration on stderr."),
    click.option("-v", "--verbose", count=True, default=None, help="More narration on stderr."),
    click.option("--color", type=click.Choice(["auto", "always", "never"]), help="Colours."),
)
_NAMES = ("repo", "branch", "path", "state_dir", "output", "quiet", "verbose", "color")
_DRAWINGS = ("mermaid", "dot", "png")


def global_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the global options and pass it a :class:`Context` as first argument.

    An option given after the verb wins over the same one before it.
    """

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> Any:
        click_context = click.get_current_context()
        given = {name: arguments.pop(name) for name in _NAMES}
        merged = {**(click_context.obj or {}), **{k: v for k, v in given.items() if v is not None}}
        click_context.obj = merged
        _check_format(merged.get("output"), click_context)
        click_context.color = {"always": True, "never": False}.get(merged.get("color", ""))
        return command(Context(Options(**merged)), **arguments)

    for option in reversed(_GLOBAL):
        wrapper = option(wrapper)
    return wrapper


def _check_format(chosen: str | None, click_context: click.Context) -> None:
    """A plan and a graph have forms of their own; the group stands before any verb, and has --dry-run."""
    name = click_context.command.name
    if isinstance(click_context.command, click.Group):
        if click_context.invoked_subcommand is not None or chosen not in _DRAWINGS:
            return
        name = "--once"
    if chosen == "markdown" and name not in ("plan", "diff"):
        hint = f"give `reconcile {name}` another -o, or `reconcile plan`"
        raise InputError("-o markdown is for plans", hint=hint)
    if chosen in _DRAWINGS and name != "graph":
        hint = f"give `reconcile {name}` another -o, or `reconcile graph FLOW`"
        raise InputError(f"-o {chosen} is for graphs", hint=hint)
