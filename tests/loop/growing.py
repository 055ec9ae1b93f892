"""Flows of jobs that ask for more jobs and log their names when they run; and looks at what came of them."""

from __future__ import annotations

from typing import Any

from reconciler.jobs.outputs import EmbeddedOutputs
from reconciler.loop import Session
from reconciler.model.actions import Plan
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState
from tests.execution.support import World, lines

Tree = dict[str, Any]
"""What a job of ``growing_jobs`` does; see there."""


def grown(world: World, key: str, tree: Tree, *after: str) -> dict[str, Any]:
    """Return a job of a manifest that grows a tree, after other jobs."""
    needs = [[{"$output": one} for one in after]] if after else []
    return {"id": key, "function": "growing_jobs.grow", "args": [str(world.root / "log"), tree, *needs]}


def plan(world: World) -> Plan:
    """Commit, and plan without applying."""
    world.repository.commit()
    session = Session(world.source, world.store)
    return session.plan(session.load())


def settle(world: World, *, allow_prune: bool = False) -> None:
    """Reconcile and run to the end; nothing is left to do, and no job is without its place."""
    world.reconcile(allow_prune=allow_prune)
    world.run()
    assert not plan(world).effective


def current(world: World) -> dict[str, JobRecord]:
    """Return the jobs that have a place, by path."""
    removed = world.view(lambda view: {flow.name for flow in view.flows() if flow.removed})
    jobs = world.view(lambda view: list(view.jobs()))
    found = [job for job in jobs if job.current and job.flow not in removed]
    assert len({job.path for job in found}) == len(found)
    return {job.path: job for job in found}


def history(world: World) -> list[JobRecord]:
    return [job for job in world.view(lambda view: list(view.jobs())) if not job.current]


def facts(world: World) -> dict[str, Any]:
    """Return all of the present jobs that a revert has to bring back."""
    return {
        path: (job.id, job.state, job.attempt.number, sorted(job.parents), job.content, output(world, job))
        for path, job in current(world).items()
    }


def output(world: World, job: JobRecord) -> Any:
    found = EmbeddedOutputs(world.store).latest(job.uuid)
    return found["output"] if found is not None else None


def state(world: World, path: str) -> str | None:
    """Return the state of the job that has a place under this name, if there is one."""
    job = current(world).get(path)
    return str(job.state) if job is not None else None


def log(world: World) -> list[str]:
    return list(lines(world.root / "log"))


def news(world: World, before: list[str]) -> list[str]:
    """Return what has run since, sorted."""
    after = log(world)
    assert after[: len(before)] == before
    return sorted(after[len(before) :])


def completed(world: World) -> bool:
    return {job.state for job in current(world).values()} == {JobState.COMPLETED}
