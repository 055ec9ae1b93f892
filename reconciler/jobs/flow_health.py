"""The health of a flow whose jobs may wait for jobs of other flows. Only reads the store."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from reconciler.actual.view import View
from reconciler.jobs.dependencies import latest
from reconciler.model.goals import waits_in_vain
from reconciler.model.health import FlowStatus, blocked_status, flow_status, way_on
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import Health, JobState
from reconciler.model.summaries import FlowSummary, summary_of


class Block(msgspec.Struct, frozen=True):
    """Why a job waits in vain: the job, or one that it waits for (``job``), needs ``parent``.

    ``fix`` is what a person can do so that ``parent`` continues.
    """

    job: JobRecord
    parent: JobRecord
    fix: str

    def __str__(self) -> str:
        superseded = "" if self.parent.current else " and superseded"
        return f"{self.job.path} needs {self.parent.path}, which is {self.parent.state}{superseded}"


def health_of(view: View, flow: FlowRecord, summary: FlowSummary) -> FlowStatus:
    """Return the health of a flow; ``summary`` is its summary in the view.

    Its jobs are read only if the summary does not know the first one with a failure, other flows only if
    nothing moves in this one.
    """
    status = flow_status(flow, summary if summary.names_troubles else summary_of(view.jobs_of(flow.name)))
    if status.health is not Health.PROGRESSING or summary.moves:
        return status
    block_of = blocks(view)
    waiting = (job for job in view.jobs_of(flow.name) if job.current and job.state is JobState.WAITING)
    block = next(filter(None, map(block_of, waiting)), None)
    return blocked_status(status, str(block), block.parent, block.fix) if block is not None else status


def blocks(view: View) -> Callable[[JobRecord], Block | None]:
    """Return a function that tells why a job waits in vain. It remembers which jobs do not."""
    cleared: set[str] = set()

    def block_of(job: JobRecord) -> Block | None:
        todo = [job]
        while todo:
            one = todo.pop()
            for uuid in one.parents:
                if uuid in cleared:
                    continue
                parent = latest(view, uuid)
                if parent is not None and waits_in_vain(parent, one.on_missing):
                    return Block(one, parent, way_on(parent, view.flow(parent.flow)))
                cleared.add(uuid)
                if parent is not None and parent.state is JobState.WAITING:
                    todo.append(parent)
        return None

    return block_of
