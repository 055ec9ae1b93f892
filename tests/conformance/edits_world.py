"""A repository and its store, where commits edit what was submitted and jobs live without being run.

Flows are built by the real build process, each once for all repositories of a test run; jobs move by the
one function through which every job moves, and children are born the way the executor takes in a result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.build.builder import FlowBuilder
from reconciler.desired.source.git import Source
from reconciler.desired.state import flows_in_build_order
from reconciler.jobs.job_json import JobResponse, JobResult, NewJob
from reconciler.jobs.outputs import EmbeddedOutputs
from reconciler.jobs.responses import apply_result
from reconciler.jobs.transitions import move
from reconciler.loop import Reporter, Session
from reconciler.model.actions import Action, Plan
from reconciler.model.desired import DesiredState
from reconciler.model.flows import BuiltFlow, build_key
from reconciler.model.records import Event, JobRecord
from reconciler.model.states import ACTIVE, JobState
from tests.build.support import build
from tests.conformance.support import Silent
from tests.support import AUTHOR, Repository

Document = dict[str, Any]
Files = dict[str, list[Document]]
"""The manifests of a repository: file -> documents."""

CHAIN = (
    JobState.CHECKED_OUT,
    JobState.UPLOADED,
    JobState.SUBMITTED,
    JobState.RUNNING,
    JobState.RUN_FINISHED,
    JobState.DOWNLOADED,
)
"""The states between leaving the store and coming back to it, in the order of a job's life."""


def document(kind: str, name: str, spec: Mapping[str, Any], **metadata: Any) -> Document:
    """Return a manifest as plain data."""
    return {
        "apiVersion": "reconciler/v1",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": dict(spec),
    }


def find(files: Files, kind: str, name: str) -> Document:
    """Return the manifest with an identity; changing it edits the repository at the next commit."""
    for documents in files.values():
        for one in documents:
            if (one["kind"], one["metadata"]["name"]) == (kind, name):
                return one
    raise KeyError(f"{kind}/{name}")


