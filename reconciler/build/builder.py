"""Builds flows in a separate process, with a deadline for each flow."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from reconciler.actual.view import View
from reconciler.build.messages import (
    HEADER,
    LARGEST,
    BuildAnswer,
    BuildRequest,
    clean_text,
    frame,
    runs_user_code,
)
from reconciler.desired.flows import build_form
from reconciler.desired.source.git import Source
from reconciler.desired.state import flows_in_build_order
from reconciler.desired.values import iter_directives, parse_output_reference
from reconciler.diagnostics import Diagnostic, bounded, did_you_mean
from reconciler.errors import LostError, ReconcilerError, TransientError, UnfitError, WorldError
from reconciler.execution.hosts.local import clean_environment, end_group, kill_group
from reconciler.files import atomic_file
from reconciler.jobs.job_json import references
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow, build_key, job_uuid
from reconciler.model.manifests import OnCodeChange
from reconciler.model.records import FlowRecord

_START_TIMEOUT = 60.0
"""Seconds that a new interpreter may take to import jobflow, before the deadline of a flow begins."""


class BuildProcess:
    """A process of :mod:`reconciler.build.server`. It sends an empty message when it has imported everything.

    It has the variables ``env`` from its start: packages read their settings when they are imported.
    ``imported`` are the installed packages that it has imported for flows.

    Raises
    ------
    TransientError
        The machine is out of resources for another process or its files.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.env = dict(env or {})
        self.imported: set[str] = set()
        self._pending = bytearray()
        try:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "reconciler.build.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=_environment() | self.env,
                start_new_session=True,
            )
        except OSError as error:
            raise TransientError(
                f"the build process cannot be started: {error.strerror}",
                hint="check the limits of this machine: memory, processes, open files, temporary files",
            ) from error

    @property
    def is_alive(self) -> bool:
        """Return whether it is still running."""
        return self._process.poll() is None

    def send(self, message: bytes) -> None:
        """Send a message. Raises BrokenPipeError when the process has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(frame(message))
        self._process.stdin.flush()

    def read(self, limit: float) -> bytes | None:
        """Return its next message, or None if it ended or sends no messages any more.

        Raises TimeoutError after ``limit`` seconds.
        """
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        deadline = time.monotonic() + limit
        while True:
            if len(self._pending) >= HEADER.size:
                length = HEADER.unpack_from(self._pending)[0]
                if length > LARGEST:
                    self.kill()
                    return None
                end = HEADER.size + length
                if len(self._pending) >= end:
                    message, self._pending = self._pending[HEADER.size : end], self._pending[end:]
                    return bytes(message)
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            chunk = os.read(pipe, 1 << 20)
            if not chunk:
                return None
            self._pending += chunk

    def last_words(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and the last line of its error output."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return code, lines[-1] if lines else ""

    def kill(self) -> None:
        """Kill it and all that it started, without waiting."""
        kill_group(self._process)

    def close(self) -> None:
        """End it and all that it started."""
        end_group(self._process)
        self._errors.close()


PASSED_ON = "RECONCILER_BUILD_ENV"
"""The variable that names, separated by commas, the variables that the code of flows needs."""

_FOR_BUILDS = frozenset(
    [
        *(
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "MPLCONFIGDIR",
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
            "XDG_DATA_HOME",
        ),
        *("JOBFLOW_CONFIG_FILE", "ATOMATE2_CONFIG_FILE", "PMG_CONFIG_FILE", "PMG_VASP_PSP_DIR"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    ]
)


def _environment() -> dict[str, str]:
    """Return the environment of the build process, which runs the code of the repository.

    It has what a job has, where packages are configured, and what the user passes on: no secret by accident.
    Its PYTHONPATH never means the current directory.
    """
    named = {name.strip() for name in os.environ.get(PASSED_ON, "").split(",")}
    given = {key: value for key, value in os.environ.items() if key in _FOR_BUILDS | named}
    environment = clean_environment(os.environ) | given | {"PYTHONDONTWRITEBYTECODE": "1"}
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(path).is_absolute()]
    return environment | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})


class SpareProcess:
    """One build process in reserve, which has already imported jobflow when a flow must be built."""

    def __init__(self) -> None:
        self._process: BuildProcess | None = None

    def warm(self) -> None:
        """Start a process unless there is one; it imports in the background."""
        if self._process is not None and not self._process.is_alive:
            self.close()
        if self._process is None:
            self._process = BuildProcess()

    def take(self) -> BuildProcess:
        """Return a process that belongs to the caller from now on."""
        self.warm()
        process, self._process = self._process, None
        assert process is not None
        return process

    def kill(self) -> None:
        """Kill the process in reserve, without waiting."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the spare process."""
        if self._process is not None:
            self._process.close()
            self._process = None


