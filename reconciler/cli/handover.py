"""Handing a pass over to the daemon that holds the lease, and showing what it did."""

from __future__ import annotations

import math
import time

import click

from reconciler.actual.daemon_requests import Answer, Requests
from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from reconciler.actual.unchanged import content_of
from reconciler.cli.context import Context, user_identity
from reconciler.desired.source.git import Source
from reconciler.errors import ExitCode, RefusedError, WorldError
from reconciler.model.desired import Revision
from reconciler.model.records import Outcome
from reconciler.model.states import ACTIVE, JobState

# Letting the daemon that works on a state do what was asked of this process, and showing what it did.


_GLANCE = 0.02
"""Seconds between two looks for the answer."""


def hand_over(context: Context, store: Store, lease: Lease, meant: Revision, *, allow_prune: bool) -> int:
    """Let the daemon make the pass over what was meant, and show what came of it; return the exit code.

    ``allow_prune`` is said only after a guard has refused: not before it is known what the daemon reads.

    Raises
    ------
    WorldError
        The daemon ended before it answered.
    RefusedError
        The daemon reads another revision.
    """
    context.say(f"a daemon works on this state ({lease.holder() or 'it says no more'}): it makes the pass")
    answer = _asked(context, store, lease, allow_prune=False)
    check_revision(context, store, meant, answer)
    if allow_prune and answer.code == ExitCode.REFUSED:
        answer = _asked(context, store, lease, allow_prune=True)
        check_revision(context, store, meant, answer)
    return show_answer(context, answer)


def _asked(context: Context, store: Store, lease: Lease, *, allow_prune: bool) -> Answer:
    requests = Requests(store.path)
    token = requests.ask(user_identity(context), time.time(), allow_prune=allow_prune)
    answer = wait_for_answer(requests, token, lease, None)
    assert answer is not None
    return answer


def wait_for_answer(requests: Requests, token: str, lease: Lease, timeout: float | None) -> Answer | None:
    """Return the daemon's answer to a request; None if it was too slow: then the request is taken back.

    Raises
    ------
    WorldError
        The daemon ended before it answered.
    """
    deadline = time.monotonic() + timeout if timeout is not None else math.inf
    try:
        while True:
            alive = lease.is_watched()  # asked before, since the last deed of a daemon may be the answer
            answer = requests.take_answer(token)
            if answer is not None or time.monotonic() > deadline:
                return answer
            if not alive:
                raise WorldError(
                    "the daemon ended before it answered", hint="start it again, or use `reconcile --once`"
                )
            time.sleep(_GLANCE)
    finally:
        requests.take_back(token)


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


def wait_until_idle(store: Store, lease: Lease, limit: float) -> bool:
    """Wait while the daemon lets jobs run; return False if that took longer than ``limit`` seconds.

    Raises
    ------
    WorldError
        The daemon has ended.
    """
    deadline = time.monotonic() + limit
    while not _is_idle(store):
        if time.monotonic() > deadline:
            return False
        if not lease.is_watched():
            raise WorldError("the daemon has ended", hint="start it again, or use `reconcile --once --wait`")
        time.sleep(0.1)
    return True


def _is_idle(store: Store) -> bool:
    with store.read() as view:
        return not view.any_in_state((*ACTIVE, JobState.READY)) and view.next_retry() is None


def current_outcome(store: Store) -> Outcome:
    """Return how things stand, as the daemon has left them."""
    from reconciler.jobs.applied import summarise

    with store.read() as view:
        config = view.config()
        return summarise(view, "", config.revision if config is not None else "", (), clean=False)


# Whether what a daemon reads is what the user meant who let it make the pass.


def check_revision(context: Context, store: Store, meant: Revision, answer: Answer) -> None:
    """Refuse an answer about another revision than the one that was meant.

    As good as that one are its content, wherever it comes from, and a later commit of the same branch.

    Raises
    ------
    RefusedError
        The daemon reads another branch, folder or repository.
    """
    branch, _, commit = answer.revision.rpartition("@")
    if not commit:  # it could not read its source, and says so
        return
    path, tree = _applied(store, answer) or (meant.path, "")
    if (path, tree) == (meant.path, meant.tree):
        return
    if path != meant.path:
        raise _other(
            _named(answer.revision, path), _named(str(meant), meant.path), "start it with the other --path; "
        )
    if meant.commit.startswith(commit):
        return
    source = context.source()  # as it is by now: a remote one has what the daemon has fetched meanwhile
    if branch != meant.branch or not _has_moved(source, meant, commit):
        raise _other(answer.revision, str(meant), _way(source, meant, branch, commit))


def _applied(store: Store, answer: Answer) -> tuple[str, str] | None:
    """Return folder and tree that the daemon has applied; None if it has not, so that nobody knows."""
    if answer.code not in (ExitCode.OK, ExitCode.USAGE):
        return None
    with store.read() as view:
        outcome = view.outcome()
    return content_of(outcome) if outcome is not None else None


def _has_moved(source: Source, meant: Revision, commit: str) -> bool:
    """Whether the branch went on to a commit after it was read: by a commit, or by a force-push."""
    now = source.revision()
    if now.branch == meant.branch and now.commit.startswith(commit):
        return True
    return meant.branch != "HEAD" and source.knows(commit) and source.follows(commit, meant.commit)


def _way(source: Source, meant: Revision, branch: str, commit: str) -> str:
    """Return what makes the daemon apply what was meant."""
    if not source.knows(commit):
        return f"this repository does not have {branch}@{commit}: `git pull`, and push yours; "
    if branch == meant.branch:
        return "push it to where the daemon reads; "
    if source.follows(commit, meant.commit):
        return f"{branch} has it, and goes on: to go back, revert there; "
    return f"merge it into {branch}; "


def _named(revision: str, path: str) -> str:
    return f"{revision} in {path}/" if path else f"{revision} without --path"


def _other(daemons: str, meant: str, way: str) -> RefusedError:
    return RefusedError(
        f"refused: the daemon works on {daemons}, so {meant} was not applied",
        hint=f"{way}or end the daemon first, or give a state of its own with --state-dir",
    )
