"""``reconcile watch``: the daemon."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path

import click

from reconciler.cli.context import Context, opened
from reconciler.cli.options import global_options
from reconciler.errors import ExitCode, ReconcilerError


@click.command(
    name="watch", help="Run as a daemon: reconcile on every commit and whenever a job changes state."
)
@click.option(
    "--interval", type=click.FloatRange(min=1), metavar="SECONDS",
    help="How often to check the repository.  [default: 60 if remote; a local one is watched]",
)  # fmt: skip
@click.option("--standby", is_flag=True, help="If another process holds the lease, wait for it.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Format of the log.")
@click.option(
    "--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Write the log here, not to stderr."
)
@global_options
def command(
    context: Context, *, interval: float | None, standby: bool, log_format: str, log_file: Path | None
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
    state_dir = context.state_dir()
    require_local(state_dir)  # first: taking the lease may hang on a network file system
    with Lease(state_dir) as lease:
        if acquire_lease(lease, signals, manager, standby=standby):
            with opened(state_dir, lambda line: log_event("migrating", line), leased=True) as store:
                from reconciler.desired.source.command import is_remote
                from reconciler.watch.source_thread import SourceSettings

                with store.read() as view:
                    known = view.lineage()
                root = None
                with suppress(ReconcilerError):  # a source that cannot be read now is checked later
                    root = context.source(fetch=False).root_commit() if known is not None else None
                if known is not None and root is not None:
                    store.check_lineage(known["project"], root)
                settings = SourceSettings(
                    open_source=lambda fetch: context.source(fetch=fetch),
                    is_remote=is_remote(context.options.repo),
                    interval=interval,
                )
                Daemon(settings, store, LogReporter(context), signals, manager).run()
    sys.exit(ExitCode.INTERRUPTED if signals.number == signal.SIGINT else ExitCode.OK)
