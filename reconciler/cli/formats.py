"""The formats of ``-o``: which command has which, and how an answer is printed in the chosen one."""

from __future__ import annotations

import base64
import codecs
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click
import msgspec

from reconciler.cli.context import Context
from reconciler.errors import InputError

FORMATS = (
    *("table", "wide", "json", "yaml", "name", "csv", "parquet", "markdown", "mermaid", "dot", "png"),
    *("npy", "raw"),
)

_LISTINGS = ("flows", "jobs", "failures", "workers", "batches", "flowsets", "rules", "makers")

_COMMANDS_WITH = {
    "csv": (*_LISTINGS, "results"),
    "parquet": ("results",),
    "markdown": ("plan", "diff", "--once"),
    "mermaid": ("graph",),
    "dot": ("graph",),
    "png": ("graph",),
    "npy": ("output",),
    "raw": ("output",),
}
"""The formats that only some commands have."""


def check_format(chosen: str | None, command: str) -> None:
    """Refuse a format that a command does not have.

    Raises
    ------
    InputError
        The format belongs to other commands; the hint names one of them.
    """
    commands = _COMMANDS_WITH.get(chosen or "")
    if commands is None or command in commands:
        return
    subject, instead = {
        "markdown": ("plans", "plan"),
        "csv": ("listings", "get jobs"),
        "parquet": ("results", "results"),
        "npy": ("outputs of jobs", "output JOB"),
        "raw": ("outputs of jobs", "output JOB"),
    }.get(chosen or "", ("graphs", "graph FLOW"))
    hint = f"give `reconcile {command}` another -o, or use `reconcile {instead}`"
    raise InputError(f"-o {chosen} is for {subject}", hint=hint)


def emit(
    context: Context,
    data: Callable[[], Any],
    text: Callable[[], None],
    *,
    names: Callable[[], Iterable[str]] | None = None,
    **others: Callable[[], None],
) -> None:
    """Print an answer in the format that ``-o`` selects.

    Parameters
    ----------
    data
        Returns the plain data of ``-o json`` and ``-o yaml``.
    text
        Prints the answer for people; also used for each format that the command does not define.
    names
        Returns the lines of ``-o name``.
    others
        What prints another format, by the name of the format.
    """
    match context.options.output:
        case "json":
            click.echo(as_json(data()))
        case "yaml":
            click.echo(as_yaml(data()), nl=False)
        case "name" if names is not None:
            for name in names():
                click.echo(name)
        case chosen:
            others.get(chosen, text)()


def as_json(value: Any, *, indent: int | None = 2, ascii_only: bool = True) -> str:
    """Return data as JSON. NaN and infinite numbers become null, bytes ``{"@bytes": <base64>}``."""
    try:
        text = json.dumps(value, default=_as_text, allow_nan=False, ensure_ascii=ascii_only)
    except ValueError:
        from reconciler.actual.packed import finite  # rare, and its import costs more than all of this module

        text = json.dumps(finite(_plain(value)), ensure_ascii=ascii_only)
    if indent is None:
        return text
    try:
        return msgspec.json.format(text, indent=indent)  # six times as fast as with an indent in Python
    except UnicodeEncodeError:  # half of a pair of surrogates, which UTF-8 does not have
        return json.dumps(json.loads(text), indent=indent, ensure_ascii=ascii_only)


def as_yaml(value: Any) -> str:
    """Return data as YAML, with a line break at the end.

    Readers of YAML 1.1 and 1.2 read the same data back. A terminal that is not UTF-8 gets ASCII only.
    """
    from reconciler.desired.yaml.writer import dump

    return dump(_plain(value), ascii_only=not is_unicode())


def is_unicode() -> bool:
    """Return whether stdout can show all characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        return codecs.lookup(encoding).name.startswith("utf")
    except LookupError:
        return False


def _plain(value: Any) -> Any:
    """Return data as a JSON parser would return it: string keys, lists, and strings for other objects."""
    return json.loads(json.dumps(value, default=_as_text))


def _as_text(value: Any) -> Any:
    """Return a value that JSON does not have: bytes as ``{"@bytes": <base64>}``, others as text."""
    if isinstance(value, bytes | bytearray):
        return {"@bytes": base64.b64encode(value).decode()}
    return str(value)
