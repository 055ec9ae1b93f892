"""What a running reconcile shows: the plan, a line for what it does, on a terminal a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from reconciler.cli.context import Context, mute_stdout
from reconciler.cli.views.plan_text import plan_lines, summary_line
from reconciler.cli.views.words import many
from reconciler.diagnostics import Diagnostic, Severity, render
from reconciler.model.actions import Plan

# Diagnostics on stderr.


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


class Narrator:
    """Is told by the loop what happens. Narration goes to stderr, the plan to stdout."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Narrator:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, line: str) -> None:
        """Take a line of narration; it stays above the progress bar."""
        if self.bar is None:
            self.context.say(line)
        else:
            self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def planned(self, plan: Plan) -> None:
        """Show the plan that is about to be applied; it is applied also if nobody reads on."""
        show_diagnostics(self.context, plan.diagnostics)
        try:
            for line in plan_lines(self.context, plan):
                click.echo(line)
            click.echo(summary_line(self.context, plan))
        except BrokenPipeError:
            mute_stdout()

    def progress(self, done: int, total: int, running: int) -> None:
        """Take how far the jobs are."""
        if self.context.options.quiet or not sys.stderr.isatty():
            return
        if self.bar is None:
            self._start()
        self.bar.update(self.task, completed=done, total=total, description=f"{running} running")

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        plain = not self.context.colored(sys.stderr)
        self.bar = Progress(*columns, console=Console(stderr=True, no_color=plain), transient=True)
        self.task = self.bar.add_task("", total=None)
        self.bar.start()
