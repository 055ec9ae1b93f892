"""A store with jobs and no executor: the tests decide when an attempt starts and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.execution.run_files import next_attempt
from reconciler.jobs.dependencies import initial_state, parents_ready
from reconciler.jobs.job_json import JobError, JobResponse, JobResult
from reconciler.jobs.operations import OperationRunner
from reconciler.jobs.outputs import EmbeddedOutputs
from reconciler.jobs.responses import apply_result, fail
from reconciler.jobs.restarts import begin_due
from reconciler.jobs.transitions import move
from reconciler.model.applied import AppliedConfig
from reconciler.model.manifests import WorkerSpec
from reconciler.model.operations import JobOperation
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.retries import Cause
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import ACTIVE, BROKEN, JobState
from reconciler.plan.operations import OperationPlan, OperationPlanner

PROJECT = Origin(Level.PROJECT, "Project", "test", "/spec/defaults/worker")
BY = "ada (Ada Tester <ada@example.invalid>)"


def config(
    worker: str = "w1", priority: int | None = None, retries: dict[str, Any] | None = None
) -> RunConfig:
    """Return a run config."""
    urgent = Setting(priority, PROJECT) if priority is not None else None
    again = Setting(retries, PROJECT) if retries is not None else None
    return RunConfig(worker=Setting(worker, PROJECT), priority=urgent, retries=again)


def new_job(uuid: str, index: int = 1, *, name: str = "new", parents: Sequence[str] = ()) -> Any:
    """Return a generated job as a launcher reports it."""
    payload = {
        "uuid": uuid, "index": index, "name": name, "function": {"@module": "m", "@callable": "f"},
        "function_args": [], "function_kwargs": {}, "config": {},
    }  # fmt: skip
    return payload, list(parents)


class Bench:
    """The store, a clock, and the attempts that run: (job id, attempt)."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.outputs = EmbeddedOutputs(self.store)
        self.clock = 1000.0
        self.running: set[tuple[str, int]] = set()
        spec = WorkerSpec(type="local", scheduler_type="shell", work_dir="/nowhere")
        self.config = AppliedConfig(revision="main@1", workers={"w1": spec})
        self.store.write(lambda writer: writer.put_config(self.config))

    def flow(self, name: str, jobs: dict[str, list[str]], **fields: Any) -> None:
        """Add a flow; ``jobs`` has the needs of each: keys of this flow, or ``flow/job``."""

        def write(writer: Writer) -> None:
            writer.put_flow(FlowRecord(name=name, identity=name, build_key=name, **fields))
            for key, needs in jobs.items():
                parents = [need.replace("/", "-") if "/" in need else f"{name}-{need}" for need in needs]
                self._put(writer, name, key, parents)

        self.store.write(write)

    def _put(self, writer: Writer, flow: str, key: str, parents: list[str]) -> None:
        record = JobRecord(
            uuid=f"{flow}-{key}", index=1, flow=flow, key=key, name=key, function="m.f", content=key,
            state=JobState.WAITING, config=config(), parents=parents,
            sequence=writer.next_number("sequence"),
        )  # fmt: skip
        writer.put_job(msgspec.structs.replace(record, state=initial_state(writer, record)))
        writer.put_payload(record.id, b'{"config": {}}')

    # looking ------------------------------------------------------------------------------------------

    def jobs(self) -> list[JobRecord]:
        """Return all records."""
        with self.store.read() as view:
            return list(view.jobs())

    def job(self, path: str) -> JobRecord:
        """Return the current job of a path, or else its last one."""
        found = [job for job in self.jobs() if job.path == path]
        return max(found, key=lambda job: (job.current, job.sequence))

    def states(self, *paths: str) -> list[str]:
        """Return the states of jobs."""
        return [str(self.job(path).state) for path in paths]

    def output(self, uuid: str) -> Any:
        """Return the output of a job that jobs which need it would get."""
        found = self.outputs.latest(uuid)
        return found["output"] if found is not None else None

    # living -------------------------------------------------------------------------------------------

    def start(self, *paths: str, state: JobState = JobState.RUNNING) -> None:
        """Start the next attempt of READY jobs."""
        for path in paths:
            self.start_one(self.job(path), state)

    def start_one(self, job: JobRecord, state: JobState = JobState.RUNNING) -> None:
        """Start the next attempt of a READY job."""
        assert job.state is JobState.READY, f"{job.path} is {job.state}"
        assert not [one for one, _ in self.running if one == job.id], f"{job.path} runs already"
        begun = next_attempt(job, "/w", job.config.worker_name)
        attempt = begun.attempt_with(queue_id="7")
        self.clock += 1
        self.store.write(
            lambda writer: move(writer, begun, state, self.clock, error=None, cause=None, attempt=attempt)
        )
        self.running.add((job.id, attempt.number))

    def end(self, path: str, *, error: str = "", output: Any = None, **response: Any) -> None:
        """End the attempt of a job, with what it asks for next."""
        self.end_one(self.job(path), error=error, output=output, **response)

    def end_one(self, job: JobRecord, *, error: str = "", output: Any = None, **response: Any) -> None:
        """End the attempt of a job by its result."""
        self.running.remove((job.id, job.attempt.number))
        self.clock += 1
        document = {
            "uuid": job.uuid,
            "index": job.index,
            "output": output or f"{job.id}.{job.attempt.number}",
        }
        result = JobResult(
            ok=not error, started=self.clock - 1, ended=self.clock,
            error=JobError("E", error, error) if error else None,
            documents=[] if error else [document], response=JobResponse(**response),
        )  # fmt: skip
        self.store.write(
            lambda writer: apply_result(
                writer, job.id, job.attempt.number, result, self.outputs, self.config, self.clock
            )
        )

    def killed(self, path: str, cause: Cause | None = None) -> None:
        """End the attempt of a job as the executor does when it is gone without a result."""
        self.killed_one(self.job(path), cause)

    def killed_one(self, job: JobRecord, cause: Cause | None = None) -> None:
        """End the attempt of a job that is gone without a result."""
        self.running.remove((job.id, job.attempt.number))
        self.clock += 1
        self.store.write(
            lambda writer: fail(writer, _known(writer, job.id), "killed", self.clock, cause=cause)
        )

    def wait(self, seconds: float) -> bool:
        """Advance the clock and start the retries that are due; return whether there were any."""
        self.clock += seconds
        return begin_due(self.store, self.clock)

    def edit(self, path: str, **fields: Any) -> None:
        """Change a record."""
        job = self.job(path)
        self.store.write(lambda writer: writer.put_job(msgspec.structs.replace(job, **fields)))

    def events(self, path: str, kind: str) -> list[str]:
        """Return what the events of one type tell of a job."""
        with self.store.read() as view:
            return [event.message for event in view.events(f"job/{path}") if event.type == kind]

    def run(self, *paths: str) -> None:
        """Start jobs and let each complete."""
        for path in paths:
            self.start(path)
            self.end(path)

    def operate(self, operation: str, *paths: str, descendants: bool = False) -> OperationPlan:
        """Carry out an operation on jobs, as the command line does."""
        return self.operate_on(operation, [self.job(path) for path in paths], descendants=descendants)

    def operate_on(
        self, operation: str, jobs: Sequence[JobRecord], *, descendants: bool = False
    ) -> OperationPlan:
        """Carry out an operation on jobs."""
        self.clock += 1

        def write(writer: Writer) -> OperationPlan:
            planner = OperationPlanner(writer, self.config.workers, lambda flow: f"flows/{flow}.yaml:9")
            present = [_known(writer, job.id) for job in jobs]
            plan = planner.plan(JobOperation(operation), present, descendants=descendants)
            OperationRunner(writer, plan, BY, f"reconcile {operation} ...", self.clock).carry_out()
            return plan

        return self.store.write(write)

    def check(self) -> None:
        """Check that the store knows what runs, and that jobs wait for exactly what is missing."""
        with self.store.read() as view:
            jobs = list(view.jobs())
            active = [(job.id, job.attempt.number) for job in jobs if job.state in ACTIVE]
            assert sorted(active) == sorted(self.running)
            for job in jobs:
                if not job.current:
                    assert not job.cancellation.rerun
                    assert job.state not in (JobState.READY, JobState.WAITING, JobState.PAUSED)
                    assert job.state not in ACTIVE or job.cancelling, f"{job.path} runs, as history"
                elif job.state is JobState.READY:
                    assert parents_ready(view, job), f"{job.path} is READY too early"
                elif job.state is JobState.WAITING:
                    assert not parents_ready(view, job), f"{job.path} waits for nothing"
                for parent in job.parents if job.current else ():
                    assert view.generations(parent), f"{job.path} needs what nobody knows"
                assert job.cancellation.rerun is False or job.state in ACTIVE
                if job.retry.at is not None:
                    assert job.current and job.state in BROKEN and job.retry.causes
            waiting = {job.id for job in jobs if job.retry.at is not None}
            assert {job.id for job in view.waiting_for_retry()} == waiting


def _known(writer: Writer, job_id: str) -> JobRecord:
    job = writer.job(job_id)
    assert job is not None
    return job
