"""``reconcile --once``: one pass, and with --wait on until nothing is running."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from reconciler.actual.state_dir import Lease
from reconciler.actual.unchanged import is_settled, unchanged_outcome
from reconciler.cli.context import Context, opened
from reconciler.cli.views.words import coming_text, many, some
from reconciler.errors import ExitCode, InputError
from reconciler.model.records import Outcome

if TYPE_CHECKING:
    from reconciler.actual.store import Store
    from reconciler.loop import Session
    from reconciler.model.desired import Revision


def run(
    context: Context,
    *,
    once: bool,
    wait: bool,
    timeout: float | None,
    dry_run: bool,
    allow_prune: bool,
) -> int:
    """Run the pass and return the exit code."""
    if timeout is not None and not wait:
        raise InputError("--timeout goes with --wait")
    if dry_run:
        from reconciler.cli.plan import show_plan

        return show_plan(context, exit_code=False, allow_prune=allow_prune)
    source = context.source()
    revision = source.revision()
    context.notice_uncommitted(source)
    limit = (math.inf if timeout is None else timeout) if wait else None
    with opened(context.state_dir(source, revision), context.say) as store:
        outcome = unchanged_outcome(store, revision, time.time())
        if outcome is None or not is_settled(outcome, wait=wait):
            lease = Lease(store.path)
            if lease.is_watched():
                return _by_the_daemon(context, store, lease, revision, limit, allow_prune=allow_prune)
            from reconciler.loop import Session

            return reconcile_pass(context, Session(source, store, revision), limit, allow_prune=allow_prune)
    if outcome.warnings:
        from reconciler.cli.views.terminal_reporter import show_diagnostics

        show_diagnostics(context, outcome.warnings)
    context.detail("0 files parsed")
    click.echo(f"{revision}: nothing to do")
    click.echo(_standing(context, outcome))
    return ExitCode.NO if wait and outcome.degraded else ExitCode.OK


def _by_the_daemon(
    context: Context,
    store: Store,
    lease: Lease,
    revision: Revision,
    limit: float | None,
    *,
    allow_prune: bool,
) -> int:
    from reconciler.cli.handover import current_outcome, hand_over, wait_until_idle

    code = hand_over(context, store, lease, revision, allow_prune=allow_prune)
    refused = code not in (ExitCode.OK, ExitCode.USAGE)  # the valid part of an invalid revision was applied
    settled = limit is None or refused or wait_until_idle(store, lease, limit)
    outcome = current_outcome(store)
    click.echo(_standing(context, outcome))
    if code != ExitCode.OK:
        return code
    return ExitCode.NO if not settled or (limit is not None and outcome.degraded) else ExitCode.OK


def reconcile_pass(
    context: Context,
    session: Session,
    limit: float | None,
    *,
    allow_prune: bool,
    check: Callable[[], None] | None = None,
) -> int:
    """Do what there is to do, unless ``check`` objects, and show how things stand; return the exit code.

    ``limit`` is for how many seconds to wait for the jobs. What all that takes is imported only here: see
    the test of the no-op.
    """
    from reconciler.cli.views.terminal_reporter import TerminalReporter
    from reconciler.loop import reconcile_once

    with TerminalReporter(context) as reporter:
        done = reconcile_once(session, reporter, allow_prune=allow_prune, wait=limit, check=check)
    if done.plan is None and check is not None:
        click.echo(f"{session.revision}: nothing to do")
    context.detail(f"{many(session.parsed_files, 'file')} parsed")
    click.echo(_standing(context, done.outcome))
    if done.timed_out:
        context.say(f"timed out after {limit:g} s; the jobs run on, `reconcile --once` takes them in")
    if done.plan is not None and done.plan.has_errors:
        return ExitCode.USAGE
    degraded = limit is not None and done.outcome.degraded
    return ExitCode.NO if done.timed_out or degraded else ExitCode.OK


def _standing(context: Context, outcome: Outcome) -> str:
    flows = f"{many(outcome.flows, 'flow')}, {many(outcome.jobs, 'job')}"
    if outcome.degraded:
        text = context.style(f"Degraded: {some(outcome.degraded, 5)}", fg="red")
        return f"{flows}; {text}; see `reconcile describe flow {outcome.degraded[0]}`"
    if outcome.idle and outcome.retry_at is not None:
        return f"{flows}; nothing is running; next retry {coming_text(outcome.retry_at, time.time())}"
    if outcome.idle:
        return f"{flows}; nothing is running"
    return f"{flows}; jobs are running: `reconcile --once --wait`, or `reconcile get jobs`"
