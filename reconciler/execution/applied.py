"""What goes down in history of a revision that was applied."""

from __future__ import annotations

from collections import Counter

from reconciler.actual.writer import Writer
from reconciler.desired.history import CommitInfo
from reconciler.model.actions import Plan, Subject
from reconciler.model.desired import Revision
from reconciler.model.records import AppliedRevision, FlowActions


def note_revision(
    writer: Writer, revision: Revision, commit: CommitInfo | None, plan: Plan, now: float
) -> None:
    """Append a revision that was just applied; not if it was the last one already and nothing changed."""
    new = applied_revision(revision, commit, plan, now)
    last = writer.last_revision()
    if new.flows or last is None or _facts(new) != _facts(last):
        writer.add_revision(new)


def _facts(applied: AppliedRevision) -> tuple[object, ...]:
    return (applied.branch, applied.commit, applied.path, applied.errors)


def applied_revision(
    revision: Revision, commit: CommitInfo | None, plan: Plan, now: float
) -> AppliedRevision:
    """Return a revision with what its plan did, and who made it."""
    return AppliedRevision(
        time=now,
        branch=revision.branch,
        commit=revision.commit,
        path=revision.path,
        summary=plan.summary(),
        author=commit.author if commit is not None else None,
        subject=commit.summary if commit is not None else None,
        flows=flow_actions(plan),
        errors=sum(1 for diagnostic in plan.diagnostics if diagnostic.is_error),
    )


def flow_actions(plan: Plan) -> dict[str, FlowActions]:
    """Return what a plan does to each flow that it changes, by name."""
    was = {new: old for old, new in plan.renames.items()}
    actions: dict[str, str] = {}
    jobs: dict[str, Counter[str]] = {}
    for action in plan.effective:
        flow = action.key.partition("/")[0]
        if action.subject is Subject.FLOW:
            actions[flow] = str(action.verb)
        else:
            jobs.setdefault(flow, Counter())[str(action.verb)] += 1
    names = sorted({*actions, *jobs, *was})
    return {
        name: FlowActions(action=actions.get(name), jobs=dict(jobs.get(name, {})), was=was.get(name))
        for name in names
    }
