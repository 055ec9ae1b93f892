"""An edit of one manifest file: tried on the real state, shown as a plan, committed, pushed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
import msgspec

from reconciler.actual.store import Store
from reconciler.cli.context import Context, mute_stdout, opened
from reconciler.cli.plan import print_planned
from reconciler.cli.planning import Planned
from reconciler.cli.views.terminal_reporter import show_diagnostics
from reconciler.cli.views.words import many
from reconciler.desired.source.git import Source
from reconciler.desired.source.worktree import FileEdit, Upstream, WorkTree
from reconciler.desired.state import Loaded
from reconciler.desired.yaml.edit import EditError
from reconciler.diagnostics import Diagnostic
from reconciler.errors import InputError, ReconcilerError, WorldError
from reconciler.loop import Session
from reconciler.model.actions import Plan
from reconciler.model.desired import DesiredState, Revision
from reconciler.model.records import ActualState
from reconciler.plan.cost import plan_cost
from reconciler.plan.planner import make_plan


class Outlook(msgspec.Struct):
    """A revision with what it wants, what there is, and what it would change."""

    revision: Revision
    loaded: Loaded
    actual: ActualState
    plan: Plan

    @property
    def desired(self) -> DesiredState:
        """What the revision wants."""
        return self.loaded.state


class Trial(msgspec.Struct):
    """HEAD with an edit, as a commit that no branch knows. ``news`` are problems that HEAD does not have."""

    edit: FileEdit
    outlook: Outlook
    news: list[Diagnostic]


class Publishing(msgspec.Struct, frozen=True):
    """What to do with an edit that is right. ``message`` is that of the commit."""

    message: str
    push: bool
    dry_run: bool


class EditSession:
    """HEAD of the checked-out branch, where edits of its files are tried and carried out."""

    def __init__(self, context: Context, source: Source, store: Store) -> None:
        self.context = context
        self.source = source
        self.store = store
        self.tree = WorkTree(source)
        self.head = self._look(source.revision())

    def _look(self, revision: Revision) -> Outlook:
        session = Session(self.source, self.store, revision)
        loaded = session.load()
        actual = session.actual(loaded.state)
        return Outlook(revision, loaded, actual, make_plan(loaded.state, actual))

    def read(self, file: str) -> bytes | None:
        """Return the content of a file that HEAD has; refused where the disk has another."""
        return self.tree.read(self.head.revision, file)

    def attempt(self, file: str, before: bytes | None, after: str) -> Trial:
        """Return what a new content of a file leads to; nothing is written but loose git objects."""
        edit = FileEdit(file, before, after.encode())
        commit = self.tree.simulate(self.head.revision, edit)
        outlook = self._look(self.source.revision(commit))
        return Trial(edit, outlook, _news(self.head.plan.diagnostics, outlook.plan.diagnostics))

    def carry_out(self, trial: Trial, publishing: Publishing) -> None:
        """Show what an edit leads to, and commit it. With ``dry_run`` only print the diff of the file.

        Raises
        ------
        InputError
            The edit makes something wrong that is right in HEAD, or there is no upstream to push to.
        RefusedError
            The branch or the file has changed meanwhile.
        WorldError
            The commit failed, and the file is as it was; or the push failed, and the commit stays.
        """
        self._check(trial)
        base, commit = self.head.revision.commit, trial.outlook.revision.commit
        if publishing.dry_run:
            show_diagnostics(self.context, trial.news)
            click.echo(self.tree.diff(base, commit, trial.edit.file), nl=False)
            return
        upstream = self.tree.upstream() if publishing.push else None
        self._show(trial.outlook)
        made = self.tree.commit(self.head.revision, trial.edit, publishing.message)
        self._tell(trial, made, publishing.message)
        if upstream is not None:
            self._push(upstream, made)
            self.context.say(f"pushed {self.tree.branch} to {upstream}")
        else:
            self.context.say("apply it with: reconcile --once")

    def _show(self, outlook: Outlook) -> None:
        """Print the plan under a name that means something: its commit is known to nobody."""
        with self.store.read() as view:
            config = view.config()
        desired = outlook.desired
        workers = config.workers if config is not None else {}
        cost = plan_cost(outlook.plan, desired, outlook.actual.jobs, workers)
        plan = msgspec.structs.replace(outlook.plan, revision=f"{self.head.revision} with this change")
        with _also_if_nobody_reads():
            print_planned(self.context, Planned(desired.project_name, plan, cost))

    def _check(self, trial: Trial) -> None:
        errors = sum(1 for problem in trial.news if problem.is_error)
        if errors:
            show_diagnostics(self.context, trial.news)
            raise InputError(
                f"nothing was written: {trial.edit.file} would have {many(errors, 'error')} more"
            )

    def _tell(self, trial: Trial, made: str, message: str) -> None:
        summary = message.partition("\n")[0]
        line = f"committed {self.tree.branch}@{made[:7]}: {summary}  ({trial.edit.file})"
        if self.context.options.output in ("table", "wide"):
            with _also_if_nobody_reads():
                click.echo(line)
        else:
            self.context.say(line)
        file = trial.edit.file
        if self.tree.blob(made, file) != self.tree.blob(trial.outlook.revision.commit, file):
            self.context.say(f"note: a hook changed {file}, so look at `reconcile plan` again")

    def _push(self, upstream: Upstream, made: str) -> None:
        try:
            self.tree.push(upstream)
        except ReconcilerError as error:
            raise WorldError(
                f"{self.tree.branch}@{made[:7]} is committed, but not pushed: {error.message}",
                hint="the commit stays; run `git pull --rebase` if the remote is ahead, then `git push`",
            ) from error


@contextmanager
def _also_if_nobody_reads() -> Iterator[None]:
    """A commit is made, and pushed, although its plan goes to ``| head``."""
    try:
        yield
    except BrokenPipeError:
        mute_stdout()


@contextmanager
def edit_session(context: Context) -> Iterator[EditSession]:
    """Open the source and the store of this run for edits."""
    source = context.source(fetch=False)
    WorkTree(source)  # what cannot be committed to is refused before anything is looked up
    context.notice_uncommitted(source)
    with opened(context.state_dir(source)) as store:
        yield EditSession(context, source, store)


def decoded(content: bytes | None) -> str:
    """Return the text of a file. Raises EditError if it is not UTF-8."""
    try:
        return (content or b"").decode()
    except UnicodeDecodeError as error:
        raise EditError("it is not UTF-8") from error


def _news(old: Sequence[Diagnostic], new: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Return the new problems; one that only stands on another line now is not new."""
    known = Counter(map(_identity, old))
    found = []
    for problem in new:
        known[_identity(problem)] -= 1
        if known[_identity(problem)] < 0:
            found.append(problem)
    return found


def _identity(problem: Diagnostic) -> tuple[object, ...]:
    file = problem.location.file if problem.location is not None else None
    return problem.code, problem.severity, problem.message, file
