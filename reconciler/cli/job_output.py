"""``reconcile output`` and ``reconcile logs``: what a job returned, and what it printed."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from typing import BinaryIO

import click

from reconciler.cli.context import Context
from reconciler.cli.formats import as_json, as_yaml, is_unicode
from reconciler.cli.job_selectors import find_jobs
from reconciler.cli.options import global_options
from reconciler.errors import InputError, TransientError
from reconciler.execution.hosts.base import Host
from reconciler.execution.hosts.choice import host_of
from reconciler.execution.qtk import STDERR, STDOUT
from reconciler.execution.run_files import shell_path
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import JobRecord

_NO_DIRECTORY = 43
"""Exit code of the remote script if the run directory is gone."""


@click.command(help="Print the output of a finished job (JSON; YAML with -o yaml).")
@click.argument("key")
@global_options
def output(context: Context, key: str) -> None:
    """Print the output of the latest generation of a job."""
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
        click.echo(as_yaml(value), nl=False)
    else:
        click.echo(as_json(value, ascii_only=not is_unicode()))


@click.command(help="Print the stdout and stderr of a job (its latest attempt).")
@click.argument("key")
@click.option("--stderr", "which", flag_value=STDERR, help="Only stderr.")
@click.option("--stdout", "which", flag_value=STDOUT, help="Only stdout.")
@global_options
def logs(context: Context, *, key: str, which: str | None) -> None:
    """Print the files of the run directory: stdout to stdout, stderr to stderr."""
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        job = find_jobs(view, key)[-1]
        config = view.config()
    if job.attempt.run_dir is None:
        raise InputError(f"{job.path} has no run directory: it is {job.state}")
    worker = config.workers.get(job.attempt.worker or job.config.worker_name) if config is not None else None
    if worker is None:
        raise InputError(
            f"{job.path} ran on worker '{job.attempt.worker}', which is no longer in the repository",
            hint=f"on that worker, its files were in {job.attempt.run_dir}",
        )
    with closing(host_of(worker.transfer_connection)) as host:
        for name in [which] if which else [STDOUT, STDERR]:
            aside = name == STDERR and which is None
            _copy(host, worker, job, name, (sys.stderr if aside else sys.stdout).buffer)


def _copy(host: Host, worker: WorkerSpec, job: JobRecord, name: str, target: BinaryIO) -> None:
    """Stream a file of the run directory, of any size, to ``target``; nothing if it does not exist.

    Raises
    ------
    InputError
        The run directory is gone.
    TransientError
        The worker does not answer.
    """
    directory, file = shell_path(job.attempt.run_dir or ""), shlex.quote(name)
    script = f"cd -- {directory} 2>/dev/null || exit {_NO_DIRECTORY}\n[ ! -f {file} ] || cat {file}"
    result = host.run(script, worker.timeout_execute, sink=target)
    target.flush()
    if result.exit_code == _NO_DIRECTORY:
        cleanup = worker.cleanup
        policy = cleanup if isinstance(cleanup, str) else f"after {cleanup.after}"
        why = "" if policy == "keep" else f"; its worker has cleanup: {policy}"
        raise InputError(f"the run directory of {job.path} is gone: {job.attempt.run_dir}{why}")
    if result.exit_code != 0:
        raise TransientError(
            f"cannot read {job.attempt.run_dir}/{name} on {host.name}: {result.stderr.strip()}"
        )
