"""``reconcile backup`` and ``reconcile restore``: the whole state as one file, and back."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.actual.state_dir import Lease
from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.views.words import contents_text, many, some
from reconciler.errors import InputError, ReconcilerError, RefusedError
from reconciler.files import space_text

if TYPE_CHECKING:
    from reconciler.actual.backup import Contents
    from reconciler.actual.restore import Staged

_AFTERWARDS = """\
Jobs that were started after the backup do not run twice: the next `reconcile --once` finds their run
directories, keeps track of those that run, and collects the results that exist. A job whose run directory was
removed in the meantime, or that now has another worker, runs again."""

_USE_FORCE = "with --force it is replaced, and kept beside the restored one"


@click.command(help="Copy the state to FILE: a consistent snapshot, even during a reconcile.")
@click.argument("file", metavar="FILE")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@global_options
def backup(context: Context, *, file: str, force: bool) -> None:
    """Write a backup, and print what it contains."""
    from reconciler.actual.backup import contents_of, save_copy

    target = Path(file).expanduser()
    with context.store(must_exist=True, read_only=True) as store:
        size = save_copy(store, target, overwrite=force)
        with store.read() as view:  # may count what was written after the snapshot
            contents = contents_of(view)
    click.echo(f"{target}: {contents_text(contents)}, {space_text(size)}")


@click.command(help="Replace the state with a backup; the present state is kept beside it.")
@click.argument("file", metavar="FILE")
@click.option("--force", is_flag=True, help="Also replace a state that has jobs, or use a damaged backup.")
@global_options
def restore(context: Context, *, file: str, force: bool) -> None:
    """Check a backup, and swap it with the present state under the lease."""
    from reconciler.actual.restore import drop, stage, swap

    source = Path(file).expanduser()
    if not source.is_file():
        raise InputError(f"there is no file {source}", hint="give a file that `reconcile backup` wrote")
    state_dir = context.state_dir()
    with Lease(state_dir) as lease:
        now = time.time()
        lease.acquire(now)
        staged = stage(source, state_dir, now)
        try:
            _check(context, staged, state_dir, force=force)
            kept = swap(staged, state_dir, now)
        finally:
            drop(staged.place)
    click.echo(f"restored {contents_text(staged.contents)}")
    if kept is not None:
        click.echo(f"the previous state is kept in {kept}")
    context.say(_AFTERWARDS)


def _check(context: Context, staged: Staged, state_dir: Path, *, force: bool) -> None:
    """Refuse the backup of another project; without ``force`` also a damaged one, or to replace jobs.

    Raises
    ------
    RefusedError
        The message names what would be replaced.
    """
    from reconciler.actual.restore import present_contents
    from reconciler.desired.state import project_name
    from reconciler.model.lineage import Lineage

    present: Contents | None = None
    try:
        present = present_contents(state_dir)
    except InputError as error:  # the present state cannot be read
        if not force:
            raise RefusedError(error.message, hint=_USE_FORCE) from error
    saved = staged.contents.lineage
    known = present.lineage if present is not None else None
    if known is None:
        with suppress(ReconcilerError):  # no repository here
            source = context.source(fetch=False)
            known = Lineage(project_name(source, source.revision()), source.root_commits())
    if saved is not None and known is not None and not saved.is_same(known):
        raise RefusedError(
            f"the backup is of {saved.shown()}, not of {known.shown()}",
            hint="restore it to a separate state directory: --state-dir",
        )
    if force:
        return
    problems = [f"{problem.subject}: {problem.message}" for problem in staged.report.problems]
    if problems:
        raise RefusedError(
            f"the backup has {many(len(problems), 'problem')}: {some(problems, 3)}",
            hint="use another backup; or add --force, then run `reconcile fsck --repair`",
        )
    if present is not None and present.jobs:
        raise RefusedError(f"the state in {state_dir} has jobs: {contents_text(present)}", hint=_USE_FORCE)
