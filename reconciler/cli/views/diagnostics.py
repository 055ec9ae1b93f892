"""Diagnostics on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from reconciler.cli.context import Context
from reconciler.cli.views.words import many
from reconciler.diagnostics import Diagnostic, Severity, render


def show_diagnostics(context: Context, diagnostics: Sequence[Diagnostic]) -> None:
    """Print all diagnostics of a revision with a count at the end."""
    for diagnostic in sorted(diagnostics, key=Diagnostic.sort_key):
        click.echo(_colored(context, diagnostic) + "\n", err=True)
    errors = sum(1 for diagnostic in diagnostics if diagnostic.is_error)
    warnings = len(diagnostics) - errors
    if diagnostics:
        counts = [many(errors, "error")] * bool(errors) + [many(warnings, "warning")] * bool(warnings)
        click.echo(", ".join(counts), err=True)


def _colored(context: Context, diagnostic: Diagnostic) -> str:
    text = render(diagnostic)
    if not context.colored(sys.stderr):
        return text
    headline, _, rest = text.partition("\n")
    kind, _, message = headline.partition(":")
    color = "red" if diagnostic.severity is Severity.ERROR else "yellow"
    return click.style(kind, fg=color, bold=True) + click.style(f":{message}", bold=True) + f"\n{rest}"
