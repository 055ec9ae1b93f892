"""``reconcile watch``: the daemon."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from reconciler.cli.context import Context, opened
from reconciler.cli.options import global_options
from reconciler.errors import ExitCode


@click.command(name="watch", help="Reconcile for ever: at each commit, and whenever a job has moved.")
@click.option(
    "--interval", type=click.FloatRange(min=1), metavar="SECONDS",
    help="How often to look at the repository.  [default: 60 for a remote one; a local one is watched]",
)  # fmt: skip
@click.option("--standby", is_flag=True, help="If another process holds the lease, wait for it.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of the log.")
@click.option("--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Instead of stderr.")
@global_options
def command(
    context: Context, *, interval: float | None, standby: bool, log_format: str, log_file: Path | None
) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    from reconciler.cli.views.log_text import LogTeller, start_log
    from reconciler.desired.git import is_remote
    from reconciler.watch.daemon import Daemon
    from reconciler.watch.source_thread import Settings

    options = context.options
    start_log(log_format, log_file, verbose=options.verbose, quiet=options.quiet)
    settings = Settings(
        open_source=lambda fetch: context.source(fetch=fetch),
        is_remote=is_remote(options.repo),
        interval=interval,
    )
    with opened(context.state_dir(), context.say) as store:
        number = Daemon(settings, store, LogTeller(context), standby=standby).run()
    sys.exit(ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.OK)