class Builds:
    """Flows built so far, by build key, which repositories with the same flows share."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.known: dict[str, BuiltFlow] = {}
        self.builder: FlowBuilder | None = None

    def give(self, source: Source, desired: DesiredState, store: Store) -> None:
        """Put the built form of every flow of a desired state into a store."""
        keys = {flow.name: build_key(flow.inputs, {}) for flow in flows_in_build_order(desired.flows)}
        if self.builder is None:
            self.builder = FlowBuilder(source, desired, self.state_dir)
        self.builder.source, self.builder.desired = source, desired
        for name, key in keys.items():
            if key not in self.known:
                self.known[key] = build(self.builder, desired.flows[name])
        with store.read() as view:
            fresh = [self.known[key] for key in keys.values() if view.build(key) is None]

        def keep(writer: Writer) -> None:
            for built in fresh:
                writer.put_build(built)

        if fresh:
            store.write(keep)

    def close(self) -> None:
        """End the build process."""
        if self.builder is not None:
            self.builder.close()


class EditWorld:
    """One repository and one store. Edit ``files``, then reconcile."""

    def __init__(self, root: Path, builds: Builds, files: Files) -> None:
        self.repository = Repository(root / "repository")
        self.store = Store(root / "state")
        self.source = Source(self.repository.path / ".git", self.repository.path, None, "")
        self.builds = builds
        self.files = deepcopy(files)
        self.written: dict[str, str] = {}
        self.clock = 1000.0

    # commits ------------------------------------------------------------------------------------------

    def commit(self, message: str = "change", author: str = AUTHOR) -> str:
        """Write the manifests, one line a document, and commit them."""
        texts = {
            file: "---\n".join(f"{json.dumps(one)}\n" for one in documents)
            for file, documents in self.files.items()
            if documents
        }
        for file in self.written.keys() - texts.keys():
            self.repository.remove(file)
        for file, text in texts.items():
            if self.written.get(file) != text:
                self.repository.write(file, text)
        self.written = texts
        return self.repository.commit(message, author)

    def session(self) -> Session:
        """Return a new session at the last commit."""
        return Session(self.source, self.store)

    def submit(self) -> Plan:
        """Commit the first manifests, build their flows, and reconcile. Later commits edit no content."""
        self.commit()
        self.builds.give(self.source, self.session().load().state, self.store)
        return self.apply()

    def reconcile(self, watcher: Reporter | None = None) -> Plan:
        """Commit the manifests as they are now, plan, and apply."""
        self.commit()
        return self.apply(watcher)

    def apply(self, watcher: Reporter | None = None) -> Plan:
        """Reconcile with the last commit; nothing may be wrong with it."""
        plan = self.session().reconcile(watcher or Silent()).plan
        assert not plan.has_errors, [diagnostic.message for diagnostic in plan.diagnostics]
        return plan

    def plan(self) -> Plan:
        """Return what a reconcile with the last commit would do now."""
        session = self.session()
        return session.plan(session.load())

    # jobs ---------------------------------------------------------------------------------------------

    def jobs(self) -> dict[str, JobRecord]:
        """Return all records by ``flow/job``."""
        with self.store.read() as view:
            return {job.path: job for job in view.jobs()}

    def job(self, path: str) -> JobRecord:
        """Return a record by ``flow/job``."""
        return self.jobs()[path]

    def events(self, path: str) -> list[Event]:
        """Return what happened to a job."""
        with self.store.read() as view:
            return view.events(f"job/{path}")

    def count_events(self) -> int:
        """Return how many events there are."""
        with self.store.read() as view:
            return len(view.events())

    def place(self, path: str, state: JobState) -> JobRecord:
        """Move a job to a state by the way that jobs take in real life."""
        job = self.job(path)
        return self.store.write(lambda writer: self.lead(writer, job, state))

    def lead(self, writer: Writer, job: JobRecord, state: JobState) -> JobRecord:
        """Move a job inside a transaction: through the active states, as far as that is the way."""
        self.clock += 1
        if state in ACTIVE or state in (JobState.COMPLETED, JobState.FAILED):
            first = CHAIN.index(job.state) + 1 if job.state in ACTIVE else 0
            if first == 0:
                job = move(
                    writer, job, CHAIN[0], self.clock, attempt=job.attempt_with(number=job.attempt.number + 1)
                )
                first = 1
            last = CHAIN.index(state) + 1 if state in ACTIVE else len(CHAIN)
            for step in CHAIN[first:last]:
                job = move(writer, job, step, self.clock)
        return job if job.state is state else move(writer, job, state, self.clock)

    def complete(self, path: str, response: JobResponse) -> None:
        """Take in the result of a job, with what it asks for next."""
        job = self.job(path) if self.job(path).state in ACTIVE else self.place(path, JobState.RUN_FINISHED)
        self.clock += 1
        with self.store.read() as view:
            config = view.config()
        assert config is not None
        result = JobResult(ok=True, started=self.clock, ended=self.clock, response=response)
        outputs, now = EmbeddedOutputs(self.store), self.clock
        self.store.write(
            lambda writer: apply_result(writer, job.id, job.attempt.number, result, outputs, config, now)
        )

    def close(self) -> None:
        """Give the store back."""
        self.store.close()


MakeWorld = Callable[[Files], EditWorld]


def new_job(name: str, uuid: str, index: int = 1, **own: Any) -> NewJob:
    """Return a job as a launcher reports it; ``own`` is its own run config."""
    function = {"@module": "reconciler.examples", "@callable": "value", "@bound": None}
    payload = {
        "function": function, "function_args": [1], "function_kwargs": {}, "name": name, "uuid": uuid,
        "index": index, "config": {"manager_config": own},
    }  # fmt: skip
    return payload, []


def told(actions: tuple[Action, ...]) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return actions as ``{"Patch flow/job": {field: (old, new)}}``: all that a plan does."""
    found = {f"{one.type} {one.key}": {c.field: (c.old, c.new) for c in one.changes} for one in actions}
    assert len(found) == len(actions), "two actions on the same thing"
    return found
