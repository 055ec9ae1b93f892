"""Diagnostics on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from reconciler.cli.context import Context
from reconciler.diagnostics import Diagnostic, Severity, render


def show_diagnostics(context: Context, diagnostics: Sequence[Diagnostic]) -> None:
    """Print all diagnostics of a revision with a count at the end."""
    for diagnostic in sorted(diagnostics, key=Diagnostic.sort_key):
        click.echo(_colored(context, diagnostic) + "\n", err=True)
    errors = sum(1 for diagnostic in diagnostics if diagnostic.is_error)
    warnings = len(diagnostics) - errors
    if diagnostics:
        counts = [_count(errors, "error"), _count(warnings, "warning")]
        click.echo(", ".join(text for text in counts if text), err=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}" if number else ""


def _colored(context: Context, diagnostic: Diagnostic) -> str:
    text = render(diagnostic)
    if not context.colored(sys.stderr):
        return text
    headline, _, rest = text.partition("\n")
    kind, _, message = headline.partition(":")
    color = "red" if diagnostic.severity is Severity.ERROR else "yellow"
    return click.style(kind, fg=color, bold=True) + click.style(f":{message}", bold=True) + f"\n{rest}"
