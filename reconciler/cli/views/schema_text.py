"""The documentation of the manifests as text, from their schemas."""

from __future__ import annotations

from typing import Any

import click

from reconciler.cli.views.listing import terminal_width
from reconciler.desired.schemas import load_schema, resolve
from reconciler.diagnostics import did_you_mean, nearest
from reconciler.errors import InputError
from reconciler.model.manifests import Kind


def echo_kind(what: str) -> None:
    """Print title, description, default and the fields below of ``Kind`` or ``Kind.field.field``.

    Raises
    ------
    InputError
        There is no such kind or field; the hint names the nearest one.
    """
    kind_name, *fields = what.split(".")
    kind = nearest(kind_name, [str(kind) for kind in Kind])
    if kind is None or kind.lower() != kind_name.lower():
        raise InputError(f"there is no kind '{kind_name}'", hint=did_you_mean(kind_name, list(Kind)))
    schema = load_schema(Kind(kind))
    part = schema
    for field in fields:
        known = _fields(schema, part)
        if field not in known:
            raise InputError(f"{what}: there is no field '{field}'", hint=did_you_mean(field, known))
        part = known[field]
    _echo(schema, part, ".".join([kind, *fields]))


def _fields(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the fields below a part of a schema; those of the entries of a list count as its own."""
    part = resolve(schema, part)
    if "items" in part:
        part = resolve(schema, part["items"])
    found = dict(part.get("properties", {}))
    for other in (*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("allOf", ())):
        if isinstance(other, dict) and "properties" in resolve(schema, other):
            found = resolve(schema, other)["properties"] | found
    return {name: resolve(schema, inner) for name, inner in found.items() if isinstance(inner, dict)}


def _echo(schema: dict[str, Any], part: dict[str, Any], name: str) -> None:
    part = resolve(schema, part)
    click.echo(f"{name}  <{_type(part)}>")
    click.echo(_wrapped(part.get("description") or part.get("title", ""), "  "))
    if "default" in part:
        click.echo(f"  default: {part['default']}")
    for example in part.get("examples", [])[:2]:
        click.echo(f"  example: {example}")
    fields = _fields(schema, part)
    required = set(part.get("required", []))
    if fields:
        click.echo("fields:")
    for field, inner in fields.items():
        star = " (required)" if field in required else ""
        click.echo(f"  {field} <{_type(inner)}>{star}")
        click.echo(_wrapped(inner.get("description", ""), "      "))


def _wrapped(text: str, indent: str) -> str:
    width = terminal_width() or 100
    return click.wrap_text(text, width, initial_indent=indent, subsequent_indent=indent)


def _type(part: dict[str, Any]) -> str:
    if "enum" in part:
        return "|".join(str(value) for value in part["enum"])
    if "const" in part:
        return str(part["const"])
    found = part.get("type", "any")
    return "|".join(found) if isinstance(found, list) else str(found)
