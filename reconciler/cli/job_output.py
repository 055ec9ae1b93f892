"""``reconcile output``, ``logs`` and ``files``: what a job returned and printed, and its run directory."""

from __future__ import annotations

import io
import re
import shlex
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from typing import BinaryIO, cast

import click
import msgspec

from reconciler.actual import packed
from reconciler.actual.codec import decode_value
from reconciler.actual.npy import npy_pieces
from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.formats import as_yaml, is_unicode
from reconciler.cli.job_selectors import find_jobs
from reconciler.cli.live_names import complete_jobs
from reconciler.cli.options import global_options
from reconciler.cli.views.listing import show
from reconciler.cli.views.words import many
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError, TransientError
from reconciler.execution.hosts.base import Host
from reconciler.execution.hosts.choice import host_of
from reconciler.execution.qtk import STDERR, STDOUT
from reconciler.execution.run_files import shell_path
from reconciler.jobs.outputs import Outputs
from reconciler.model.flows import run_dir
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE

_NO_DIRECTORY, _NO_FILE = 43, 44
"""Exit codes of the remote script if the run directory or the file is gone."""


@click.command(help="Print the output of a finished job, or a part of it (JSON; -o yaml, npy or raw).")
@click.argument("key", shell_complete=complete_jobs)
@click.option(
    "--store",
    "stores",
    metavar="NAME",
    multiple=True,
    help="Load only what is in this additional store; show the rest as links.  [default: all stores]",
)
@global_options
def output(context: Context, *, key: str, stores: tuple[str, ...]) -> None:
    """Print the output of the latest generation of a job, or with ``flow/job.a.b[0]`` a part of it.

    Parts in additional stores are loaded. JSON, npy and raw need memory for a part of the output at a time.
    """
    from reconciler.loop import open_outputs

    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            name, path = split_output_key(view, key)
            job = find_jobs(view, name)[-1]
            config = view.applied_config()
        outputs = open_outputs(store, config)
        document = outputs.packed(job.uuid)
        if document is None:
            hint = f"see `reconcile describe job {job.path}`"
            raise InputError(f"{job.path} has no output: it is {job.state}", hint=hint)

        load = loader(outputs, job, stores)
        content = packed.members(document).get("output", memoryview(b"\xc0"))
        value = output_part(job.path, content, path, load)
        match context.options.output:
            case "yaml":
                click.echo(as_yaml(packed.loaded(value, load)), nl=False)
            case "npy":
                _write_npy(job, value)
            case "raw" if (pieces := packed.raw_pieces(value)) is not None:
                for piece in pieces:
                    click.echo(piece, nl=False)
            case _:
                for text in _joined(packed.json_pieces(value, ascii_only=not is_unicode(), load=load)):
                    click.echo(text, nl=False)
                click.echo()


def loader(outputs: Outputs, job: JobRecord, stores: Collection[str] = ()) -> packed.Load:
    """Return the function that loads parts of an output from additional stores: all, or only from some.

    It raises InputError if a part is missing there.
    """

    def load(value: memoryview) -> memoryview:
        if (
            not {"blob_uuid", "store"} <= packed.members(value).keys()
        ):  # decoded, a large one needs much memory
            return value
        link = decode_value(value)
        if stores and link["store"] not in stores:
            return value
        found = outputs.packed_blob(link["store"], link["blob_uuid"])
        if found is None:
            raise InputError(
                f"a part of the output of {job.path} is missing in the store '{link['store']}'",
                hint="give --store with another name to see the rest",
            )
        return packed.members(found)["data"]

    return load


def _joined(pieces: Iterable[str]) -> Iterator[str]:
    """Join small pieces, because each that is printed costs a system call."""
    held: list[str] = []
    for number, piece in enumerate(pieces, 1):
        held.append(piece)
        if number % 1000 == 0 or len(piece) > 1000:
            yield "".join(held)
            held.clear()
    yield "".join(held)


def _write_npy(job: JobRecord, value: memoryview) -> None:
    if sys.stdout.isatty():
        raise InputError(
            "-o npy prints bytes, not text", hint=f"`reconcile output {job.path} -o npy > x.npy`"
        )
    try:
        for piece in npy_pieces(value):
            click.echo(piece, nl=False)
    except ValueError as error:
        hint = "name a part of it that has only numbers: `reconcile output flow/job.part -o npy`"
        raise InputError(f"-o npy prints lists of numbers, and it is {error}", hint=hint) from error


