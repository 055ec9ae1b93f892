"""``reconcile validate``: check the manifests of a revision. Runs no code and changes no state."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from reconciler.cli.context import Context, opened
from reconciler.cli.formats import emit
from reconciler.cli.options import global_options
from reconciler.cli.views.terminal_reporter import show_diagnostics
from reconciler.cli.views.words import many
from reconciler.errors import ExitCode


@click.command(name="validate", help="Check the manifests of a revision, without any state.")
@global_options
def command(context: Context) -> None:
    """Check all documents, their references and their run config."""
    import msgspec

    from reconciler.loop import Session
    from reconciler.model.records import ActualState
    from reconciler.plan.planner import make_plan

    source = context.source()
    context.notice_uncommitted(source)
    with tempfile.TemporaryDirectory(prefix="reconcile-validate-") as scratch, opened(Path(scratch)) as store:
        state = Session(source, store).load().state
        plan = make_plan(state, ActualState())

    def text() -> None:
        show_diagnostics(context, plan.diagnostics)
        verdict = "invalid" if plan.has_errors else "valid"
        counts = {
            "flow": state.flows,
            "rule": state.rules,
            "worker": state.workers,
            "exec_config": state.exec_configs,
        }
        found = ", ".join(many(len(several), what) for what, several in counts.items())
        click.echo(f"{state.revision}: {verdict}; {found}")

    emit(context, lambda: [msgspec.to_builtins(diagnostic) for diagnostic in plan.diagnostics], text)
    sys.exit(ExitCode.USAGE if plan.has_errors else ExitCode.OK)
