"""Records of generated jobs: keys, run config, parents and first state. Works inside a transaction.

A generated job that cannot be taken as its generator made it is FAILED with the reason; the generator keeps
its result.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.jobs.dependencies import initial_state, still_to_come
from reconciler.jobs.job_checks import (
    CheckedJob,
    JobRefusedError,
    check_identity,
    check_job,
    check_policy,
    clean_name,
    config_problem,
)
from reconciler.jobs.job_json import NewJob, is_uuid, payload_json, references, resolves
from reconciler.jobs.outputs import missing_stores
from reconciler.jobs.restarts import REFUSED, no_worker, recreated
from reconciler.jobs.stopping import stopped_parent, without_stopped
from reconciler.jobs.transitions import move, note
from reconciler.model.applied import AppliedConfig
from reconciler.model.flows import digest, job_id
from reconciler.model.records import Cancellation, FlowRecord, GeneratedBy, JobRecord
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
        self._taken: set[str] = set()

    def add(self, new_jobs: Sequence[NewJob], kind: str) -> list[JobRecord]:
        """Create the records of jobs that came together, and return them as they were created.

        ``kind`` is ``replace``, ``detour`` or ``addition``.
        """
        # A job whose uuid cannot be used gets another one, under which the others wait for it.
        renamed: dict[str, str] = {}
        problems: dict[str, str] = {}
        given = []
        for number, (payload, parents) in enumerate(new_jobs):
            try:
                uuid, index = self._identity(payload)
            except JobRefusedError as error:
                seed = f"{self.generator.id}.{self.generator.attempt.number}/{kind}/{number}"
                uuid, index = str(uuid5(NAMESPACE_OID, seed)), 1
                renamed.setdefault(str(payload.get("uuid")), uuid)
                problems[job_id(uuid, index)] = str(error)
            self._taken.add(job_id(uuid, index))
            given.append((uuid, index, payload, parents))
        inside = {uuid for uuid, *_ in given}
        records = []
        for uuid, index, payload, parents in given:
            needs = [renamed.get(parent, parent) for parent in (*parents, *references(_arguments(payload)))]
            problem = problems.get(job_id(uuid, index))
            try:
                job = None if problem is not None else self._checked(payload)
            except JobRefusedError as error:
                job, problem = None, str(error)
            record = self._record(uuid, index, payload, job, needs, inside)
            if problem is None:
                problem = config_problem(self.config, record.config)
            old = self.writer.job(record.id)
            records.append(record if old is None else recreated(old, record))
            if problem is not None:
                problems[record.id] = problem
        for record, (*_, payload, _) in zip(records, given, strict=True):
            refused = record.id in problems
            self.writer.put_payload(record.id, REFUSED if refused else payload_json(payload))
            self.writer.put_job(record)
            note(self.writer, record, "Generated", f"{kind} by {self.generator.path}", self.now)
        for record in records:
            self._begin(record, problems.get(record.id))
        return records

    def _identity(self, payload: dict[str, Any]) -> tuple[str, int]:
        """Return uuid and index of a new job. They must be new, or those of a job that this generator made.

        Raises
        ------
        JobRefusedError
            They belong to another job, or are not valid.
        """
        uuid, index = check_identity(payload)
        if job_id(uuid, index) in self._taken:
            raise JobRefusedError(f"its uuid {uuid} is that of another job of the same response")
        if uuid == self.generator.uuid:
            if index != self.generator.index + 1:
                following = self.generator.index + 1
                raise JobRefusedError(f"its index is {index}, but a job replaces itself by {following}")
            return uuid, index
        generations = self.writer.generations(uuid)
        makers = {job.generated_by.uuid if job.generated_by is not None else None for job in generations}
        # The record of the first generation may have been forgotten; the others came from the job itself.
        if generations and self.generator.uuid not in makers and makers != {uuid}:
            raise JobRefusedError(f"its uuid {uuid} belongs to the job {generations[0].path}")
        return uuid, index

    def _checked(self, payload: dict[str, Any]) -> CheckedJob:
        job = check_job(payload)
        check_policy(self.config.policy, payload)
        missing = missing_stores(self.config.jobstore, job.stores)
        if missing is not None:
            raise JobRefusedError(missing)
        return job

    def _aliases(self, function: str) -> Sequence[str]:
        """Return other paths of a function, if a rule selects by function and the build knows some."""
        if all(rule.function_filter is None for rule in self.config.rules):
            return ()
        built = self.writer.build(self.flow.build_key)
        return built.aliases.get(function, ()) if built is not None else ()

    def _record(
        self,
        uuid: str,
        index: int,
        payload: dict[str, Any],
        job: CheckedJob | None,
        needs: Sequence[str],
        inside: set[str],
    ) -> JobRecord:
        """Return the record of a new job; ``job`` is None if it is refused."""
        generator = self.generator
        name = job.name if job is not None else clean_name(str(payload.get("name") or "job"))[:100]
        replaces = uuid == generator.uuid
        key = f"{generator.key.partition('@')[0]}@{index}" if replaces else self.keys.free(name)
        function = job.function if job is not None else ""
        own = self._own_layer(job.own) if job is not None else {}
        layers = layers_for(
            JobFacts(self.flow.name, self.flow.labels, name, function, True, self._aliases(function)),
            rules=self.config.rules,
            own=own,
            generator=inherited(generator.config) if self._passes_on else {},
            flow=self.flow.layer,
            project=self.config.project_layer,
        )
        parents = list(dict.fromkeys(needs)) if job is not None else []
        if job is not None and resolves(payload):
            parents += [more for more in still_to_come(self.writer, parents) if more not in parents]
        known = [one for one in parents if one in inside or (is_uuid(one) and self.writer.generations(one))]
        return JobRecord(
            uuid=uuid, index=index, flow=self.flow.name, key=key, name=name, function=function,
            state=JobState.WAITING, config=resolve(layers, self.config.worker_defaults, self.config.digests),
            content=digest([generator.content, key]), own=own, parents=without_stopped(self.writer, known),
            on_missing=job.on_missing if job is not None else "error",
            sequence=self.writer.next_number("sequence"), created=self.now, updated=self.now,
            current=generator.current, files=generator.files, code=generator.code,
            generated_by=GeneratedBy(
                uuid=generator.uuid, index=generator.index, attempt=generator.attempt.number,
                inherits=self._passes_on,
            ),
        )  # fmt: skip

    def _own_layer(self, own: dict[str, Any]) -> Layer:
        """Return the job's own run config, without what jobflow merely passed on from the generator."""
        given = self._generator_config
        if self._passes_on and given.get("manager_config") and not given.get("response_manager_config"):
            return {}
        # Python code has no line in a manifest: the pointer leads to the spec of the flow, not to a value in
        # it.
        origin = Origin(Level.JOB, "Flow", self.flow.name, "/spec/(code)")
        return layer_of(own, origin, "/spec/(code)")

    @property
    def _passes_on(self) -> bool:
        return bool(self._generator_config.get("pass_manager_config", True))

    @cached_property
    def _generator_config(self) -> dict[str, Any]:
        """The JobConfig of the generator."""
        raw = self.writer.payload(self.generator.id)
        found: dict[str, Any] = json.loads(raw).get("config") or {} if raw is not None else {}
        return found

    def _begin(self, record: JobRecord, problem: str | None) -> None:
        """Move a new job to its first state; ``problem`` is why it is refused."""
        state, reason = self._first_state(record)
        if problem is not None and state not in (JobState.STOPPED, JobState.USER_STOPPED):
            state = JobState.FAILED
            reason = (
                f"{self.generator.path} has generated a job that is not valid: {problem}; mend its code, "
                f"then `reconcile rerun {shlex.quote(self.generator.path)}`"
            )
        if record.cancellation.rerun:  # an earlier attempt under this id is being cancelled
            if state in (
                JobState.STOPPED,
                JobState.USER_STOPPED,
                JobState.FAILED,
            ):  # and no other one follows
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


def _arguments(payload: Mapping[str, Any]) -> list[Any]:
    return [payload.get("function_args"), payload.get("function_kwargs")]


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}#{number}"
