"""Jobs that were history and are wanted again: a commit was reverted, or a flow came back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reconciler.actual.view import View
from reconciler.execution.transitions import deferred
from reconciler.model.actions import JobPlan
from reconciler.model.records import Change, JobRecord
from reconciler.model.states import ACTIVE, KEPT, JobState


def revived(
    view: View,
    old: JobRecord,
    plan: JobPlan,
    changes: Sequence[Change],
    revision: str,
    code: Sequence[str],
    now: float,
) -> JobRecord:
    """Return the record of a job that has a place again: what came of it is kept, anything else starts anew.

    One that has not stopped yet goes on; like any other on its way it waits for a new run config. It may have
    been killed already: then it runs again. ``changes`` are those of its run config, ``code`` are the trees
    that it runs with if it starts anew.
    """
    back = msgspec.structs.replace(
        old, current=True, cancel=None, own=plan.own, key=plan.job.key, name=plan.job.name, error=None,
        cause=None, updated=now, parents=[*plan.job.parents, *_detours(view, old, plan.job.parents)],
    )  # fmt: skip
    if old.state in ACTIVE:
        doubtful = msgspec.structs.replace(back, again=old.cancel is not None)
        if old.config.same_values(plan.config):
            return doubtful
        return deferred(doubtful, plan.config, changes, revision)
    if old.state in KEPT:
        return msgspec.structs.replace(back, config=plan.config)
    return msgspec.structs.replace(
        back, state=JobState.WAITING, config=plan.config, code=list(code), files=plan.job.files, stuck=None,
        missing_since=None, retried=[],
    )  # fmt: skip


def _detours(view: View, old: JobRecord, parents: Sequence[str]) -> list[str]:
    """Return what it had to wait for besides, since a job that it needs generated that."""
    more = (parent for parent in old.parents if parent not in parents)
    return [parent for parent in more if any(job.generated_by for job in view.generations(parent))]
