"""An edit of one manifest file: simulated on the real state, shown as a plan, committed, pushed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import click
import msgspec

from reconciler.actual.store import Store
from reconciler.cli.context import Context, opened
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
from reconciler.jobs.bookkeeping import followed_branch
from reconciler.loop import Session
from reconciler.model.actions import Action, Plan, Subject
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState, Revision
from reconciler.plan.cost import plan_cost
from reconciler.plan.planner import make_plan


class RevisionPlan(msgspec.Struct):
    """A revision: its desired state, the actual state, and the plan between them."""

    revision: Revision
    loaded: Loaded
    actual: ActualState
    plan: Plan

    @property
    def desired(self) -> DesiredState:
        """The desired state of the revision."""
        return self.loaded.state


class SimulatedEdit(msgspec.Struct):
    """HEAD with an edit, as a commit on no branch. ``new_problems`` are those that HEAD does not have."""

    edit: FileEdit
    result: RevisionPlan
    new_problems: list[Diagnostic]


class Publishing(msgspec.Struct, frozen=True):
    """What to do with a valid edit. ``message`` is the commit message."""

    message: str
    push: bool
    dry_run: bool


class EditSession:
    """HEAD of the checked-out branch: simulates edits of its files, and commits them."""

    def __init__(self, context: Context, source: Source, store: Store) -> None:
        self.context = context
        self.source = source
        self.store = store
        self.tree = WorkTree(source)
        self.head = self._plan(source.revision())

    def _plan(self, revision: Revision) -> RevisionPlan:
        session = Session(self.source, self.store, revision)
        loaded = session.load()
        actual = session.actual(loaded.state)
        return RevisionPlan(revision, loaded, actual, make_plan(loaded.state, actual))

    def read(self, file: str) -> bytes | None:
        """Return the content of a file in HEAD. Raises RefusedError if the file on disk differs."""
        return self.tree.read(self.head.revision, file)

    def simulate(self, file: str, before: bytes | None, after: str) -> SimulatedEdit:
        """Plan with a new content of a file; writes nothing but loose git objects."""
        edit = FileEdit(file, before, after.encode())
        commit = self.tree.simulate(self.head.revision, edit)
        result = self._plan(self.source.revision(commit))
        return SimulatedEdit(edit, result, _new_problems(self.head.plan.diagnostics, result.plan.diagnostics))

    def carry_out(self, simulated: SimulatedEdit, publishing: Publishing) -> None:
        """Print the plan of an edit, and commit it. With ``dry_run`` only print the diff of the file.

        Raises
        ------
        InputError
            The edit adds errors to those of HEAD, or there is no upstream to push to.
        RefusedError
            The branch or the file has changed in the meantime.
        WorldError
            The commit failed, and the file is unchanged; or the push failed, and the commit stays.
        """
        file = simulated.edit.file
        errors = sum(1 for problem in simulated.new_problems if problem.is_error)
        if errors or publishing.dry_run:
            show_diagnostics(self.context, simulated.new_problems)
        if errors:
            raise InputError(f"nothing was written: {file} would have {many(errors, 'new error')}")
        if publishing.dry_run:
            base, commit = self.head.revision.commit, simulated.result.revision.commit
            click.echo(self.tree.diff(base, commit, file), nl=False)
            return
        upstream = self.tree.upstream() if publishing.push else None
        print_planned(self.context, self._planned(simulated))
        made = self.tree.commit(self.head.revision, simulated.edit, publishing.message)
        summary = publishing.message.partition("\n")[0]
        line = f"committed {self.tree.branch}@{made[:7]}: {summary}  ({file})"
        if self.context.options.output in ("table", "wide"):
            click.echo(line)
        else:
            self.context.say(line)
        if self.tree.blob(made, file) != self.tree.blob(simulated.result.revision.commit, file):
            self.context.say(f"note: a hook changed {file}, so run `reconcile plan` again")
        if upstream is not None:
            self._push(upstream, made)
        else:
            with self.store.read() as view:
                followed = followed_branch(view, self.tree.source)
            if followed is not None and followed != self.tree.branch:
                self.context.say(
                    f"note: this state follows {followed}; merge {self.tree.branch} into it to apply this"
                )
            else:
                self.context.say("apply it with: reconcile --once")

    def nothing_to_change(self, reason: str, publishing: Publishing) -> None:
        """Say that HEAD has the value already; with --push, push it: an earlier push may have failed."""
        self.context.say(f"nothing to change: {reason}")
        if publishing.push and not publishing.dry_run:
            self._push(self.tree.upstream(), self.head.revision.commit)

    def _push(self, upstream: Upstream, commit: str) -> None:
        try:
            self.tree.push(upstream)
        except ReconcilerError as error:
            raise WorldError(
                f"{self.tree.branch}@{commit[:7]} is committed, but not pushed: {error.message}",
                hint="the commit stays; `git pull --rebase` if the remote is ahead, then repeat this command",
            ) from error
        self.context.say(f"pushed {self.tree.branch} to {upstream}")

    def _planned(self, simulated: SimulatedEdit) -> Planned:
        """Return what the edit adds to the plan of HEAD, which may not be applied yet; notes tell the rest.

        It has the name of HEAD: the id of a simulated commit means nothing to the user.
        """
        with self.store.read() as view:
            config = view.config()
        result, head = simulated.result, self.head
        known = _by_subject(head.plan.actions)
        actions = [one for one in result.plan.actions if one not in known[one.subject, one.key]]
        plan = msgspec.structs.replace(
            result.plan, actions=tuple(actions), diagnostics=tuple(simulated.new_problems),
            revision=f"{head.revision} with this change",
        )  # fmt: skip
        notes = []
        if pending := len(result.plan.effective) - len(plan.effective):
            notes.append(
                f"{head.revision} is not applied yet; this leaves out "
                f"{many(pending, 'change')} of its own: see `reconcile plan`"
            )
        wanted = _by_subject(result.plan.actions)
        if gone := [one.key for one in head.plan.effective if not wanted[one.subject, one.key]]:
            some = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
            notes.append(f"of the changes of {head.revision}, this takes back {len(gone)}: {some}")
        workers = config.workers if config is not None else {}
        cost = plan_cost(plan, result.desired, result.actual.jobs, workers)
        return Planned(result.desired.project_name, plan, cost, tuple(notes))


def _by_subject(actions: Iterable[Action]) -> defaultdict[tuple[Subject, str], list[Action]]:
    found = defaultdict(list)
    for action in actions:
        found[action.subject, action.key].append(action)
    return found


@contextmanager
def edit_session(context: Context) -> Iterator[EditSession]:
    """Open the source and the store of this run for edits."""
    source = context.source(fetch=False)
    WorkTree(source)  # refuses a source that cannot be committed to, before anything else
    context.notice_uncommitted(source)
    with opened(context.state_dir(source)) as store:
        yield EditSession(context, source, store)


def decoded(content: bytes | None) -> str:
    """Return the text of a file. Raises EditError if it is not UTF-8."""
    try:
        return (content or b"").decode()
    except UnicodeDecodeError as error:
        raise EditError("it is not UTF-8") from error


def _new_problems(old: Sequence[Diagnostic], new: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Return the new problems; one that only moved to another line is not new."""
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
