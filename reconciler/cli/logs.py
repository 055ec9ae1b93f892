"""``reconcile logs``: print what a job wrote to stdout and stderr."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli.context import Context
from reconciler.cli.get import find_jobs
from reconciler.cli.options import global_options
from reconciler.errors import InputError


@click.command(name="logs", help="Print what a job wrote to stdout and stderr (its latest attempt).")
@click.argument("key")
@click.option("--stderr", "which", flag_value="queue.err", help="Only stderr.")
@click.option("--stdout", "which", flag_value="queue.out", help="Only stdout.")
@global_options
def command(context: Context, *, key: str, which: str | None) -> None:
    """Print the files of the run directory: stdout to stdout, stderr to stderr."""
    with context.store(must_exist=True) as store, store.read() as view:
        job = find_jobs(view, key)[-1]
    if job.run_dir is None or not Path(job.run_dir).exists():
        raise InputError(f"{job.path} has no run directory: it is {job.state}")
    for name in [which] if which else ["queue.out", "queue.err"]:
        path = Path(job.run_dir) / name
        if path.exists():
            text = path.read_text(errors="replace")
            click.echo(text, nl=False, err=name == "queue.err" and which is None)
