"""``reconcile explain``: why a job has its run config, what a rule does, what a field of a manifest means."""

from __future__ import annotations

import click

from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.errors import InputError


@click.command(
    name="explain",
    help="Explain a job's run config (job KEY [FIELD]), a rule (rule NAME) or a field of a manifest "
    "(Worker.spec.max_jobs).",
)
@click.argument("what", metavar="job|rule|KIND[.FIELD...]")
@click.argument("name", required=False, metavar="[KEY|NAME]")
@click.argument("field", required=False, metavar="[FIELD]")
@global_options
def command(context: Context, what: str, name: str | None, field: str | None) -> None:
    """Print who set what and what it beat; or the documentation that the schemas give."""
    if name is None:
        if what in ("job", "rule"):
            raise InputError(f"which {what}?", hint=f"write `reconcile explain {what} NAME`")
        from reconciler.cli.views.schema_text import echo_kind

        echo_kind(what)
    elif what == "job":
        from reconciler.cli.views.explain_job import explain_job

        explain_job(context, name, field)
    elif what == "rule" and field is None:
        from reconciler.cli.views.explain_rule import explain_rule

        explain_rule(context, name)
    else:
        raise InputError(
            f"`explain {what}` takes no further argument",
            hint="write `explain job KEY [FIELD]`, `explain rule NAME` or `explain KIND.field`",
        )
