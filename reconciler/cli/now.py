"""``reconcile now``: let the daemon look at the source at once, and wait for what comes of it."""

from __future__ import annotations

import sys
import time

import click

from reconciler.actual.daemon_requests import Requests
from reconciler.actual.state_dir import Lease
from reconciler.cli.context import Context, user_identity
from reconciler.cli.handover import show_answer, wait_for_answer
from reconciler.cli.options import global_options
from reconciler.errors import ExitCode, InputError, WorldError


@click.command(name="now", help="Let the daemon look at the source at once.")
@click.option("--wait", is_flag=True, help="Wait for the pass that this asks for, and show it.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: how long.")
@click.option("--allow-prune", is_flag=True, help="Let it apply a plan that a guard refuses.")
@global_options
def command(context: Context, *, wait: bool, timeout: float | None, allow_prune: bool) -> None:
    """Ask the daemon of this state."""
    if timeout is not None and not wait:
        raise InputError("--timeout goes with --wait")
    state_dir = context.state_dir()
    lease = Lease(state_dir)
    if not lease.is_watched():
        raise WorldError(
            f"no daemon works on the state in {state_dir}",
            hint="start one with `reconcile watch`, or reconcile yourself: `reconcile --once`",
        )
    requests = Requests(state_dir)
    token = requests.ask(user_identity(context), time.time(), allow_prune=allow_prune)
    if not wait:
        context.say(f"asked {lease.holder() or 'the daemon'}; --wait shows what comes of it")
        return
    answer = wait_for_answer(requests, token, lease, timeout)
    if answer is None:
        context.say(f"no answer within {timeout:g} s; the daemon is busy, or ends")
        sys.exit(ExitCode.NO)
    sys.exit(show_answer(context, answer))