def split_output_key(view: View, key: str) -> tuple[str, str]:
    """Split ``flow/job.a.b`` into the key of an existing job and the path into its output."""
    flow, slash, rest = key.partition("/")
    keys = {job.key for job in view.jobs_of(flow)} if slash else set()
    if rest not in keys:
        for end in sorted((found.start() for found in re.finditer(r"[.[]", rest)), reverse=True):
            if rest[:end] in keys:
                return f"{flow}/{rest[:end]}", rest[end:]
    return key, ""


class MissingPartError(InputError):
    """An output does not have the part that a path names."""


def output_part(job: str, value: memoryview, path: str, load: packed.Load) -> memoryview:
    """Return the part of an output that a path names. Raises MissingPartError if it does not exist."""
    done = job
    value = load(value) if packed.is_map(value) else value
    for name, index in re.findall(r"\.?([^.\[\]]+)|\[(-?\d+)\]", path):
        step = index or name
        number = int(step) if re.fullmatch(r"-?\d+", step) else None
        try:
            value = packed.part(value, [number if number is not None and packed.is_list(value) else step])
        except LookupError as error:
            if packed.is_map(value):
                keys = packed.members(value)
                hint = did_you_mean(step, keys) or f"it has {many(len(keys), 'key')}"
            elif packed.is_list(value):
                hint = f"it is a list of {packed.length(value)}"
            else:
                hint = f"it is {type(decode_value(value)).__name__}"
            raise MissingPartError(f"the output of {done} has no '{step}'", hint=hint) from error
        value = load(value) if packed.is_map(value) else value
        done += f"[{index}]" if index else f".{name}"
    return value


_ATTEMPT = click.option(
    "--attempt", type=click.IntRange(min=1), metavar="N", help="An earlier attempt.  [default: the latest]"
)


@click.command(help="Print the stdout and stderr of a job.")
@click.argument("key", shell_complete=complete_jobs)
@click.option("--stderr", "which", flag_value=STDERR, help="Only stderr.")
@click.option("--stdout", "which", flag_value=STDOUT, help="Only stdout.")
@click.option("-f", "--follow", is_flag=True, help="Continue until the job has ended.")
@_ATTEMPT
@global_options
def logs(context: Context, *, key: str, which: str | None, follow: bool, attempt: int | None) -> None:
    """Print the files of the run directory: stdout to stdout, stderr to stderr."""
    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            directory = _run_directory(view, key, attempt)
        written = dict.fromkeys([which] if which else [STDOUT, STDERR], 0)
        with closing(host_of(directory.worker.transfer_connection)) as host:
            while True:
                with store.read() as view:
                    job = view.job(directory.job.id)
                active = job is not None and job.state in ACTIVE and attempt is None
                before = sum(written.values())
                for name, count in written.items():
                    aside = name == STDERR and which is None
                    stream = (sys.stderr if aside else sys.stdout).buffer
                    written[name] += _copy(host, directory, name, stream, skip=count)
                if not follow or not active:
                    break
                # While a job writes nothing, its worker is asked less often.
                time.sleep(1.0 if sum(written.values()) > before else 3.0)
    if not any(written.values()):
        streams = {STDOUT: "stdout", STDERR: "stderr"}
        text = " and ".join(streams[name] for name in written)
        context.say(f"{directory.job.path} ({directory.job.state}) has written nothing to {text}")


@click.command(help="List the files in the run directory of a job, or print one of them.")
@click.argument("key", shell_complete=complete_jobs)
@click.argument("file", required=False)
@_ATTEMPT
@global_options
def files(context: Context, *, key: str, file: str | None, attempt: int | None) -> None:
    """List sizes in bytes and names, or print the bytes of a file."""
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        directory = _run_directory(view, key, attempt)
    with closing(host_of(directory.worker.transfer_connection)) as host:
        if file is not None:
            if file.startswith("/") or ".." in file.split("/"):
                raise InputError(
                    f"'{file}' is not inside the run directory", hint="give a path relative to it"
                )
            if _copy(host, directory, file, sys.stdout.buffer, must_exist=True) == 0:
                context.say(f"{file} is empty")
            return
        listing = io.BytesIO()
        _run_there(host, directory, "find . ! -type d -exec ls -dlL -- {} + | LC_ALL=C sort -k 9", listing)
    rows = [line.split(None, 8) for line in listing.getvalue().decode(errors="backslashreplace").splitlines()]
    found = [{"file": row[8].removeprefix("./"), "bytes": int(row[4])} for row in rows if len(row) == 9]
    show(context, found, ("bytes", "file"), (), name="file")


