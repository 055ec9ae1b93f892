"""One pass on this machine: ``reconcile --once`` plans and applies, ``reconcile apply`` a saved plan."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from reconciler.actual.state_dir import Lease
from reconciler.actual.store import is_settled, unchanged_outcome
from reconciler.cli.context import Context, opened
from reconciler.cli.options import Duration, global_options
from reconciler.cli.views.words import coming_text, many, some
from reconciler.errors import ExitCode, InputError
from reconciler.model.applied import Outcome

if TYPE_CHECKING:
    from reconciler.actual.store import Store
    from reconciler.desired.source.git import Source
    from reconciler.loop import Session


def run(
    context: Context,
    *,
    once: bool,
    wait: bool,
    timeout: float | None,
    dry_run: bool,
    allow_prune: bool,
    follow: bool,
    adopt: bool,
) -> int:
    """Run ``reconcile --once`` or ``--dry-run``, and return the exit code.

    Nothing heavy is imported when there is nothing to do: tests/cli/test_noop.py guards this.
    """
    limit = _time_limit(wait, timeout)
    if dry_run:
        from reconciler.cli.plan import show_plan

        return show_plan(context, exit_code=False, allow_prune=allow_prune, follow=follow, adopt=adopt)
    source = context.source()
    revision = source.revision()
    context.notice_uncommitted(source)
    with opened(context.own_state_dir(source, revision), context.say) as store:
        is_watched = Lease(store.path).is_watched()
        if not is_watched or follow:  # a daemon decides by itself what it reads
            _check_followed(source, store, follow=follow)
        outcome = None if follow or adopt else unchanged_outcome(store, revision, time.time())
        if outcome is None or not is_settled(outcome, wait=wait):
            if is_watched:
                from reconciler.cli.handover import pass_by_daemon

                code, outcome, settled = pass_by_daemon(
                    context, store, revision, limit, allow_prune=allow_prune, follow=follow
                )
                click.echo(_status_line(context, outcome))
                if code != ExitCode.OK:
                    return code
                return ExitCode.NO if not settled or (wait and outcome.degraded) else ExitCode.OK
            from reconciler.loop import Session

            session = Session(source, store, revision, follow=follow, adopt=adopt)
            return _reconcile(context, session, limit, allow_prune=allow_prune)
    if outcome.warnings:
        from reconciler.cli.views.terminal_reporter import show_diagnostics

        show_diagnostics(context, outcome.warnings)
    context.detail("0 files parsed")
    click.echo(f"{revision}: no changes")
    click.echo(_status_line(context, outcome))
    return ExitCode.NO if wait and outcome.degraded else ExitCode.OK


@click.command(help="Apply a plan that `reconcile plan --out` saved, unless it is stale.")
@click.argument("file", metavar="PLAN", required=False)
@click.option("--wait", is_flag=True, help="Continue until nothing is running.")
@click.option("--timeout", type=Duration(), metavar="DURATION", help="With --wait: how long.")
@click.option("--follow", is_flag=True, help="Follow the branch of the plan from now on.")
@global_options
def apply(context: Context, file: str | None, *, wait: bool, timeout: float | None, follow: bool) -> None:
    """Apply exactly the plan of a file. If it is stale or for another repository, change nothing."""
    limit = _time_limit(wait, timeout)
    if file is None:
        raise InputError(
            "name the plan to apply",
            hint="save one with `reconcile plan --out FILE`; to apply what is committed: reconcile --once",
        )
    from reconciler.cli.saved_plan import check_holds, check_source, read
    from reconciler.loop import Session

    saved = read(Path(file).expanduser())
    if context.options.branch not in (None, saved.branch):
        raise InputError(
            f"the plan is for branch {saved.branch}, not {context.options.branch}", hint="omit --branch"
        )
    source = context.source()
    source.branch, source.path = None if saved.branch == "HEAD" else saved.branch, saved.path
    check_source(saved, source)
    with opened(context.own_state_dir(source, saved.revision), context.say) as store:
        revision = msgspec.structs.replace(saved.revision, policy=source.policy.digest)
        session = Session(source, store, revision, follow=follow)
        code = _reconcile(
            context, session, limit, allow_prune=saved.allow_prune, check=lambda: check_holds(saved, session)
        )
    sys.exit(code)


def _check_followed(source: Source, store: Store, *, follow: bool) -> None:
    """Refuse early to apply another branch than the one that the state follows.

    The pass checks it again under the lease. Here the check only serves a pass that has nothing to do.
    """
    with store.read() as view:
        recorded = view.followed()
    if recorded and (follow or source.branch_name() != recorded):
        from reconciler.loop import Session

        Session(source, store, follow=follow).followed()


def _time_limit(wait: bool, timeout: float | None) -> float | None:
    """Return for how many seconds to wait for the jobs; None without ``--wait``."""
    if timeout is not None and not wait:
        raise InputError("--timeout requires --wait")
    return (math.inf if timeout is None else timeout) if wait else None


def _reconcile(
    context: Context,
    session: Session,
    limit: float | None,
    *,
    allow_prune: bool,
    check: Callable[[], None] | None = None,
) -> int:
    """Make a pass, print the status after it, and return the exit code.

    ``limit`` is for how many seconds to wait for the jobs; ``check`` raises if nothing must be applied.
    """
    from reconciler.cli.views.terminal_reporter import TerminalReporter
    from reconciler.loop import reconcile_once

    with TerminalReporter(context) as reporter:
        done = reconcile_once(session, reporter, allow_prune=allow_prune, wait=limit, check=check)
    if done.plan is None and check is not None:
        click.echo(f"{session.revision}: no changes")
    context.detail(f"{many(session.parsed_files, 'file')} parsed")
    click.echo(_status_line(context, done.outcome))
    if done.timed_out:
        context.say(f"timed out after {limit:g} s; jobs keep running, `reconcile --once` picks them up")
    if done.plan is not None and done.plan.has_errors:
        return ExitCode.USAGE
    degraded = limit is not None and done.outcome.degraded
    return ExitCode.NO if done.timed_out or degraded else ExitCode.OK


def _status_line(context: Context, outcome: Outcome) -> str:
    flows = f"{many(outcome.flows, 'flow')}, {many(outcome.jobs, 'job')}"
    if outcome.degraded:
        text = context.style(f"Degraded: {some(outcome.degraded, 5)}", fg="red")
        return f"{flows}; {text}; see `reconcile describe flow {outcome.degraded[0]}`"
    if outcome.idle and outcome.retry_at is not None:
        return f"{flows}; nothing is running; next retry {coming_text(outcome.retry_at, time.time())}"
    if outcome.idle:
        return f"{flows}; nothing is running"
    return f"{flows}; jobs are running: `reconcile --once --wait`, or `reconcile get jobs`"
