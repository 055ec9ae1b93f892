"""``reconcile output`` and ``reconcile logs``: what a job returned, and what it printed."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import closing
from typing import Any, BinaryIO, cast

import click

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.formats import as_json, as_yaml, is_unicode
from reconciler.cli.job_selectors import find_jobs
from reconciler.cli.options import global_options
from reconciler.cli.views.words import many
from reconciler.diagnostics import did_you_mean
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
    """Print the output of the latest generation of a job, or with ``flow/job.a.b[0]`` a part of it."""
    from reconciler.loop import open_outputs

    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            name, path = split_output_key(view, key)
            job = find_jobs(view, name)[-1]
            config = view.config()
        assert config is not None, "there is a job, so something was applied"
        document = open_outputs(store, config).latest(job.uuid)
    if document is None:
        hint = f"see `reconcile describe job {job.path}`"
        raise InputError(f"{job.path} has no output: it is {job.state}", hint=hint)
    value = output_part(job.path, document.get("output"), path)
    if context.options.output == "yaml":
        click.echo(as_yaml(value), nl=False)
    else:
        click.echo(as_json(value, ascii_only=not is_unicode()))


def split_output_key(view: View, key: str) -> tuple[str, str]:
    """Split ``flow/job.a.b`` into the key of an existing job and the path into its output."""
    flow, slash, rest = key.partition("/")
    keys = {job.key for job in view.jobs_of(flow)} if slash else set()
    if rest not in keys:
        for end in sorted((found.start() for found in re.finditer(r"[.[]", rest)), reverse=True):
            if rest[:end] in keys:
                return f"{flow}/{rest[:end]}", rest[end:]
    return key, ""


def output_part(job: str, value: Any, path: str) -> Any:
    """Return the part of an output that a path names. Raises InputError if there is none."""
    done = job
    for name, index in re.findall(r"\.?([^.\[\]]+)|\[(-?\d+)\]", path):
        step = index or name
        try:
            if isinstance(value, list):
                value = value[int(step)]
            elif isinstance(value, dict) and step in value:
                value = value[step]
            else:
                raise LookupError(step)
        except (LookupError, ValueError) as error:
            if isinstance(value, dict):
                hint = did_you_mean(step, value) or f"it has {many(len(value), 'key')}"
            else:
                what = f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
                hint = f"it is {what}"
            raise InputError(f"the output of {done} has no '{step}'", hint=hint) from error
        done += f"[{index}]" if index else f".{name}"
    return value


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
    names = [which] if which else [STDOUT, STDERR]
    with closing(host_of(worker.transfer_connection)) as host:
        written = 0
        for name in names:
            aside = name == STDERR and which is None
            written += _copy(host, worker, job, name, (sys.stderr if aside else sys.stdout).buffer)
    if not written:
        streams = {STDOUT: "stdout", STDERR: "stderr"}
        text = " and ".join(streams[name] for name in names)
        context.say(f"{job.path} ({job.state}) has written nothing to {text}")


class _Counter:
    """A binary stream that counts the bytes that it passes on."""

    def __init__(self, target: BinaryIO) -> None:
        self.target = target
        self.count = 0

    def write(self, data: bytes) -> int:
        """Pass bytes on."""
        self.count += len(data)
        return self.target.write(data)


def _copy(host: Host, worker: WorkerSpec, job: JobRecord, name: str, target: BinaryIO) -> int:
    """Stream a file of the run directory, of any size, to ``target``; return the number of bytes.

    Raises
    ------
    InputError
        The run directory is gone.
    TransientError
        The worker does not answer.
    """
    directory, file = shell_path(job.attempt.run_dir or ""), shlex.quote(name)
    script = f"cd -- {directory} 2>/dev/null || exit {_NO_DIRECTORY}\n[ ! -f {file} ] || cat {file}"
    counter = _Counter(target)
    result = host.run(script, worker.timeout_execute, sink=cast(BinaryIO, counter))
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
    return counter.count
