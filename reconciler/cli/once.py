"""``reconcile --once``: one pass, and with --wait on until nothing is running."""

from __future__ import annotations

import math
import sys
from typing import Any

import click

from reconciler.cli.context import Context, opened
from reconciler.cli.views.diagnostics import show_diagnostics
from reconciler.cli.views.plan_text import plan_lines, summary_line
from reconciler.errors import ExitCode, InputError
from reconciler.model.actions import Plan
from reconciler.model.records import Outcome


def run(
    context: Context,
    *,
    once: bool,
    wait: bool,
    timeout: float | None,
    dry_run: bool,
    allow_prune: bool,
) -> int:
    """Run the pass and return the exit code."""
    if timeout is not None and not wait:
        raise InputError("--timeout goes with --wait")
    if dry_run:
        from reconciler.cli.plan import show_plan

        return show_plan(context, exit_code=False, allow_prune=allow_prune)
    from reconciler.loop import Session, reconcile_once

    source = context.source()
    revision = source.revision()
    _notice_uncommitted(context, source)
    with opened(context.state_dir(source, revision)) as store:
        session = Session(source, store, revision)
        limit = (math.inf if timeout is None else timeout) if wait else None
        with _watcher(context) as watcher:
            done = reconcile_once(session, watcher, allow_prune=allow_prune, wait=limit)
        context.detail(f"{session.parsed_files} files parsed")
    if done.plan is None and done.outcome.idle:
        click.echo(f"{done.outcome.revision}: nothing to do")
    click.echo(_standing(context, done.outcome))
    if done.timed_out:
        context.say(f"timed out after {timeout:g} s; the jobs run on, `reconcile --once` takes them in")
    if done.plan is not None and done.plan.has_errors:
        return ExitCode.USAGE
    return ExitCode.NO if done.timed_out or (wait and done.outcome.degraded) else ExitCode.OK


def _notice_uncommitted(context: Context, source: Any) -> None:
    changed = source.uncommitted([""]) if not context.options.quiet else []
    relevant = [path for path in changed if path.endswith((".yaml", ".yml"))]
    if relevant:
        names = ", ".join(relevant[:3]) + (" ..." if len(relevant) > 3 else "")
        context.say(f"note: not committed, so not part of this revision: {names}")


def _standing(context: Context, outcome: Outcome) -> str:
    flows = f"{outcome.flows} flows, {outcome.jobs} jobs"
    if outcome.degraded:
        names = ", ".join(outcome.degraded[:5]) + (" ..." if len(outcome.degraded) > 5 else "")
        text = context.style(f"Degraded: {names}", fg="red")
        return f"{flows}; {text}; see `reconcile describe flow {outcome.degraded[0]}`"
    if outcome.idle:
        return f"{flows}; nothing is running"
    return f"{flows}; jobs are running: `reconcile --once --wait`, or `reconcile get jobs`"


class _Watcher:
    """Narration on stderr; on a terminal a progress bar."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, line: str) -> None:
        """Take a line of narration."""
        if self.bar is None:
            self.context.say(line)

    def planned(self, plan: Plan) -> None:
        """Show the plan that is about to be applied."""
        show_diagnostics(self.context, plan.diagnostics)
        for line in plan_lines(self.context, plan):
            click.echo(line)
        click.echo(summary_line(self.context, plan))

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


def _watcher(context: Context) -> _Watcher:
    return _Watcher(context)
