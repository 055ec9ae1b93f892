"""A repository with its store, driven without the command line, so that many random ones are quick.

Building happens in the real build process, but one for all examples: importing jobflow takes a second.
"""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.build.builder import FlowBuilder
from reconciler.desired.source.git import Source
from reconciler.desired.state import flows_in_build_order
from reconciler.jobs.dependencies import parents_ready, release_dependants
from reconciler.jobs.transitions import move
from reconciler.loop import Session
from reconciler.model.actions import Action, ActionType, Plan
from reconciler.model.desired import DesiredState
from reconciler.model.flows import BuiltFlow, build_key
from reconciler.model.records import NOT_CANCELLED, JobRecord
from reconciler.model.states import ACTIVE, FINISHED, JobState
from tests.build.support import build
from tests.loop.random_repositories import RepositoryModel, write
from tests.support import Repository, minimal_project


class SharedBuilder:
    """One build process for the flows of many repositories."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.builder: FlowBuilder | None = None

    def build(self, source: Source, desired: DesiredState) -> dict[str, BuiltFlow]:
        """Build every flow of a desired state."""
        if self.builder is None:
            self.builder = FlowBuilder(source, desired, self.state_dir)
        self.builder.source, self.builder.desired = source, desired
        built: dict[str, BuiltFlow] = {}
        for flow in flows_in_build_order(desired.flows):
            externals = {}
            for reference in flow.externals:
                other, _, job = reference.partition("/")
                externals[reference] = built[other].exports[job]
            built[flow.name] = build(self.builder, flow, externals)
            assert built[flow.name].build_key == build_key(flow.inputs, externals)
        return built

    def close(self) -> None:
        """End the process."""
        if self.builder is not None:
            self.builder.close()


class World:
    """One repository and one store."""

    def __init__(self, root: Path, builder: SharedBuilder) -> None:
        self.repository = Repository(root / "repository")
        minimal_project(self.repository, root / "work")
        self.source = Source(self.repository.path / ".git", self.repository.path, None, "")
        self.store = Store(root / "state")
        self.builder = builder
        self.clock = 1000.0

    def session(self) -> Session:
        """A new session at the last commit."""
        return Session(self.source, self.store)

    def plan(self) -> Plan:
        """What a reconcile would do now."""
        session = self.session()
        return session.plan(session.load())

    def build(self) -> dict[str, BuiltFlow]:
        """Build the flows of the last commit and keep them, as a reconcile does."""
        desired = self.session().load().state
        assert not desired.diagnostics, desired.diagnostics
        built = self.builder.build(self.source, desired)

        def keep(writer: Writer) -> None:
            for flow in built.values():
                writer.put_build(flow)

        self.store.write(keep)
        return built

    def apply(self, model: RepositoryModel) -> dict[str, BuiltFlow]:
        """Commit what the model says, and reconcile."""
        write(model, self.repository)
        built = self.build()
        self.session().reconcile(Silent(), allow_prune=True)
        return built

    def jobs(self) -> list[JobRecord]:
        """All records."""
        with self.store.read() as view:
            return list(view.jobs())

    def current(self) -> set[tuple[str, str]]:
        """Flow and uuid of every job that has a place in a flow that was not removed."""
        with self.store.read() as view:
            alive = {flow.name for flow in view.flows() if not flow.removed}
        return {(job.flow, job.uuid) for job in self.jobs() if job.current and job.flow in alive}

    def live_a_little(self, source: random.Random) -> None:
        """Let some jobs get on: start, finish, fail, end as cancelled."""

        def change(writer: Writer) -> None:
            for job in list(writer.jobs()):
                if source.random() < 0.5:
                    self._step(writer, job, source)

        self.store.write(change)

    def _step(self, writer: Writer, job: JobRecord, source: random.Random) -> None:
        self.clock += 1
        if job.state is JobState.READY:
            move(
                writer,
                job,
                source.choice(sorted(ACTIVE)),
                self.clock,
                attempt=job.attempt_with(number=job.attempt.number + 1),
            )
        elif job.state in ACTIVE and job.cancelling:
            move(writer, job, JobState.USER_STOPPED, self.clock, cancellation=NOT_CANCELLED)
        elif job.state in ACTIVE:
            state = source.choice([JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED])
            done = move(writer, job, state, self.clock)
            release_dependants(writer, done.uuid, self.clock)

    def left_to_do(self) -> list[Action]:
        """What a reconcile would change now, but for removed flows whose last job has just ended."""
        with self.store.read() as view:
            removed = {flow.name for flow in view.flows() if flow.removed}
        return [a for a in self.plan().effective if not (a.type is ActionType.FORGET and a.key in removed)]

    def check_sound(self) -> None:
        """Nothing waits for what is there, nothing may start without what it needs, nobody is forgotten."""
        with self.store.read() as view:
            alive = {flow.name: flow for flow in view.flows() if not flow.removed}
            orphaned = {flow.name for flow in view.flows() if flow.orphaned}
            for job in view.jobs():
                if job.flow in orphaned:
                    continue
                if not job.current or job.flow not in alive:
                    assert job.state in FINISHED or job.cancelling, (job.path, job.state)
                    continue
                if job.state is JobState.WAITING:
                    assert not parents_ready(view, job), f"{job.path} waits for nothing"
                if job.state is JobState.READY:
                    assert parents_ready(view, job), f"{job.path} is ready without its parents"
                if job.state in (JobState.WAITING, JobState.READY):
                    assert not alive[job.flow].suspended, f"{job.path} is not paused"
                for parent in job.parents:
                    assert view.generations(parent), f"{job.path} waits for a job that nobody knows"

    def close(self) -> None:
        """Give the store back."""
        self.store.close()


def fields(record: JobRecord) -> dict[str, object]:
    """A record as a dict, to compare."""
    return msgspec.structs.asdict(record)


class Silent:
    """A watcher that shows nothing."""

    def say(self, line: str) -> None:
        return None

    def planned(self, plan: Plan) -> None:
        return None

    def progress(self, done: int, total: int, running: int) -> None:
        return None
