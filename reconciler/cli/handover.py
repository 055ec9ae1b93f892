"""Asking the daemon that holds the lease for a pass: ``reconcile now``, and ``--once`` beside a daemon."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

import click

from reconciler.actual.daemon_requests import Answer, Requests
from reconciler.actual.state_dir import Lease
from reconciler.cli.context import Context, user_identity
from reconciler.cli.options import Duration, global_options
from reconciler.errors import ExitCode, InputError, RefusedError, WorldError
from reconciler.model.applied import Outcome
from reconciler.model.desired import Revision

if TYPE_CHECKING:  # imported when used: shell completion runs this module at each press of the tab key
    from reconciler.actual.store import Store
    from reconciler.desired.source.git import Source

_POLL = 0.02
"""Seconds between two looks for the answer."""


@click.command(help="Ask the daemon to check the source immediately.")
@click.option("--wait", is_flag=True, help="Wait for the pass and print its result.")
@click.option("--timeout", type=Duration(), metavar="DURATION", help="With --wait: how long.")
@click.option("--allow-prune", is_flag=True, help="Allow the daemon to apply a plan that a guard refuses.")
@global_options
def now(context: Context, *, wait: bool, timeout: float | None, allow_prune: bool) -> None:
    """Ask the daemon of this state for a pass."""
    if timeout is not None and not wait:
        raise InputError("--timeout requires --wait")
    state_dir = context.state_dir()
    lease = Lease(state_dir)
    if not lease.is_watched():
        raise WorldError(
            f"no daemon runs for the state in {state_dir}",
            hint="start one with `reconcile watch`, or reconcile without a daemon: `reconcile --once`",
        )
    requests = Requests(state_dir)
    token = requests.ask(user_identity(context), time.time(), allow_prune=allow_prune)
    if not wait:
        context.say(f"asked {lease.holder() or 'the daemon'}; to see the result, add --wait")
        return
    answer = _wait_for_answer(requests, token, lease, timeout)
    if answer is None:
        context.say(f"no answer within {timeout:g} s; the daemon is busy or stopping")
        sys.exit(ExitCode.NO)
    sys.exit(_show_answer(context, answer))


def pass_by_daemon(
    context: Context,
    store: Store,
    wanted: Revision,
    limit: float | None,
    *,
    allow_prune: bool,
    follow: bool = False,
) -> tuple[int, Outcome, bool]:
    """Have the daemon make the pass over a revision, and print its result.

    With ``follow`` the daemon follows the branch of the revision from now on.

    Returns
    -------
    tuple
        The exit code of the daemon's pass, the status of the store after it, and whether nothing was running
        within ``limit`` seconds (True if ``limit`` is None).

    Raises
    ------
    WorldError
        The daemon ended before it answered, or before the jobs did.
    RefusedError
        The daemon reads another revision.
    """
    from reconciler.jobs.bookkeeping import summarise

    lease = Lease(store.path)
    context.say(f"a daemon uses this state ({lease.holder() or 'holder unknown'}): it makes the pass")
    branch = wanted.branch if follow else ""
    answer = _ask(context, store, lease, wanted, allow_prune=False, follow=branch)
    # Only now: what the daemon reads had to be checked before a guard is switched off.
    if allow_prune and answer.code == ExitCode.REFUSED:
        answer = _ask(context, store, lease, wanted, allow_prune=True, follow=branch)
    code = _show_answer(context, answer)
    refused = code not in (ExitCode.OK, ExitCode.USAGE)  # of an invalid revision the valid part was applied
    settled = limit is None or refused
    deadline = time.monotonic() + (limit or 0)
    while not settled:
        with store.read() as view:
            settled = view.is_idle() and view.next_retry() is None
        if settled or time.monotonic() > deadline:
            break
        if not lease.is_watched():
            raise WorldError("the daemon has ended", hint="start it again, or use `reconcile --once --wait`")
        time.sleep(0.1)
    with store.read() as view:
        config = view.config()
        revision = config.revision if config is not None else ""
        return code, summarise(view, "", revision, (), clean=False), settled


def _ask(
    context: Context, store: Store, lease: Lease, wanted: Revision, *, allow_prune: bool, follow: str
) -> Answer:
    requests = Requests(store.path)
    token = requests.ask(user_identity(context), time.time(), allow_prune=allow_prune, follow=follow)
    answer = _wait_for_answer(requests, token, lease, None)
    assert answer is not None, "no time limit"
    _check_revision(context, store, wanted, answer)
    return answer


def _wait_for_answer(requests: Requests, token: str, lease: Lease, timeout: float | None) -> Answer | None:
    """Return the daemon's answer; None after ``timeout`` seconds, and then the request is withdrawn.

    Raises
    ------
    WorldError
        The daemon ended before it answered.
    """
    deadline = time.monotonic() + timeout if timeout is not None else math.inf
    try:
        while True:
            alive = lease.is_watched()  # checked first: a daemon may answer and end between the two checks
            answer = requests.take_answer(token)
            if answer is not None or time.monotonic() > deadline:
                return answer
            if not alive:
                raise WorldError(
                    "the daemon ended before it answered", hint="start it again, or use `reconcile --once`"
                )
            time.sleep(_POLL)
    finally:
        requests.take_back(token)


def _show_answer(context: Context, answer: Answer) -> int:
    """Print the result of the daemon's pass, and return its exit code."""
    for line in answer.lines:
        click.echo(line)
    if answer.error:
        click.echo(f"error: {answer.error}", err=True)
    if answer.hint:
        click.echo(f"  help: {answer.hint}", err=True)
    if answer.code == ExitCode.USAGE and not answer.error:
        context.say("part of the revision is invalid; for details: reconcile validate")
    return answer.code


