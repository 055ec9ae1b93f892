"""``reconcile render``: the exact submission script of a job, without asking its worker."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from reconciler.actual.store import Store
from reconciler.cli.context import Context
from reconciler.cli.job_selectors import find_jobs
from reconciler.cli.options import global_options
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError, ReconcilerError
from reconciler.execution.hosts.local import expand
from reconciler.execution.run_files import SCRIPT, WorkerPaths, next_attempt, script_of, worker_paths
from reconciler.model.manifests import Kind, WorkerSpec
from reconciler.model.records import AppliedConfig, JobRecord
from reconciler.model.run_config import FIELDS, RunConfig, resolve
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import ACTIVE, JobState


class Rendered(msgspec.Struct, frozen=True):
    """A script, the record of the attempt that it is for, and what should be said about it."""

    script: str
    job: JobRecord
    notes: list[str]


@click.group(name="render", no_args_is_help=False, help="Print the submission script of a job.")
@global_options
def command(context: Context) -> None:
    """Take the global options also between `render` and the kind."""


@command.command(name="job", help="Print the script that a job would get now; KEY is flow/job or a uuid.")
@click.argument("key")
@click.option("--worker", metavar="NAME", help="As if the job were given this worker.")
@global_options
def job(context: Context, *, key: str, worker: str | None) -> None:
    """Print the script on stdout, and on stderr which attempt it is for."""
    with context.store(must_exist=True, read_only=True) as store:
        record = _find(context, store, key)
        with store.read() as view:
            config = view.config()
    assert config is not None, "there is a job, so something was applied"
    rendered = render_job(record, config, worker)
    for note in rendered.notes:
        context.say(note)
    click.echo(rendered.script, nl=False)


def _find(context: Context, store: Store, key: str) -> JobRecord:
    """Return the record of a job, of several generations the last one."""
    try:
        with store.read() as view:
            found: JobRecord = find_jobs(view, key)[-1]
    except InputError as error:
        _refuse_unsubmitted(context, store, key)
        raise error
    return found


def _refuse_unsubmitted(context: Context, store: Store, key: str) -> None:
    """A job may be in the revision though the store does not know it: then say so."""
    from reconciler.loop import Session

    flow, _, name = key.partition("/")
    try:
        desired = Session(context.source(fetch=False), store).load().state
    except ReconcilerError:
        return  # outside of the repository; what the store says must do
    wanted = desired.flows.get(flow)
    with store.read() as view:
        submitted = view.flow(flow) is not None
    known = wanted is not None and any(job.key == name for job in wanted.preview)
    if known or (wanted is not None and not wanted.preview and not submitted):
        raise InputError(
            f"the job '{key}' was not submitted yet: it is only in the revision {desired.revision}",
            hint="run `reconcile --once`; `reconcile plan` shows what that does, or why the flow waits",
        )


def render_job(job: JobRecord, config: AppliedConfig, worker: str | None = None) -> Rendered:
    """Return the script of a job's current attempt while it is on its way, else that of its next one.

    ``worker`` makes it the next attempt, on that worker. Nothing is asked and nothing is written.

    Raises
    ------
    InputError
        There is no such worker any more, or its scheduler cannot be asked for the job's resources.
    """
    notes = []
    name = worker if worker is not None else job.config.worker_name
    spec = _spec(config, name)
    place = worker_paths(spec, expand)
    moved = name != job.config.worker_name
    if moved:
        job = msgspec.structs.replace(job, config=_given_worker(job.config, name, config))
    if moved or job.state not in ACTIVE or job.run_dir is None:
        attempt = next_attempt(_counted_anew(job) if job.ended else job, place.work_dir)
        notes.append(_next_text(attempt, name, moved=moved))
    else:
        attempt = job
        notes.append(f"{job.path} is {job.state}: its attempt {job.attempt} on worker {name}, {job.run_dir}")
    if job.wanted is not None:
        notes.append(f"a change is deferred and not included: see `reconcile describe job {job.path}`")
    script = _script(attempt, config, spec, place)
    notes += _more_notes(attempt, spec, name, script)
    return Rendered(script, attempt, notes)


def _counted_anew(job: JobRecord) -> JobRecord:
    """What is begun by hand gets nothing that retries escalated."""
    return msgspec.structs.replace(job, retried=[])


def _spec(config: AppliedConfig, name: str) -> WorkerSpec:
    if name not in config.workers:
        hint = did_you_mean(name, config.workers)
        raise InputError(f"there is no worker '{name}' in {config.revision}", hint=hint)
    return config.workers[name]


def _given_worker(old: RunConfig, name: str, config: AppliedConfig) -> RunConfig:
    """Return a run config with another worker; what the old worker gave by default falls away."""
    settings = {field: setting for field in FIELDS if (setting := old.setting(field)) is not None}
    layer = {
        field: setting for field, setting in settings.items() if setting.origin.level is not Level.WORKER
    }
    layer["worker"] = Setting(name, Origin(Level.WORKER, Kind.WORKER, name, "/metadata/name"))
    new = resolve([layer], config.worker_defaults, {})
    return msgspec.structs.replace(new, commands=old.commands)


def _next_text(attempt: JobRecord, worker: str, *, moved: bool) -> str:
    when = {
        JobState.COMPLETED: "if it is run again",
        JobState.STOPPED: "if it is run again",
        JobState.USER_STOPPED: "if it is run again",
        JobState.FAILED: "when it is tried again",
        JobState.REMOTE_ERROR: "when it is tried again",
    }.get(attempt.state, "next")
    if attempt.retry_at is not None:
        when = f"as retry {len(attempt.retried)} after {attempt.retried[-1]}"
    as_if = ", as if it were given that worker" if moved else ""
    return (
        f"{attempt.path} is {attempt.state}: {when} it gets attempt {attempt.attempt} on worker {worker}"
        f"{as_if}, in {attempt.run_dir}"
    )


def _script(job: JobRecord, config: AppliedConfig, spec: WorkerSpec, place: WorkerPaths) -> str:
    try:
        return script_of(job, config, spec, place)
    except InputError as error:
        message = f"{job.path} cannot run on worker '{job.config.worker_name}' ({spec.scheduler_type})"
        raise InputError(f"{message}: {error.message}", hint=error.hint) from error
    except ValueError as error:
        raise InputError(f"{job.path}: {error}", hint="see `reconcile plan`") from error


def _more_notes(job: JobRecord, spec: WorkerSpec, name: str, script: str) -> list[str]:
    notes = []
    if spec.type == "local" and _written(job) not in (None, script):
        notes.append(f"note: the {SCRIPT} in {job.run_dir} is another: it was written from an older revision")
    return notes


def _written(job: JobRecord) -> str | None:
    """Return the script that was written for this attempt on this machine, if it can be seen."""
    try:
        return (Path(job.run_dir or "") / SCRIPT).read_text()
    except (OSError, UnicodeDecodeError):
        return None
