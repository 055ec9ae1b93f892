"""What a running reconcile shows: the plan, a line for what it does, on a terminal a progress bar."""

from __future__ import annotations

import sys
from typing import Any

import click

from reconciler.cli.context import Context, mute_stdout
from reconciler.cli.views.diagnostics import show_diagnostics
from reconciler.cli.views.plan_text import plan_lines, summary_line
from reconciler.model.actions import Plan


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
