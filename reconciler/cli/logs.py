"""``reconcile logs``: print what a job wrote to stdout and stderr, from wherever it ran."""

from __future__ import annotations

import io
from contextlib import closing

import click

from reconciler.cli.context import Context
from reconciler.cli.get import find_jobs
from reconciler.cli.options import global_options
from reconciler.errors import InputError
from reconciler.execution.hosts.choice import host_of
from reconciler.execution.launch import shell_path
from reconciler.execution.qtk import STDERR, STDOUT
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import JobRecord

_NO_DIRECTORY, _NO_FILE = 43, 44


@click.command(name="logs", help="Print what a job wrote to stdout and stderr (its latest attempt).")
@click.argument("key")
@click.option("--stderr", "which", flag_value=STDERR, help="Only stderr.")
@click.option("--stdout", "which", flag_value=STDOUT, help="Only stdout.")
@global_options
def command(context: Context, *, key: str, which: str | None) -> None:
    """Print the files of the run directory: stdout to stdout, stderr to stderr."""
    with context.store(must_exist=True) as store, store.read() as view:
        job = find_jobs(view, key)[-1]
        config = view.config()
    if job.run_dir is None:
        raise InputError(f"{job.path} has no run directory: it is {job.state}")
    worker = config.workers.get(job.run_worker or job.config.worker_name) if config is not None else None
    if worker is None:
        raise InputError(f"{job.path} ran on worker '{job.run_worker}', which is no longer in the repository")
    for name in [which] if which else [STDOUT, STDERR]:
        text = _read(worker, job, name)
        click.echo(text, nl=False, err=name == STDERR and which is None)


def _read(worker: WorkerSpec, job: JobRecord, name: str) -> str:
    """Return a file of the run directory, empty if it does not exist.

    Raises
    ------
    InputError
        The run directory is gone.
    TransientError
        The worker does not answer.
    """
    directory = shell_path(job.run_dir or "")
    script = (
        f"cd -- {directory} 2>/dev/null || exit {_NO_DIRECTORY}\n[ -f {name} ] || exit {_NO_FILE}\ncat {name}"
    )
    content = io.BytesIO()
    with closing(host_of(worker.transfer_connection)) as host:
        result = host.run(script, worker.timeout_execute, sink=content)
    if result.exit_code == _NO_DIRECTORY:
        why = "" if worker.cleanup == "keep" else f"; its worker has cleanup: {_policy(worker)}"
        raise InputError(f"the run directory of {job.path} is gone: {job.run_dir}{why}")
    return content.getvalue().decode(errors="replace")


def _policy(worker: WorkerSpec) -> str:
    return worker.cleanup if isinstance(worker.cleanup, str) else f"after {worker.cleanup.after}"
