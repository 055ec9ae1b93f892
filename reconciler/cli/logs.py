"""``reconcile logs``: print what a job wrote to stdout and stderr, from wherever it ran."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from typing import BinaryIO

import click

from reconciler.cli.context import Context
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


@click.command(name="logs", help="Print what a job wrote to stdout and stderr (its latest attempt).")
@click.argument("key")
@click.option("--stderr", "which", flag_value=STDERR, help="Only stderr.")
@click.option("--stdout", "which", flag_value=STDOUT, help="Only stdout.")
@global_options
def command(context: Context, *, key: str, which: str | None) -> None:
    """Print the files of the run directory: stdout to stdout, stderr to stderr."""
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        job = find_jobs(view, key)[-1]
        config = view.config()
    if job.run_dir is None:
        raise InputError(f"{job.path} has no run directory: it is {job.state}")
    worker = config.workers.get(job.run_worker or job.config.worker_name) if config is not None else None
    if worker is None:
        raise InputError(
            f"{job.path} ran on worker '{job.run_worker}', which is no longer in the repository",
            hint=f"there, its files were in {job.run_dir}",
        )
    with closing(host_of(worker.transfer_connection)) as host:
        for name in [which] if which else [STDOUT, STDERR]:
            aside = name == STDERR and which is None
            _copy(host, worker, job, name, (sys.stderr if aside else sys.stdout).buffer)


def _copy(host: Host, worker: WorkerSpec, job: JobRecord, name: str, target: BinaryIO) -> None:
    """Copy a file of the run directory, however big; nothing if it does not exist.

    Raises
    ------
    InputError
        The run directory is gone.
    TransientError
        The worker does not answer.
    """
    directory, file = shell_path(job.run_dir or ""), shlex.quote(name)
    script = f"cd -- {directory} 2>/dev/null || exit {_NO_DIRECTORY}\n[ ! -f {file} ] || cat {file}"
    result = host.run(script, worker.timeout_execute, sink=target)
    target.flush()
    if result.exit_code == _NO_DIRECTORY:
        why = "" if worker.cleanup == "keep" else f"; its worker has cleanup: {_policy(worker)}"
        raise InputError(f"the run directory of {job.path} is gone: {job.run_dir}{why}")
    if result.exit_code != 0:
        raise TransientError(f"cannot read {job.run_dir}/{name} on {host.name}: {result.stderr.strip()}")


def _policy(worker: WorkerSpec) -> str:
    return worker.cleanup if isinstance(worker.cleanup, str) else f"after {worker.cleanup.after}"
