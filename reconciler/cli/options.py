"""The global options as click options, accepted before and after the command."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import click

from reconciler.cli.context import Context, Options
from reconciler.cli.formats import FORMATS, check_format
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.retries import seconds_of


class GlobalOption(click.Option):
    """An option of every command. Only the help of ``reconcile`` itself describes it."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the lines of the help; for a command a reference to ``reconcile options``, once."""
        if ctx.parent is None or self.name == "output":
            return super().get_help_record(ctx)
        if self.name == "repo":
            return "--repo, ...", "Options of every command: see `reconcile options`."
        return None


_option = functools.partial(click.option, cls=GlobalOption)

_GLOBAL = (
    _option(
        "--repo",
        metavar="PATH|URL",
        envvar="RECONCILER_REPO",
        help="Git repository of the campaign.  [default: $RECONCILER_REPO, else .]",
    ),
    _option("--branch", metavar="NAME", help="Branch, tag or commit.  [default: the checked-out branch]"),
    _option("--path", metavar="DIR", help="Folder of reconciler.yaml inside the repository."),
    _option("--state-dir", metavar="DIR", help="Directory of the state."),
    _option(
        "--policy",
        metavar="FILE",
        envvar="RECONCILER_POLICY",
        help="What repositories may do.  [default: $RECONCILER_POLICY, else "
        "~/.config/reconciler/policy.yaml]",
    ),
    _option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        help="Output format. csv: only get, results; parquet: only results; markdown: only plan, diff; "
        "mermaid, dot, png: only graph; npy, raw: only output.",
    ),
    _option("-q", "--quiet", is_flag=True, default=None, help="Print no progress on stderr."),
    _option("-v", "--verbose", count=True, default=None, help="Print more detail."),
    _option("--color", type=click.Choice(["auto", "always", "never"]), help="When to use colors."),
)
_PATHS = ("file", "out", "log_file", "base", "head")
"""Parameters of commands that name files or revisions, which may be any bytes."""

_NAMES = ("repo", "branch", "path", "state_dir", "policy", "output", "quiet", "verbose", "color")


class KindGroup(click.Group):
    """A group of kinds (``get flows``): takes them in the singular and in the plural."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a kind; InputError names all of them for an unknown one."""
        kind = args[0] if args else ""
        for name in (kind, f"{kind}s", kind.removesuffix("s")):
            if name in self.commands:
                return name, self.commands[name], args[1:]
        path = f"{ctx.command_path} {_displayable(kind)}"
        raise InputError(f"there is no `{path}`", hint=did_you_mean(kind, self.commands))


class Duration(click.ParamType[float]):
    """Seconds, or a number with a unit as in manifests: ``90``, ``1.5``, ``30s``, ``5m``, ``2h``."""

    name = "duration"

    def __init__(self, least: float = 0) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        try:
            seconds = value if isinstance(value, float) else float(value)
        except ValueError:
            try:
                seconds = seconds_of(value)
            except ValueError:
                self.fail(f"'{value}' is not a duration: give seconds, or a number with s, m, h, d or w")
        if not self.least <= seconds < math.inf:
            self.fail(f"{value} is not in the range from {self.least:g} seconds")
        return float(seconds)


LIMIT = click.IntRange(min=1, max=10**9)
"""A number of rows."""


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


@click.command(name="options", help="Print the options that every command has, before or after the command.")
@global_options
def options(context: Context) -> None:
    """Print the part of `reconcile --help` that commands leave out."""
    root = click.get_current_context().find_root()
    records = (
        param.get_help_record(root) for param in root.command.params if isinstance(param, GlobalOption)
    )
    formatter = root.make_formatter()
    formatter.write_dl([record for record in records if record is not None])
    click.echo(formatter.getvalue(), nl=False)


def _displayable(value: Any) -> Any:
    """Return an argument with bytes that are not UTF-8 escaped: no name in the state has such bytes."""
    if isinstance(value, tuple):
        return tuple(map(_displayable, value))
    return os.fsencode(value).decode(errors="backslashreplace") if isinstance(value, str) else value