class BuildFailedError(Exception):
    """A flow could not be built; carries the diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class FlowBuilder:
    """Builds the flows of one revision, in a process that starts, or comes from ``spare``, with the first.

    A flow with another ``build.env`` gets another process.
    """

    def __init__(
        self, source: Source, desired: DesiredState, state_dir: Path, spare: SpareProcess | None = None
    ) -> None:
        self.source = source
        self.desired = desired
        self.code_dir = state_dir / "code"
        self.files_dir = state_dir / "files"
        self._process: BuildProcess | None = None
        self._spare = spare
        self._names_of: str | None = None
        self._names: dict[str, str] = {}

    def build(self, flow: DesiredFlow, externals: Mapping[str, tuple[str, str]]) -> BuiltFlow:
        """Build one flow.

        Raises
        ------
        BuildFailedError
            The flow cannot be built: its code failed, or took longer than ``spec.build_timeout`` of the
            Project, or its files cannot be had. An unexpected error in here counts as such, so that it stops
            one flow only.
        """
        try:
            answer = self._ask(flow, self._request(flow, externals))
        except (BuildFailedError, TransientError):
            raise
        except (LostError, UnfitError) as error:
            raise self._failed(flow, error.message, error.hint) from error
        except ReconcilerError:
            raise
        except Exception as error:
            self.close()
            raise self.unexpected(flow, error) from error
        problem = answer.problem
        if problem is not None:
            raise self._failed(flow, problem.message, problem.hint, problem.pointer)
        used: Counter[str] = Counter()
        for job in answer.jobs:  # the code of a flow can forge an answer, but names only jobs of this flow
            if job.uuid != job_uuid(flow.identity, job.content, used[job.content]):
                raise self._failed(
                    flow, f"its code gave the job '{clean_text(job.key)}' a foreign uuid", None
                )
            used[job.content] += 1
        return BuiltFlow(
            build_key=build_key(flow.inputs, externals),
            jobs=answer.jobs,
            jobflow_version=answer.jobflow_version,
            code=flow.code,
            python_path=flow.python_path,
            preview={job.key: job.digest for job in flow.preview},
            form=flow.content,
            files=flow.files,
            externals=dict(externals),
            aliases=answer.aliases,
            output=answer.output,
            makers=flow.makers,
            imports=sorted(
                {self._names[tree] for tree in self._names if str(self.code_dir / tree) in answer.used}
                - {self._names[tree] for tree in flow.scanned if tree in self._names}
            ),
        )

    def unexpected(self, flow: DesiredFlow, error: Exception) -> BuildFailedError:
        """Return the failure of a flow because of an error that nobody foresaw."""
        message = f"unexpected {type(error).__name__}: {clean_text(str(error))}"
        return self._failed(flow, message, "this is a bug in reconciler; please report it")

    def close(self) -> None:
        """End the build process and all processes that it started."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def kill(self) -> None:
        """Kill the build process and all that it started; called by another thread when the program ends."""
        process = self._process
        if process is not None:
            process.kill()

    def _request(self, flow: DesiredFlow, externals: Mapping[str, tuple[str, str]]) -> BuildRequest:
        for directory in (self.code_dir, self.files_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = self._materialise_files(flow)
        spec = build_form(flow.spec)
        # A build that runs only installed code must not find it in the repository: other flows follow it.
        trees = flow.python_path if flow.code or runs_user_code(spec) else []
        for tree in trees:
            self.source.extract(tree, self.code_dir / tree)
        commit, project = self.desired.revision.commit, self.desired.project
        if self._names_of != commit:
            directories = {self.source.tree_id(commit, name): name for name in project.python_path}
            self._names_of, self._names = commit, {tree: name for tree, name in directories.items() if tree}
        recompute = (flow.spec.on_code_change or project.on_code_change) is OnCodeChange.RECOMPUTE
        return BuildRequest(
            token=secrets.token_hex(16),
            flow=flow.name,
            identity=flow.identity,
            spec=spec,
            externals=dict(externals),
            files={path: place for path, (place, _) in files.items()},
            blobs=dict(files.values()),
            code={str(self.code_dir / tree): self._names.get(tree, "") for tree in trees},
            code_as_content=flow.code if recompute else [],
            filters=sorted({rule.function_filter for rule in self.desired.rules if rule.function_filter}),
            callables=self.desired.policy.callables if self.desired.policy is not None else None,
        )

    def _materialise_files(self, flow: DesiredFlow) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Write the files of the repository that the flow names.

        Return {path: (place of the copy, (blob id, file name, and ``x`` if it is executable))}.
        """
        places = {}
        for path, blob, *executable in flow.files:
            name = Path(path).name
            place = self.files_dir / "".join([blob, *executable]) / name
            places[path] = (str(place), (blob, name, *executable))
            if not place.exists():
                ((_, data),) = self.source.blobs([blob])
                write_file(place, data, executable=bool(executable))
        return places

    # the process --------------------------------------------------------------------------------------

    def _ask(self, flow: DesiredFlow, request: BuildRequest) -> BuildAnswer:
        try:
            if self._process is not None and not self._suits(self._process, flow, request):
                self.close()
            if self._process is None:
                spare = self._spare if not flow.env else None
                self._process = spare.take() if spare is not None else BuildProcess(flow.env)
                slow = f"the build process was not ready after {_START_TIMEOUT:g} s"
                self._read(
                    flow, _START_TIMEOUT, slow, "check whether the machine is very busy, and try again"
                )
            self._process.send(msgspec.msgpack.encode(request))
        except BrokenPipeError:
            raise self._died(flow) from None
        limit = self.desired.project.build_timeout
        hint = "raise spec.build_timeout of the Project, or split the flow"
        deadline = time.monotonic() + limit
        while True:  # the code of an earlier flow may have written to the stream of answers
            left = deadline - time.monotonic()
            raw = self._read(flow, left, f"building took longer than {limit:g} s", hint)
            with contextlib.suppress(msgspec.DecodeError):
                answer = msgspec.msgpack.decode(raw, type=BuildAnswer)
                if answer.token == request.token:
                    self._process.imported |= {name.partition(".")[0] for name in answer.imported}
                    return answer

    def _suits(self, process: BuildProcess, flow: DesiredFlow, request: BuildRequest) -> bool:
        """Return whether a flow builds in a process as it would in a new one.

        Not with another environment, nor if the code of the flow has a module of the name of an installed
        package that an earlier flow imported: the flow would get that package.
        """
        if process.env != flow.env:
            return False
        trees = flow.python_path if request.code and process.imported else []
        names = {name.removesuffix(".py") for tree in trees for name in self.source.top_level_names(tree)}
        return names.isdisjoint(process.imported)

    def _read(self, flow: DesiredFlow, limit: float, too_slow: str, hint: str) -> bytes:
        assert self._process is not None
        try:
            message = self._process.read(limit)
        except TimeoutError:
            self.close()
            raise self._failed(flow, too_slow, hint) from None
        if message is None:
            raise self._died(flow)
        return message

    def _died(self, flow: DesiredFlow) -> BuildFailedError:
        assert self._process is not None
        code, tail = self._process.last_words()
        self.close()
        what = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return self._failed(flow, f"its build process {what}{f': {tail}' if tail else ''}", None)

    def _failed(
        self, flow: DesiredFlow, message: str, hint: str | None, pointer: str | None = None
    ) -> BuildFailedError:
        text = f"flow '{flow.name}' cannot be built: {message}"
        place = pointer or f"/spec/{flow.spec.form}"
        return BuildFailedError(bounded(flow.manifest.diagnostic("build/failed", text, place, hint=hint)))


def write_file(path: Path, data: bytes, *, executable: bool = False) -> None:
    """Write a file atomically: it exists completely or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, sync=False) as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), 0o755 if executable else 0o644)
    except OSError as error:
        raise WorldError(f"cannot write {path}: {error.strerror}") from error


