"""``reconcile output``: print what a finished job returned."""

from __future__ import annotations

import json

import click

from reconciler.cli.context import Context
from reconciler.cli.job_selectors import find_jobs
from reconciler.cli.options import global_options
from reconciler.cli.views.listing import as_yaml
from reconciler.errors import InputError


@click.command(name="output", help="Print the output of a finished job (JSON; YAML with -o yaml).")
@click.argument("key")
@global_options
def command(context: Context, key: str) -> None:
    """Print the output of the highest index of a job."""
    from reconciler.loop import open_outputs

    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            job = find_jobs(view, key)[-1]
            config = view.config()
        assert config is not None, "there is a job, so something was applied"
        document = open_outputs(store, config).latest(job.uuid)
    if document is None:
        hint = f"see `reconcile describe job {job.path}`"
        raise InputError(f"{job.path} has no output: it is {job.state}", hint=hint)
    value = document.get("output")
    if context.options.output == "yaml":
        click.echo(as_yaml(value).rstrip())
    else:
        click.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))
