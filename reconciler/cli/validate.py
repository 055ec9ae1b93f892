"""``reconcile validate``: are the manifests of a revision right? Runs nothing and changes no state."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from reconciler.cli.context import Context, opened
from reconciler.cli.options import global_options
from reconciler.cli.views.listing import echo_data
from reconciler.cli.views.terminal_reporter import show_diagnostics
from reconciler.cli.views.words import many
from reconciler.errors import ExitCode
from reconciler.model.desired import DesiredState


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
        loaded = Session(source, store).load()
        plan = make_plan(loaded.state, ActualState())
    if context.options.output in ("json", "yaml"):
        echo_data(context, [msgspec.to_builtins(diagnostic) for diagnostic in plan.diagnostics])
    else:
        show_diagnostics(context, plan.diagnostics)
        state = loaded.state
        verdict = "invalid" if plan.has_errors else "valid"
        click.echo(f"{state.revision}: {verdict}; {_counts(state)}")
    sys.exit(ExitCode.USAGE if plan.has_errors else ExitCode.OK)


def _counts(state: DesiredState) -> str:
    found = {
        "flow": state.flows,
        "rule": state.rules,
        "worker": state.workers,
        "exec_config": state.exec_configs,
    }
    return ", ".join(many(len(several), what) for what, several in found.items())
