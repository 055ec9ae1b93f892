"""``reconcile render``: the exact submission script of a job, without asking its worker."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from reconciler.actual.store import Store
from reconciler.cli.context import Context
from reconciler.cli.job_selectors import find_jobs
from reconciler.cli.live_names import complete_jobs
from reconciler.cli.options import KindGroup, global_options
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError, ReconcilerError
from reconciler.execution.hosts.local import expand
from reconciler.execution.run_files import SCRIPT, next_attempt, script_of, worker_paths
from reconciler.model.applied import AppliedConfig
from reconciler.model.manifests import Kind
from reconciler.model.records import JobRecord
from reconciler.model.run_config import FIELDS, RunConfig, resolve
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.interpreter import begun_again


class Rendered(msgspec.Struct, frozen=True):
    """A script, the record of its attempt, and remarks for the user."""

    script: str
    job: JobRecord
    notes: list[str]


@click.group(
    cls=KindGroup, name="render", no_args_is_help=False, help="Print the submission script of a job."
)
@global_options
def command(context: Context) -> None:
    """Accept the global options also between `render` and the kind."""


@command.command(name="job", help="Print the script that a job would get now; KEY is flow/job or a uuid.")
@click.argument("key", shell_complete=complete_jobs)
@click.option("--worker", metavar="NAME", help="Render it for this worker instead of the job's own.")
@global_options
def job(context: Context, *, key: str, worker: str | None) -> None:
    """Print the script on stdout, and on stderr which attempt it is for."""
    with context.store(must_exist=True, read_only=True) as store:
        try:
            with store.read() as view:
                record = find_jobs(view, key)[-1]
                config = view.applied_config()
        except InputError as error:
            _refuse_unsubmitted(context, store, key)
            raise error
    rendered = render_job(record, config, worker)
    for note in rendered.notes:
        context.say(note)
    click.echo(rendered.script, nl=False)


def _refuse_unsubmitted(context: Context, store: Store, key: str) -> None:
    """Raise a clearer InputError if a job that the store does not have is in the revision."""
    from reconciler.loop import Session

    flow, _, name = key.partition("/")
    try:
        desired = Session(context.source(fetch=False), store).load().state
    except ReconcilerError:
        return  # no repository here
    wanted = desired.flows.get(flow)
    with store.read() as view:
        submitted = view.flow(flow) is not None
    known = wanted is not None and any(job.key == name for job in wanted.preview)
    if known or (wanted is not None and not wanted.preview and not submitted):
        raise InputError(
            f"the job '{key}' is not submitted yet: it is only in the revision {desired.revision}",
            hint="run `reconcile --once`; `reconcile plan` shows what that does, or why the flow waits",
        )


def render_job(job: JobRecord, config: AppliedConfig, worker: str | None = None) -> Rendered:
    """Return the script of a job's current attempt if it is active, else that of its next attempt.

    ``worker`` makes it the next attempt, on that worker. Asks no worker and writes nothing.

    Raises
    ------
    InputError
        There is no such worker any more, or its scheduler does not support the job's resources.
    """
    notes = []
    name = worker if worker is not None else job.config.worker_name
    if name not in config.workers:
        hint = did_you_mean(name, config.workers)
        raise InputError(f"there is no worker '{name}' in {config.revision}", hint=hint)
    spec = config.workers[name]
    paths = worker_paths(spec, expand)
    moved = name != job.config.worker_name
    if moved:
        job = msgspec.structs.replace(job, config=_with_worker(job.config, name, config))
    if moved or job.state not in ACTIVE or job.attempt.run_dir is None:
        # A job that has ended starts again by hand, so without what its retries escalated.
        fresh = begun_again(job, as_retry=True) if job.ended else job
        attempt = next_attempt(fresh, paths.work_dir, name)
        notes.append(_next_text(attempt, name, moved=moved))
    else:
        attempt = job
        where = f"attempt {job.attempt.number} on worker {name}, {job.attempt.run_dir}"
        notes.append(f"{job.path} is {job.state}: its {where}")
    if job.wanted is not None:
        notes.append(f"a patch is deferred and not included: see `reconcile describe job {job.path}`")
    try:
        script = script_of(attempt, config, spec, paths)
    except InputError as error:
        message = f"{attempt.path} cannot run on worker '{name}' ({spec.scheduler_type})"
        raise InputError(f"{message}: {error.message}", hint=error.hint) from error
    except ValueError as error:
        raise InputError(f"{attempt.path}: {error}", hint="see `reconcile plan`") from error
    if spec.type == "local" and _written_script(attempt) not in (None, script):
        notes.append(
            f"note: the {SCRIPT} in {attempt.attempt.run_dir} differs: it was written from an older revision"
        )
    return Rendered(script, attempt, notes)


def _with_worker(old: RunConfig, name: str, config: AppliedConfig) -> RunConfig:
    """Return a run config with another worker, without what the old worker gave by default."""
    layer: dict[str, Setting] = {
        field: setting
        for field in FIELDS
        if (setting := old.setting(field)) is not None and setting.origin.level is not Level.WORKER
    }
    layer["worker"] = Setting(name, Origin(Level.WORKER, Kind.WORKER, name, "/metadata/name"))
    new = resolve([layer], config.worker_defaults, {})
    return msgspec.structs.replace(new, commands=old.commands)


def _next_text(attempt: JobRecord, worker: str, *, moved: bool) -> str:
    when = {
        JobState.COMPLETED: "if it is run again",
        JobState.STOPPED: "if it is run again",
        JobState.USER_STOPPED: "if it is run again",
        JobState.FAILED: "when it is retried",
        JobState.REMOTE_ERROR: "when it is retried",
    }.get(attempt.state, "next")
    if attempt.retry.at is not None:
        when = f"as retry {len(attempt.retry.causes)} after {attempt.retry.causes[-1]}"
    as_if = ", as if it had that worker" if moved else ""
    return (
        f"{attempt.path} is {attempt.state}: {when} it gets attempt {attempt.attempt.number} "
        f"on worker {worker}{as_if}, in {attempt.attempt.run_dir}"
    )


def _written_script(job: JobRecord) -> str | None:
    """Return the script that was written for this attempt on this machine, if it exists."""
    try:
        return (Path(job.attempt.run_dir or "") / SCRIPT).read_text()
    except (OSError, UnicodeDecodeError):
        return None
