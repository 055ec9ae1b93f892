"""What a reconcile shows while it runs: diagnostics, the plan, narration and, on a terminal, progress."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from reconciler.cli.context import Context
from reconciler.cli.streams import Controlling, shown
from reconciler.cli.views.plan_text import plan_lines, summary_line
from reconciler.cli.views.words import many
from reconciler.diagnostics import Diagnostic, Severity, render
from reconciler.model.actions import Plan


def show_diagnostics(context: Context, diagnostics: Sequence[Diagnostic]) -> None:
    """Print the diagnostics of a revision on stderr, and how many there are."""
    for diagnostic in sorted(diagnostics, key=Diagnostic.sort_key):
        text = render(diagnostic)
        if context.colored(sys.stderr):
            headline, _, rest = text.partition("\n")
            kind, _, message = headline.partition(":")
            color = "red" if diagnostic.severity is Severity.ERROR else "yellow"
            kind = click.style(kind, fg=color, bold=True)
            text = f"{kind}{click.style(f':{message}', bold=True)}\n{rest}"
        click.echo(text + "\n", err=True)
    errors = sum(1 for diagnostic in diagnostics if diagnostic.is_error)
    warnings = len(diagnostics) - errors
    if diagnostics:
        counts = [many(errors, "error")] * bool(errors) + [many(warnings, "warning")] * bool(warnings)
        click.echo(", ".join(counts), err=True)


class TerminalReporter:
    """Shows what the loop reports (a ``Watcher``): narration on stderr, the plan on stdout."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> TerminalReporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, line: str) -> None:
        """Print a line of narration, above the progress bar if there is one."""
        if self.bar is None:
            self.context.say(line)
        else:
            self.bar.console.print(shown(line), markup=False, highlight=False, soft_wrap=True)

    def planned(self, plan: Plan) -> None:
        """Print the plan that is about to be applied."""
        show_diagnostics(self.context, plan.diagnostics)
        for line in plan_lines(self.context, plan):
            click.echo(line)
        click.echo(summary_line(self.context, plan))

    def progress(self, done: int, total: int, running: int) -> None:
        """Show how many jobs have ended, and how many run."""
        if self.context.options.quiet or not sys.stderr.isatty():
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            stream: Any = Controlling(sys.stderr)
            console = Console(file=stream, no_color=not self.context.colored(sys.stderr))
            self.bar = Progress(*columns, console=console, transient=True)
            self.task = self.bar.add_task("", total=None)
            self.bar.start()
        self.bar.update(self.task, completed=done, total=total, description=f"{running} running")
