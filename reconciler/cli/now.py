"""``reconcile now``: let the daemon look at the source at once, and wait for what comes of it."""

from __future__ import annotations

import sys
import time

import click

from reconciler.actual.requests import Answer, Requests
from reconciler.actual.state_dir import Lease
from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.who import who
from reconciler.errors import ExitCode, InputError, WorldError

_GLANCE = 0.02
"""Seconds between two looks for the answer."""


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
    token = requests.ask(who(context), time.time(), allow_prune=allow_prune)
    if not wait:
        context.say(f"asked {lease.holder() or 'the daemon'}; --wait shows what comes of it")
        return
    answer = wait_for_answer(requests, token, lease, timeout)
    sys.exit(show_answer(context, answer) if answer is not None else ExitCode.NO)


def wait_for_answer(requests: Requests, token: str, lease: Lease, timeout: float | None) -> Answer | None:
    """Return the daemon's answer to a request; None if it was too slow: then the request is taken back.

    Raises
    ------
    WorldError
        The daemon ended before it answered.
    """
    deadline = time.monotonic() + timeout if timeout is not None else None
    while True:
        alive = lease.is_watched()  # asked before, since the last deed of a daemon may be the answer
        answer = requests.take_answer(token)
        if answer is not None:
            return answer
        if not alive:
            requests.take_back(token)
            raise WorldError(
                "the daemon ended before it answered", hint="start it again, or use `reconcile --once`"
            )
        if deadline is not None and time.monotonic() > deadline:
            requests.take_back(token)
            return None
        time.sleep(_GLANCE)


def show_answer(context: Context, answer: Answer) -> int:
    """Show what a pass of the daemon did; return its exit code."""
    for line in answer.lines:
        click.echo(line)
    if answer.error:
        click.echo(f"error: {answer.error}", err=True)
    if answer.hint:
        click.echo(f"  help: {answer.hint}", err=True)
    if answer.code == ExitCode.USAGE and not answer.error:
        context.say("a part of the revision is invalid: `reconcile validate` says what")
    return answer.code
