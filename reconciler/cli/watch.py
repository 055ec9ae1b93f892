"""``reconcile watch``: the daemon."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.context import Context, opened
from reconciler.cli.options import Duration, global_options
from reconciler.errors import ExitCode, ReconcilerError, RefusedError

if TYPE_CHECKING:  # imported when used: shell completion runs this module at each press of the tab key
    from reconciler.actual.store import Store


@click.command(
    name="watch", help="Run as a daemon: reconcile on every commit and whenever a job changes state."
)
@click.option(
    "--interval", type=Duration(1), metavar="DURATION",
    help="How often to check the repository.  [default: 60 if remote; a local one is watched]",
)  # fmt: skip
@click.option("--standby", is_flag=True, help="If another process holds the lease, wait for it.")
@click.option("--follow", is_flag=True, help="Follow --branch, or the checked-out branch, from now on.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Format of the log.")
@click.option(
    "--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Write the log here, not to stderr."
)
@global_options
def command(
    context: Context,
    *,
    interval: float | None,
    standby: bool,
    follow: bool,
    log_format: str,
    log_file: Path | None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    from reconciler.actual.state_dir import Lease, require_local
    from reconciler.cli.views.log_reporter import LogReporter, start_log
    from reconciler.watch.daemon import Daemon, acquire_lease
    from reconciler.watch.log import log_event
    from reconciler.watch.signals import Signals
    from reconciler.watch.systemd import ServiceManager

    start_log(log_format, log_file, verbose=context.options.verbose, quiet=context.options.quiet)
    signals, manager = Signals(), ServiceManager.of_this_process()
    signals.listen()
    state_dir = context.own_state_dir()
    require_local(state_dir)  # first: taking the lease may hang on a network file system
    with Lease(state_dir) as lease:
        if acquire_lease(lease, signals, manager, standby=standby):
            with opened(state_dir, lambda line: log_event("migrating", line), leased=True) as store:
                from reconciler.desired.source.command import is_remote
                from reconciler.watch.source_thread import SourceSettings

                with store.read() as view:
                    known, last = view.lineage(), view.last_revision()
                roots = None
                with suppress(ReconcilerError):  # a source that cannot be read now is checked later
                    roots = context.source(fetch=False).root_commits() if known is not None else None
                if known is not None and roots is not None:
                    path = last.path if last is not None else ""
                    store.check_lineage(known.project, roots, path, record=False)
                settings = SourceSettings(
                    open_source=lambda fetch: context.source(fetch=fetch),
                    is_remote=is_remote(context.options.repo),
                    branch=context.options.branch,
                    interval=interval,
                )
                place = _place(context, _followed(context, store, follow=follow))
                Daemon(settings, store, LogReporter(context), signals, manager, place=place).run()
    sys.exit(ExitCode.INTERRUPTED if signals.number == signal.SIGINT else ExitCode.OK)


def _followed(context: Context, store: Store, *, follow: bool) -> str | None:
    """Return the branch that the daemon follows; with ``follow`` the state moves to it first.

    None if the source cannot be read now, or reads a commit or tag.

    Raises
    ------
    RefusedError
        The state follows another branch than that of ``--branch``.
    """
    from reconciler.jobs.bookkeeping import followed_branch
    from reconciler.loop import Session

    try:
        source = context.source(fetch=follow)
        with store.read() as view:
            followed = followed_branch(view, source)
        if not follow and context.options.branch is None:
            return followed or source.followable()
        decided = Session(source, store, follow=follow).followed()
    except ReconcilerError as error:
        if follow or isinstance(error, RefusedError):
            raise
        return context.options.branch  # checked again before each pass
    if follow:
        store.write(lambda writer: writer.put_followed(decided.branch or ""))
    return decided.branch or context.options.branch


def _place(context: Context, branch: str | None) -> str:
    """Return which branch of which repository the daemon watches, for the log."""
    from reconciler.desired.source.command import is_remote, printable, without_password

    repository = context.options.repo
    if is_remote(repository):
        shown = without_password(repository)
    else:
        shown = str(Path(repository).expanduser().resolve())
    return f"{printable(branch)} of {shown}" if branch else shown
