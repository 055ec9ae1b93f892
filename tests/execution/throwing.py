"""Raises an unexpected exception for one job or worker at each boundary; run inside of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import reconciler.execution.collect as collect
import reconciler.execution.executor as executor
import reconciler.execution.worker.access as access
from reconciler.build.builder import FlowBuilder
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.upload import UploadBundle
from reconciler.jobs.apply import PlanApplication
from reconciler.plan.flow_plan import FlowPlanner


def throws(owner: Any, name: str, is_bad: Callable[..., bool]) -> None:
    """Let a function raise when its arguments are of the bad object."""
    original = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if is_bad(*args, **kwargs):
            raise KeyError(f"odd {name.strip('_')}")
        return original(*args, **kwargs)

    setattr(owner, name, wrapper)


throws(FlowBuilder, "start", lambda _, flow, *__: flow.name == "bad-build")
throws(FlowPlanner, "actions", lambda planner: planner.flow.name == "bad-plan")
throws(PlanApplication, "_flow", lambda _, action, *__: action.key == "bad-apply")
throws(UploadBundle, "_files_of", lambda _, job: job.flow == "bad-upload")
throws(WorkerAccess, "submit", lambda worker, _: worker.name == "bad-submit")
throws(WorkerAccess, "poll", lambda worker, _: worker.name == "bad-poll")
throws(executor, "next_step", lambda job, *_: job.flow == "bad-step")
throws(access, "end_with_result", lambda raw, _documents: b"bad-collect" in raw)
throws(access, "end_without_result", lambda wanted, *_: wanted.job.flow == "bad-end")
throws(collect, "apply_result", lambda writer, job_id, *_: writer.job(job_id).flow == "bad-record")
throws(collect, "fail", lambda writer, job, *_: job.flow == "bad-failure")
