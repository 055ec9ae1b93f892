"""Taking in a finished job, in one transaction: its output, the jobs it asks for, and who may run now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.jobs.dependencies import (
    initial_state,
    release_all_tolerant,
    release_dependants,
    release_tolerant,
    still_to_come,
    wait_for_leaves,
    wait_for_references,
)
from reconciler.jobs.job_json import JobResponse, JobResult, NewJob, own_run_config, references, resolves
from reconciler.jobs.outputs import Outputs
from reconciler.jobs.restarts import begin_again, no_worker, note_retry, reborn
from reconciler.jobs.stopping import stop_children, stop_flow, stopped_parent, without_stopped
from reconciler.jobs.transitions import move, note
from reconciler.model.flows import digest
from reconciler.model.records import (
    NOT_CANCELLED,
    AppliedConfig,
    Cancellation,
    FlowRecord,
    GeneratedBy,
    JobRecord,
    RetryStatus,
)
from reconciler.model.retries import Cause
from reconciler.model.run_config import JobFacts, inherited, layer_of, layers_for, resolve
from reconciler.model.settings import Layer, Level, Origin
from reconciler.model.states import ACTIVE, BROKEN, FINISHED, JobState
from reconciler.plan.retries import next_retry


def apply_result(
    writer: Writer,
    job_id: str,
    attempt: int,
    result: JobResult,
    outputs: Outputs,
    config: AppliedConfig,
    now: float,
) -> None:
    """Complete or fail a job by its result. Doing it twice is the same as once."""
    job = writer.job(job_id)
    if job is None or job.attempt.number != attempt or job.state not in ACTIVE:
        return
    if job.cancelling and job.cancellation.rerun:  # a new attempt counts, not the result of this one
        begin_again(writer, job, now)
        return
    if not result.ok:
        text = result.error.traceback if result.error is not None else "unknown error"
        fail(writer, job, text, now, cause=Cause.EXCEPTION)
        return
    outputs.save_inside(writer, result.documents, result.blobs)
    done = move(
        writer, job, JobState.COMPLETED, now, f"ran {result.ended - result.started:.1f} s",
        error=None, cause=None, cancellation=NOT_CANCELLED, attempt=job.attempt.settled,
        stored_data=result.response.stored_data, refers=[],
    )  # fmt: skip
    _Response(writer, done, config, now, cancelled=job.cancellation.reason).carry_out(
        result.response, result.refers
    )
    release_dependants(writer, done.uuid, now)


def fail(
    writer: Writer,
    job: JobRecord,
    error: str,
    now: float,
    state: JobState = JobState.FAILED,
    cause: Cause | None = None,
) -> None:
    """End a job without a result. A cancelled one is not failed but stopped, as was wanted, or runs again.

    One that is to be retried has failed until then, and whoever needs it goes on waiting.
    """
    if job.cancellation.rerun:
        begin_again(writer, job, now)
        return
    over: dict[str, Any] = {"attempt": job.attempt.settled}
    if job.cancelling:
        reason = job.cancellation.reason or ""
        move(writer, job, JobState.USER_STOPPED, now, reason, cancellation=NOT_CANCELLED, **over)
        release_tolerant(writer, job.uuid, now)
        return
    lines = error.strip().splitlines() or ["unknown error"]
    over |= {"error": error, "cause": cause}
    retry = next_retry(job, writer.flow(job.flow), cause, now)
    if retry is None:
        move(writer, job, state, now, lines[-1], **over)
        release_tolerant(writer, job.uuid, now)
        return
    assert cause is not None
    due = RetryStatus(at=retry.at, causes=[*job.retry.causes, str(cause)])
    failed = move(writer, job, state, now, lines[-1], retry=due, **over)
    note_retry(writer, failed, retry, now)


_NEVER = frozenset({JobState.STOPPED, JobState.USER_STOPPED})
"""Where a generated job begins that is not to run."""


class _Response:
    """Carries out what a completed job asks for next.

    ``cancelled`` is why the job was being cancelled if it completed before that: then nothing of what it
    asks for is run.
    """

    def __init__(
        self, writer: Writer, job: JobRecord, config: AppliedConfig, now: float, cancelled: str | None
    ) -> None:
        self.writer = writer
        self.job = job
        self.config = config
        self.digests = config.digests
        self.now = now
        self.cancelled = cancelled
        self.flow = writer.flow(job.flow) or FlowRecord(name=job.flow, identity="", build_key="")
        self.keys = FreeKeys(writer, job.flow)
        self.never: list[str] = []  # generated jobs that will not run

    def carry_out(self, response: JobResponse, refers: Sequence[str]) -> None:
        """Add what is asked for, let dependants wait for what they need now, and stop what is to stop.

        ``refers`` are the jobs that the output refers to.
        """
        replace = self._add(response.replace, "replace")
        if all(record.uuid != self.job.uuid for record in replace):
            wait_for_leaves(self.writer, self.job, replace)
        wait_for_leaves(self.writer, self.job, self._add(response.detour, "detour"))
        self._add(response.addition, "addition")
        wait_for_references(self.writer, self.job, refers)
        if response.stop_children:
            stop_children(self.writer, self.job, self.now)
        if response.stop_jobflow:
            stop_flow(self.writer, self.flow, self.job, self.now)
        # Only now, as it is known what else is to be waited for.
        release_all_tolerant(self.writer, self.never, self.now)

    # new jobs -----------------------------------------------------------------------------------------

    def _add(self, new_jobs: Sequence[NewJob], kind: str) -> list[JobRecord]:
        if not new_jobs:
            return []
        inside = {payload["uuid"] for payload, _ in new_jobs}
        records = [self._born(self._record(payload, parents, inside)) for payload, parents in new_jobs]
        for record, (payload, _) in zip(records, new_jobs, strict=True):
            self.writer.put_payload(record.id, json.dumps(payload).encode())
            self.writer.put_job(record)
            note(self.writer, record, "Generated", f"{kind} by {self.job.path}", self.now)
        self.never += [record.uuid for record in records if self._begin(record) in FINISHED]
        return records

    def _begin(self, record: JobRecord) -> JobState:
        state, reason = self._first_state(record)
        if record.cancellation.rerun:  # an attempt of a former life is on its way out
            if state in _NEVER:  # and none will follow it
                self.writer.put_job(msgspec.structs.replace(record, cancellation=Cancellation(reason=reason)))
            return record.state
        if state is not record.state:
            error = reason if state in BROKEN else None
            move(self.writer, record, state, self.now, reason, error=error)
        return state

    def _first_state(self, record: JobRecord) -> tuple[JobState, str]:
        if self.flow.stopped:
            return JobState.STOPPED, "stop_jobflow"
        stopped = stopped_parent(self.writer, record.parents) if record.on_missing == "error" else None
        if stopped is not None:
            return JobState.STOPPED, f"needs {stopped.path}, which was stopped"
        if self.cancelled is not None or not self.job.current:
            return JobState.USER_STOPPED, self.cancelled or f"{self.job.path} is history"
        why = no_worker(record, self.config.workers)
        if why is not None:
            return JobState.REMOTE_ERROR, why
        if self.flow.suspended:
            return JobState.PAUSED, "spec.suspend"
        return initial_state(self.writer, record), ""

    def _born(self, record: JobRecord) -> JobRecord:
        old = self.writer.job(record.id)
        return record if old is None else reborn(old, record)

    def _record(self, payload: dict[str, Any], parents: Sequence[str], inside: set[str]) -> JobRecord:
        function = payload["function"]
        path = f"{function['@module']}.{function['@callable']}"
        name, uuid, index = str(payload["name"]), payload["uuid"], payload["index"]
        config = payload.get("config") or {}
        own = self._own(config)
        key = f"{self._base_key()}@{index}" if uuid == self.job.uuid else self.keys.free(name)
        facts = JobFacts(self.flow.name, self.flow.labels, name, path, generated=True)
        layers = layers_for(
            facts,
            rules=self.config.rules,
            own=own,
            generator=inherited(self.job.config) if self._passes_on else {},
            flow=self.flow.layer,
            project=self.config.project_layer,
        )
        needs = list(dict.fromkeys([*parents, *references(_arguments(payload))]))
        if resolves(payload):
            needs += [uuid for uuid in still_to_come(self.writer, needs) if uuid not in needs]
        return JobRecord(
            uuid=uuid, index=index, flow=self.flow.name, key=key, name=name, function=path,
            state=JobState.WAITING, config=resolve(layers, self.config.worker_defaults, self.digests),
            content=digest([self.job.content, key]), own=own,
            parents=without_stopped(self.writer, [uuid for uuid in needs if self._is_known(uuid, inside)]),
            on_missing=config.get("on_missing_references") or "error",
            sequence=self.writer.next_number("sequence"), created=self.now, updated=self.now,
            current=self.job.current, files=self.job.files, code=self.job.code,
            generated_by=GeneratedBy(
                uuid=self.job.uuid, index=self.job.index, attempt=self.job.attempt.number,
                inherits=self._passes_on,
            ),
        )  # fmt: skip

    def _is_known(self, uuid: str, inside: set[str]) -> bool:
        return uuid in inside or bool(self.writer.generations(uuid))

    def _own(self, config: dict[str, Any]) -> Layer:
        """The child's own config; what jobflow merely passed on from the generator is not its own."""
        given = self._generator_config
        if self._passes_on and given.get("manager_config") and not given.get("response_manager_config"):
            return {}
        # Python has no line in a manifest: the pointer leads to the spec of the flow, not to a value in it.
        origin = Origin(Level.JOB, "Flow", self.flow.name, "/spec/(code)")
        return layer_of(own_run_config(config.get("manager_config") or {}), origin, "/spec/(code)")

    @property
    def _passes_on(self) -> bool:
        return bool(self._generator_config.get("pass_manager_config", True))

    @cached_property
    def _generator_config(self) -> dict[str, Any]:
        """The JobConfig of the generator; read only when it generates something."""
        raw = self.writer.payload(self.job.id)
        found: dict[str, Any] = json.loads(raw).get("config") or {} if raw is not None else {}
        return found

    def _base_key(self) -> str:
        return self.job.key.partition("@")[0]


