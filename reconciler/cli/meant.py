"""Whether what a daemon reads is what somebody meant who let it make the pass."""

from __future__ import annotations

from reconciler.actual.requests import Answer
from reconciler.actual.store import Store
from reconciler.actual.unchanged import content_of
from reconciler.cli.context import Context
from reconciler.desired.git import Source
from reconciler.errors import ExitCode, RefusedError
from reconciler.model.desired import Revision


def require_meant(context: Context, store: Store, meant: Revision, answer: Answer) -> None:
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