def _check_revision(context: Context, store: Store, wanted: Revision, answer: Answer) -> None:
    """Refuse an answer about another revision than the wanted one.

    Accepted are the wanted revision, another revision with the same content, and a later commit of the same
    branch: the branch may have moved between the two reads.

    Raises
    ------
    RefusedError
        The daemon reads another branch, folder or repository.
    """
    from reconciler.actual.store import content_of

    branch, _, commit = answer.revision.rpartition("@")
    if not commit:  # the daemon could not read its source, and its answer says so
        return
    path, tree = wanted.path, ""
    if answer.code in (ExitCode.OK, ExitCode.USAGE):  # it was applied, so the store knows its content
        with store.read() as view:
            outcome = view.outcome()
        path, tree = content_of(outcome) if outcome is not None else (path, tree)
    if (path, tree) == (wanted.path, wanted.tree):
        return
    if path != wanted.path:
        raise _other_revision(
            _with_folder(answer.revision, path),
            _with_folder(str(wanted), wanted.path),
            "restart the daemon with this --path; ",
        )
    if wanted.commit.startswith(commit):
        return
    source = context.source()  # read again: by now it has what the daemon has fetched from a remote
    if branch != wanted.branch or not _has_moved(source, wanted, commit):
        raise _other_revision(answer.revision, str(wanted), _remedy(source, wanted, branch, commit))


def _has_moved(source: Source, wanted: Revision, commit: str) -> bool:
    """Return whether the branch has moved to a commit since it was read: forward, or by a force-push."""
    now = source.revision()
    if now.branch == wanted.branch and now.commit.startswith(commit):
        return True
    return wanted.branch != "HEAD" and source.knows(commit) and source.follows(commit, wanted.commit)


def _remedy(source: Source, wanted: Revision, branch: str, commit: str) -> str:
    """Return what makes the daemon apply the wanted revision."""
    if not source.knows(commit):
        return f"this repository does not have {branch}@{commit}: `git pull`, then push your commit; "
    if branch == wanted.branch:
        return "push it to the repository that the daemon reads; "
    if source.follows(commit, wanted.commit):
        return f"{branch} contains it and newer commits; to go back, revert them there; "
    return f"merge it into {branch}, or move the daemon to {wanted.branch} with --follow; "


def _with_folder(revision: str, path: str) -> str:
    return f"{revision} in {path}/" if path else f"{revision} without --path"


def _other_revision(daemons: str, wanted: str, remedy: str) -> RefusedError:
    return RefusedError(
        f"refused: the daemon reads {daemons}, so {wanted} was not applied",
        hint=f"{remedy}or stop the daemon first, or use a separate state with --state-dir",
    )
