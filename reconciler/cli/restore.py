"""``reconcile restore``: put a backup in the place of the state, which is kept beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.actual.state_dir import Lease
from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.views.words import contents_text, many, some
from reconciler.errors import InputError, ReconcilerError, RefusedError

if TYPE_CHECKING:
    from reconciler.actual.backup import Contents
    from reconciler.actual.restore import Staged

_AFTERWARDS = """\
Jobs that were started after the backup do not run twice: the next `reconcile --once` finds their run
directories, goes on with those that run, and takes in the results that are there. A job whose run directory
was removed meanwhile, or that has another worker now, runs again."""


_BY_FORCE = "with --force it is replaced, and kept beside the restored one"


@click.command(name="restore", help="Put a backup in the place of the state, which is kept beside it.")
@click.argument("file", metavar="FILE")
@click.option("--force", is_flag=True, help="Also over a state that has jobs, or with a damaged backup.")
@global_options
def command(context: Context, *, file: str, force: bool) -> None:
    """Check a backup, and let it take the place of the state."""
    from reconciler.actual.restore import drop, stage

    source = Path(file).expanduser()
    if not source.is_file():
        raise InputError(f"there is no file {source}", hint="give a file that `reconcile backup` wrote")
    state_dir = context.state_dir()
    with Lease(state_dir) as lease:
        now = time.time()
        lease.acquire(now)
        staged = stage(source, state_dir, now)
        try:
            _put_back(context, staged, state_dir, now, force=force)
        finally:
            drop(staged.place)


def _put_back(context: Context, staged: Staged, state_dir: Path, now: float, *, force: bool) -> None:
    from reconciler.actual.restore import swap

    present = _present(state_dir, force=force)
    _check_lineage(context, staged.contents, present)
    if not force:
        _check_report(staged)
        if present is not None and present.jobs:
            raise RefusedError(f"the state in {state_dir} has jobs: {contents_text(present)}", hint=_BY_FORCE)
    kept = swap(staged, state_dir, now)
    click.echo(f"restored {contents_text(staged.contents)}")
    if kept is not None:
        click.echo(f"the state as it was is kept in {kept}")
    context.say(_AFTERWARDS)


def _present(state_dir: Path, *, force: bool) -> Contents | None:
    """Return what is to be replaced, as far as it can be read."""
    from reconciler.actual.restore import present_contents

    try:
        return present_contents(state_dir)
    except InputError as error:
        if force:
            return None
        raise RefusedError(error.message, hint=_BY_FORCE) from error


def _check_report(staged: Staged) -> None:
    problems = [f"{problem.subject}: {problem.message}" for problem in staged.report.problems]
    if problems:
        raise RefusedError(
            f"the backup has {many(len(problems), 'problem')}: {some(problems, 3)}",
            hint="give another one; or add --force, then run `reconcile fsck --repair`",
        )


def _check_lineage(context: Context, backup: Contents, present: Contents | None) -> None:
    """Refuse the state of another project or repository, whatever is forced."""
    known = (present.lineage if present is not None else None) or _lineage_of_repository(context)
    if backup.lineage is None or known is None or backup.lineage == known:
        return
    raise RefusedError(
        f"the backup is of project '{backup.lineage['project']}' (repository with root "
        f"{backup.lineage['root'][:7]}), not of '{known['project']}' (root {known['root'][:7]})",
        hint="restore it to a state directory of its own: --state-dir",
    )


def _lineage_of_repository(context: Context) -> dict[str, str] | None:
    """Return the project and root of the repository; None if there is none at hand."""
    from reconciler.desired.state import project_name

    try:
        source = context.source(fetch=False)
        return {"project": project_name(source, source.revision()), "root": source.root_commit()}
    except ReconcilerError:
        return None
