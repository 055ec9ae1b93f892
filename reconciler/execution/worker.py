"""One worker from the executor's side: its files, its queue, and how a job of it ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from reconciler.errors import TransientError
from reconciler.execution import launch
from reconciler.execution.hosts import LocalHost
from reconciler.execution.outputs import Outputs, needed_outputs
from reconciler.execution.queues import ShellQueue
from reconciler.execution.result import JobResult, read_result
from reconciler.model.manifests import ExecConfigSpec, WorkerSpec
from reconciler.model.records import AppliedConfig, JobRecord
from reconciler.model.states import JobState

_TAIL = 4000


class Ended(msgspec.Struct, frozen=True):
    """How an attempt ended, by its own files.

    ``result`` is what the launcher wrote; without one ``error`` and ``state`` say what became of the job.
    ``still_runs_as`` is the queue id under which it is running after all.
    """

    result: JobResult | None = None
    error: str = ""
    state: JobState = JobState.FAILED
    still_runs_as: str | None = None


class Repository(msgspec.Struct, frozen=True):
    """What a worker needs of the user's repository: code trees and single files."""

    extract: Callable[[str, Path], None]
    blobs: Callable[[Iterable[str]], Iterator[tuple[str, bytes]]]


class WorkerAccess:
    """The files and the queue of one worker on this machine."""

    def __init__(self, name: str, spec: WorkerSpec, repository: Repository) -> None:
        self.name = name
        self.spec = spec
        self.repository = repository
        self.host = LocalHost()
        self.queue = ShellQueue(self.host, spec.timeout_execute)
        self.place = launch.place_of(spec, self.host.expand)
        self.work_dir = self.place.work_dir
        self._outbox = self.place.outbox

    # the outbox ---------------------------------------------------------------------------------------

    def markers(self) -> set[str]:
        """Return the markers of attempts that have ended."""
        return set(self.host.listing(self._outbox))

    def marker(self, job: JobRecord) -> str:
        """Return the name of the marker that the current attempt of a job will drop."""
        return launch.marker_name(job)

    def clear(self, jobs: Sequence[JobRecord]) -> None:
        """Remove the markers of jobs that were taken in."""
        self.clear_markers([self.marker(job) for job in jobs])

    def clear_markers(self, names: Sequence[str]) -> None:
        """Remove markers by name."""
        self.host.remove(f"{self._outbox}/{name}" for name in names)

    # uploading ----------------------------------------------------------------------------------------

    def upload(self, job: JobRecord, payload: bytes, config: AppliedConfig, outputs: Outputs) -> None:
        """Write everything that a job needs into its run directory; may be repeated.

        Raises
        ------
        TransientError
            The disk is full or not writable.
        ValueError
            There is no exec_config of the name that the job has.
        InputError
            The resources do not fit the scheduler.
        """
        for tree in job.code:
            self._extract(tree)
        self._provide_launcher()
        documents, blobs = needed_outputs(json.loads(payload), outputs)
        files = [
            *self._repository_files(job),
            (launch.INPUT, launch.job_input(job, payload, documents, blobs)),
            (launch.SCRIPT, script_of(job, config, self.spec, self.place).encode()),
        ]
        self.host.write((f"{job.run_dir}/{name}", data) for name, data in files)

    def _provide_launcher(self) -> None:
        path = self.place.launcher
        if not self.host.exists(path):
            self.host.write([(f"{self._outbox}/.keep", b""), (path, launch.launcher_source())])

    def _extract(self, tree: str) -> None:
        try:
            self.repository.extract(tree, Path(self.place.code(tree)))
        except OSError as error:
            raise TransientError(f"cannot write to {self.work_dir}: {error.strerror}") from error

    def _repository_files(self, job: JobRecord) -> Iterator[tuple[str, bytes]]:
        for blob, name in job.files:
            for _, data in self.repository.blobs([blob]):
                yield f"files/{blob}/{name}", data

    # around the start ---------------------------------------------------------------------------------

    def is_claimed(self, job: JobRecord) -> bool:
        """Whether the run directory of the current attempt has been used before."""
        return self.host.exists(f"{job.run_dir}/{launch.CLAIM}")

    def withdraw(self, job: JobRecord) -> bool:
        """Take the claim of an attempt before its script does; False if the script was faster.

        Raises
        ------
        TransientError
            The claim cannot be made.
        """
        return self.host.make_directory(f"{job.run_dir}/{launch.CLAIM}")

    def claimed_by(self, job: JobRecord) -> str | None:
        """Return the process that has claimed the current attempt, or None if none has."""
        raw = self.host.read(f"{job.run_dir}/{launch.CLAIM}/pid")
        return raw.decode(errors="replace").strip() or None if raw is not None else None

    def ending(self, job: JobRecord, *, lost: bool) -> Ended:
        """Return how an attempt ended; ``lost`` when its queue has forgotten it and there is no marker."""
        raw = self.host.read(f"{job.run_dir}/{launch.RESULT}")
        if raw is not None:
            try:
                return Ended(result=read_result(raw))
            except ValueError as error:
                return Ended(error=f"its {launch.RESULT} is damaged: {error}", state=JobState.REMOTE_ERROR)
        if lost:
            claimed = self.claimed_by(job)
            if claimed is None:
                return Ended(error=self._explain(job, "it never started"), state=JobState.REMOTE_ERROR)
            if claimed != job.queue_id and self.queue.alive({claimed: job.submitted or 0.0}):
                return Ended(still_runs_as=claimed)
        return Ended(error=self._explain(job, self._exit_text(job)))

    def _exit_text(self, job: JobRecord) -> str:
        if not self.is_claimed(job):
            return "its run directory is gone: removed by the job itself, or by somebody else"
        raw = self.host.read(f"{job.run_dir}/{launch.CLAIM}/exit_code")
        if raw is None:
            return (
                "its process vanished without an exit code: killed, out of memory, or the machine restarted"
            )
        code = int(raw) if raw.strip().isdigit() else 1
        signal = f" (signal {code - 128})" if code > 128 else ""
        return f"it ended without a result, exit code {code}{signal}"

    def _explain(self, job: JobRecord, headline: str) -> str:
        tail = self.host.tail(f"{job.run_dir}/queue.err", _TAIL).strip()
        return f"{tail}\n{headline}" if tail else headline


def script_of(job: JobRecord, config: AppliedConfig, worker: WorkerSpec, place: launch.Place) -> str:
    """Return the submission script of an attempt; asks neither the worker nor the store.

    Raises
    ------
    ValueError
        There is no exec_config of the name that the job has.
    InputError
        The resources do not fit the scheduler.
    """
    return launch.submission_script(job, worker, place, _exec_config(job, config))


def _exec_config(job: JobRecord, config: AppliedConfig) -> ExecConfigSpec:
    """Return the exec_config of a job: a named one, an inline one, or none."""
    value = job.config.value("exec_config")
    if isinstance(value, dict):
        return msgspec.convert(value, ExecConfigSpec)
    if value is None:
        return ExecConfigSpec()
    found = config.commands.get(job.config.commands or "")
    if found is None:
        raise ValueError(f"there is no ExecConfig named '{value}' any more")
    return found
