"""``reconcile explain``: the run config of a job, the effect of a rule, or a field of a manifest."""

from __future__ import annotations

import click

from reconciler.cli.context import Context
from reconciler.cli.formats import emit
from reconciler.cli.job_selectors import find_jobs
from reconciler.cli.options import global_options
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.run_config import FIELDS


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
    """Print who set each value and what it beats, or the documentation of a kind or field."""
    if name is None:
        if what in ("job", "rule"):
            raise InputError(f"name the {what} to explain", hint=f"write `reconcile explain {what} NAME`")
        from reconciler.cli.views.explain_text import echo_kind

        echo_kind(what)
    elif what == "job":
        _explain_job(context, name, field)
    elif what == "rule" and field is None:
        _explain_rule(context, name)
    else:
        raise InputError(
            f"`explain {what}` takes no further argument",
            hint="write `explain job KEY [FIELD]`, `explain rule NAME` or `explain KIND.field`",
        )


def _explain_job(context: Context, key: str, field: str | None) -> None:
    from reconciler.cli.views.explain_text import echo_job_explanation, job_explanation
    from reconciler.cli.views.provenance import Provenance

    if field is not None and field not in FIELDS:
        raise InputError(f"a run config has no field '{field}'", hint=did_you_mean(field, FIELDS))
    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            record = find_jobs(view, key)[-1]
            members = view.jobs_of(record.flow)
        provenance = Provenance(context, store)
        with store.read() as view:
            data = job_explanation(view, provenance, record, members, field)
    emit(context, lambda: data, lambda: echo_job_explanation(context, data))


def _explain_rule(context: Context, name: str) -> None:
    from reconciler.cli.views.explain_text import echo_rule_explanation, rule_explanation
    from reconciler.cli.views.provenance import Provenance

    with context.store(must_exist=True, read_only=True) as store:
        provenance = Provenance(context, store)
        rules = {rule.name: rule for rule in provenance.desired.rules}
        if name not in rules:
            raise InputError(
                f"{provenance.desired.revision} has no rule '{name}'", hint=did_you_mean(name, list(rules))
            )
        with store.read() as view:
            jobs = {flow: view.jobs_of(flow) for flow in provenance.desired.flows}
        data = rule_explanation(provenance, rules[name], jobs)
    emit(
        context,
        lambda: data,
        lambda: echo_rule_explanation(context, data),
        names=lambda: (job["key"] for job in data["jobs"]),
    )