class _RunDirectory(msgspec.Struct, frozen=True):
    """The run directory of an attempt, and the worker that has it."""

    job: JobRecord
    worker: WorkerSpec
    path: str


def _run_directory(view: View, key: str, attempt: int | None) -> _RunDirectory:
    """Find the run directory of the latest or an earlier attempt of a job.

    Raises
    ------
    InputError
        There is no such attempt, or its worker is no longer in the repository.
    """
    job = find_jobs(view, key)[-1]
    config = view.config()
    workers = config.workers if config is not None else {}
    name, path = job.attempt.worker or job.config.worker_name, job.attempt.run_dir
    if path is None:
        raise InputError(f"{job.path} has no run directory: it is {job.state}")
    if attempt is not None and attempt != job.attempt.number:
        if attempt > job.attempt.number:
            raise InputError(
                f"{job.path} has no attempt {attempt}", hint=f"the latest one is {job.attempt.number}"
            )
        # An event tells which worker an earlier attempt was on.
        events = (event for event in view.events(f"job/{job.path}") if event.job in (None, job.id))
        names = [
            event.message.rpartition(": worker ")[2]
            for event in events
            if event.attempt == attempt and event.type == "State" and ": worker " in event.message
        ]
        name = names[-1] if names else name
        base = path.removesuffix(run_dir("", job.uuid, job.index, job.attempt.number))
        same = name == job.attempt.worker or name not in workers
        path = run_dir(base if same else workers[name].work_dir, job.uuid, job.index, attempt)
    if name not in workers:
        raise InputError(
            f"{job.path} ran on worker '{name}', which is no longer in the repository",
            hint=f"on that worker, its files were in {path}",
        )
    return _RunDirectory(job, workers[name], path)


class _Counter:
    """A binary stream that counts the bytes that it passes on."""

    def __init__(self, target: BinaryIO) -> None:
        self.target = target
        self.count = 0

    def write(self, data: bytes) -> int:
        """Pass bytes on."""
        self.count += len(data)
        return self.target.write(data)


def _copy(
    host: Host,
    directory: _RunDirectory,
    name: str,
    target: BinaryIO,
    *,
    skip: int = 0,
    must_exist: bool = False,
) -> int:
    """Stream a file of the run directory, of any size, to ``target``; return the number of bytes.

    The first ``skip`` bytes are left out. Without ``must_exist`` a file that does not exist is empty.

    Raises
    ------
    InputError
        The run directory is gone, or the file does not exist.
    TransientError
        The worker does not answer.
    """
    file = shlex.quote(f"./{name}")
    missing = f"exit {_NO_FILE}" if must_exist else "exit 0"
    counter = _Counter(target)
    script = f"[ -f {file} ] || {missing}\ntail -c +{skip + 1} {file}"
    _run_there(host, directory, script, cast(BinaryIO, counter), name)
    target.flush()
    return counter.count


def _run_there(host: Host, directory: _RunDirectory, script: str, sink: BinaryIO, name: str = "") -> None:
    """Run a script in a run directory; what it prints goes to ``sink``. Raises as :func:`_copy` does."""
    worker, job = directory.worker, directory.job
    enter = f"cd -- {shell_path(directory.path)} 2>/dev/null || exit {_NO_DIRECTORY}\n"
    result = host.run(enter + script, worker.timeout_execute, sink=sink)
    if result.exit_code == _NO_DIRECTORY:
        cleanup = worker.cleanup
        policy = cleanup if isinstance(cleanup, str) else f"after {cleanup.after}"
        why = "" if policy == "keep" else f"; its worker has cleanup: {policy}"
        raise InputError(f"the run directory of {job.path} is gone: {directory.path}{why}")
    if result.exit_code == _NO_FILE:
        raise InputError(
            f"{job.path} has no file '{name}'", hint=f"list its files with `reconcile files {job.path}`"
        )
    if result.exit_code != 0:
        where = f"{directory.path}/{name}".rstrip("/")
        raise TransientError(f"cannot read {where} on {host.name}: {result.stderr.strip()}")