# Earlier builds, and the jobs that a build refers to.


def known_builds(find: Callable[[str], BuiltFlow | None], desired: DesiredState) -> dict[str, BuiltFlow]:
    """Return the flows that have been built before with exactly these inputs; ``find`` gets a build key."""
    built: dict[str, BuiltFlow] = {}
    for flow in flows_in_build_order(desired.flows):
        externals = external_jobs(flow, built)
        known = find(build_key(flow.inputs, externals)) if externals is not None else None
        if known is not None:
            built[flow.name] = known
    return built


def former_builds(
    view: View, flows: Mapping[str, FlowRecord], built: Mapping[str, BuiltFlow]
) -> dict[str, BuiltFlow]:
    """Return the builds as which flows were last applied, of all flows that now have another one or none."""
    found: dict[str, BuiltFlow] = {}
    for name, flow in flows.items():
        if name not in built or built[name].build_key != flow.build_key:
            former = view.build(flow.build_key)
            if former is not None:
                found[name] = former
    return found


def missing_jobs(flow: DesiredFlow, built: Mapping[str, BuiltFlow]) -> Diagnostic | None:
    """Return the problem of a flow that refers to a job which a built flow does not have."""
    for pointer, directive, value in iter_directives(flow.manifest.spec, "/spec"):
        if directive != "$output":
            continue
        other, job, _ = parse_output_reference(value)
        if other is not None and other in built and other != flow.name and job not in built[other].exports:
            what = f"a job '{job}'" if job else "an output of its own"
            message = f"flow '{flow.name}' cannot be built: flow '{other}' does not have {what}"
            keys = [key for key in built[other].exports if key]
            hint = did_you_mean(job, keys) if job else "name one of its jobs with 'job'"
            return flow.manifest.diagnostic("build/failed", message, f"{pointer}/$output", hint=hint)
    return None


def external_jobs(flow: DesiredFlow, built: Mapping[str, BuiltFlow]) -> dict[str, tuple[str, str]] | None:
    """Return {reference: (uuid, content)} of the jobs of other flows; None if one is not built yet.

    With the output of a flow, ``flow/``, come the jobs that it refers to.
    """
    others = {reference.partition("/")[0] for reference in flow.externals}
    exports = {other: built[other].exports for other in others if other in built}
    found = {}
    for reference in flow.externals:
        other, _, job = reference.partition("/")
        exported = exports.get(other, {}).get(job)
        if exported is None:
            return None
        found[reference] = exported
        if not job:
            used = set(references(json.loads(exported[0])))
            found |= {
                f"{other}/{one.key}": (one.uuid, one.content) for one in built[other].jobs if one.uuid in used
            }
    return found
