"""Records of generated jobs: keys, run config, parents and first state. Works inside a transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.jobs.dependencies import initial_state, still_to_come
from reconciler.jobs.job_json import NewJob, own_run_config, references, resolves
from reconciler.jobs.restarts import no_worker, recreated
from reconciler.jobs.stopping import stopped_parent, without_stopped
from reconciler.jobs.transitions import move, note
from reconciler.model.flows import digest
from reconciler.model.records import AppliedConfig, Cancellation, FlowRecord, GeneratedBy, JobRecord
from reconciler.model.run_config import JobFacts, inherited, layer_of, layers_for, resolve
from reconciler.model.settings import Layer, Level, Origin
from reconciler.model.states import BROKEN, FINISHED, JobState


class Generation:
    """The jobs that one completed job, their generator, asks for.

    ``cancelled`` is why the generator was being cancelled when it completed; in that case none of them runs.
    ``never`` collects the uuids of generated jobs that will not run.
    """

    def __init__(
        self,
        writer: Writer,
        generator: JobRecord,
        flow: FlowRecord,
        config: AppliedConfig,
        now: float,
        cancelled: str | None,
    ) -> None:
        self.writer = writer
        self.generator = generator
        self.flow = flow
        self.config = config
        self.now = now
        self.cancelled = cancelled
        self.keys = FreeKeys(writer, generator.flow)
        self.never: list[str] = []

    def add(self, new_jobs: Sequence[NewJob], kind: str) -> list[JobRecord]:
        """Create the records of jobs that came together, and return them as they were created.

        ``kind`` is ``replace``, ``detour`` or ``addition``.
        """
        inside = {payload["uuid"] for payload, _ in new_jobs}
        records = []
        for payload, parents in new_jobs:
            record = self._record(payload, parents, inside)
            old = self.writer.job(record.id)
            records.append(record if old is None else recreated(old, record))
        for record, (payload, _) in zip(records, new_jobs, strict=True):
            self.writer.put_payload(record.id, json.dumps(payload).encode())
            self.writer.put_job(record)
            note(self.writer, record, "Generated", f"{kind} by {self.generator.path}", self.now)
        for record in records:
            self._begin(record)
        return records

    def _record(self, payload: dict[str, Any], parents: Sequence[str], inside: set[str]) -> JobRecord:
        generator = self.generator
        function = payload["function"]
        path = f"{function['@module']}.{function['@callable']}"
        name, uuid, index = str(payload["name"]), payload["uuid"], payload["index"]
        config = payload.get("config") or {}
        replaces = uuid == generator.uuid
        key = f"{generator.key.partition('@')[0]}@{index}" if replaces else self.keys.free(name)
        own = self._own_layer(config)
        layers = layers_for(
            JobFacts(self.flow.name, self.flow.labels, name, path, generated=True),
            rules=self.config.rules,
            own=own,
            generator=inherited(generator.config) if self._passes_on else {},
            flow=self.flow.layer,
            project=self.config.project_layer,
        )
        arguments = [payload["function_args"], payload["function_kwargs"]]
        needs = list(dict.fromkeys([*parents, *references(arguments)]))
        if resolves(payload):
            needs += [uuid for uuid in still_to_come(self.writer, needs) if uuid not in needs]
        known = [one for one in needs if one in inside or self.writer.generations(one)]
        return JobRecord(
            uuid=uuid, index=index, flow=self.flow.name, key=key, name=name, function=path,
            state=JobState.WAITING, config=resolve(layers, self.config.worker_defaults, self.config.digests),
            content=digest([generator.content, key]), own=own, parents=without_stopped(self.writer, known),
            on_missing=config.get("on_missing_references") or "error",
            sequence=self.writer.next_number("sequence"), created=self.now, updated=self.now,
            current=generator.current, files=generator.files, code=generator.code,
            generated_by=GeneratedBy(
                uuid=generator.uuid, index=generator.index, attempt=generator.attempt.number,
                inherits=self._passes_on,
            ),
        )  # fmt: skip

    def _own_layer(self, config: dict[str, Any]) -> Layer:
        """Return the job's own run config, without what jobflow merely passed on from the generator."""
        given = self._generator_config
        if self._passes_on and given.get("manager_config") and not given.get("response_manager_config"):
            return {}
        # Python code has no line in a manifest: the pointer leads to the spec of the flow, not to a value in
        # it.
        origin = Origin(Level.JOB, "Flow", self.flow.name, "/spec/(code)")
        return layer_of(own_run_config(config.get("manager_config") or {}), origin, "/spec/(code)")

    @property
    def _passes_on(self) -> bool:
        return bool(self._generator_config.get("pass_manager_config", True))

    @cached_property
    def _generator_config(self) -> dict[str, Any]:
        """The JobConfig of the generator."""
        raw = self.writer.payload(self.generator.id)
        found: dict[str, Any] = json.loads(raw).get("config") or {} if raw is not None else {}
        return found

    def _begin(self, record: JobRecord) -> None:
        """Move a new job to its first state."""
        state, reason = self._first_state(record)
        if record.cancellation.rerun:  # an earlier attempt under this id is being cancelled
            if state in (JobState.STOPPED, JobState.USER_STOPPED):  # and no other one follows
                self.writer.put_job(msgspec.structs.replace(record, cancellation=Cancellation(reason=reason)))
            return
        if state is not record.state:
            move(self.writer, record, state, self.now, reason, error=reason if state in BROKEN else None)
        if state in FINISHED:
            self.never.append(record.uuid)

    def _first_state(self, record: JobRecord) -> tuple[JobState, str]:
        if self.flow.stopped:
            return JobState.STOPPED, "stop_jobflow"
        stopped = stopped_parent(self.writer, record.parents) if record.on_missing == "error" else None
        if stopped is not None:
            return JobState.STOPPED, f"needs {stopped.path}, which was stopped"
        if self.cancelled is not None or not self.generator.current:
            return JobState.USER_STOPPED, self.cancelled or f"{self.generator.path} is superseded"
        why = no_worker(record, self.config.workers)
        if why is not None:
            return JobState.REMOTE_ERROR, why
        if self.flow.suspended:
            return JobState.PAUSED, "spec.suspend"
        return initial_state(self.writer, record), ""


class FreeKeys:
    """Gives out keys that no current job of a flow has.

    The work does not depend on the number of jobs in the flow: one look-up for each key, and a few more for
    the first one of each name.
    """

    def __init__(self, view: View, flow: str) -> None:
        self._view = view
        self._flow = flow
        self._given: set[str] = set()
        self._last: dict[str, int] = {}

    def free(self, name: str) -> str:
        """Return a key for a name, and reserve it: the name itself, or with ``#2``, ``#3`` and so on."""
        number = self._last[name] + 1 if name in self._last else self._first_free(name)
        while self._is_used(name, number):
            number += 1
        self._last[name] = number
        key = _numbered(name, number)
        self._given.add(key)
        return key

    def _first_free(self, name: str) -> int:
        """Return a free number that follows a used one, by bisection; the first such unless jobs are gone."""
        used, free = 0, 1
        while self._is_used(name, free):
            used, free = free, 2 * free
        while free - used > 1:
            middle = (used + free) // 2
            used, free = (middle, free) if self._is_used(name, middle) else (used, middle)
        return free

    def _is_used(self, name: str, number: int) -> bool:
        key = _numbered(name, number)
        return key in self._given or self._view.has_path(f"{self._flow}/{key}")


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}#{number}"
