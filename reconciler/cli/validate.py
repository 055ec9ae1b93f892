"""``reconcile validate``: check the manifests of a revision. Runs no code and changes no state."""

from __future__ import annotations

import sys

import click

from reconciler.cli.context import Context
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

    from reconciler.cli.planning import checked

    source = context.source()
    context.notice_uncommitted(source)
    state, plan = checked(source)

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