def _arguments(payload: dict[str, Any]) -> list[Any]:
    return [payload["function_args"], payload["function_kwargs"]]


# Names for jobs that are born at run time.


class FreeKeys:
    """Keys that no job with a place in a flow has.

    The work does not depend on how many jobs the flow has: one look for each key, and a few more for the
    first of each name.
    """

    def __init__(self, view: View, flow: str) -> None:
        self._view = view
        self._flow = flow
        self._given: set[str] = set()
        self._last: dict[str, int] = {}

    def free(self, name: str) -> str:
        """Return a key for a name, and take it: the name itself, or with ``#2``, ``#3`` and so on."""
        number = self._last[name] + 1 if name in self._last else self._first_free(name)
        while self._is_taken(name, number):
            number += 1
        self._last[name] = number
        key = _numbered(name, number)
        self._given.add(key)
        return key

    def _first_free(self, name: str) -> int:
        """Return a number that is free and follows one that is taken: the first, unless jobs have left."""
        taken, free = 0, 1
        while self._is_taken(name, free):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if self._is_taken(name, middle) else (taken, middle)
        return free

    def _is_taken(self, name: str, number: int) -> bool:
        key = _numbered(name, number)
        return key in self._given or self._view.has_path(f"{self._flow}/{key}")


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}#{number}"
