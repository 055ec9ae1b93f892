"""Builds flows in separate processes, with a deadline for each flow."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from reconciler.actual.view import View
from reconciler.build.messages import BuildAnswer, BuildRequest, clean_text, runs_user_code
from reconciler.build.process import BuildProcess, SpareProcess, wait_for
from reconciler.desired.flows import build_form
from reconciler.desired.source.git import Source
from reconciler.desired.state import flows_in_build_order
from reconciler.desired.values import iter_directives, parse_output_reference
from reconciler.diagnostics import Diagnostic, bounded, did_you_mean
from reconciler.errors import LostError, ReconcilerError, TransientError, UnfitError, WorldError
from reconciler.files import atomic_file
from reconciler.jobs.job_json import references
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow, build_key, job_uuid
from reconciler.model.manifests import OnCodeChange
from reconciler.model.records import FlowRecord

_START_TIMEOUT = 60.0
"""Seconds that a new interpreter may take to import jobflow, before the deadline of a flow begins."""

_SENT_AHEAD = 0.05
"""Seconds of work that a process has before it, so that it need not wait for the next flow."""

_MOST_AHEAD = 64
_SECOND_AFTER = 1.0
"""Seconds that flows have waited for the first process when a second one starts: about what that costs."""


class BuildFailedError(Exception):
    """A flow could not be built; carries the diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class _Order(msgspec.Struct, frozen=True):
    """A flow to build, and the request to the process; ``modules`` are those at the top of its code."""

    flow: DesiredFlow
    externals: Mapping[str, tuple[str, str]]
    modules: frozenset[str]
    token: str
    message: bytes


class _Line:
    """A process and the flows that it has been sent, which it builds one after the other.

    ``since`` is the time from which the deadline counts: of the start, or of the first flow. ``imported`` are
    the installed packages that it has imported for flows.
    """

    def __init__(self, process: BuildProcess) -> None:
        self.process = process
        self.orders: deque[_Order] = deque()
        self.imported: set[str] = set()
        self.ready = False
        self.since = time.monotonic()


class FlowBuilder:
    """Builds the flows of one revision: :meth:`start` flows, and get each from :meth:`next`.

    The process starts, or comes from ``spare``, with the first flow. A second one joins it if flows wait
    long and there is a core for it. A flow that does not suit a process, such as one with another
    ``build.env``, gets another one.
    """

    def __init__(
        self, source: Source, desired: DesiredState, state_dir: Path, spare: SpareProcess | None = None
    ) -> None:
        self.source = source
        self.desired = desired
        self.code_dir = state_dir / "code"
        self.files_dir = state_dir / "files"
        self._spare = spare
        self._names_of: str | None = None
        self._names: dict[str, str] = {}
        self._modules: dict[str, set[str]] = {}
        self._waiting: deque[_Order] = deque()
        self._lines: list[_Line] = []
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._most_lines = min(2, cores)
        self._began = 0.0
        self._answers = 0
        self._waited = 0.0

    def start(self, flow: DesiredFlow, externals: Mapping[str, tuple[str, str]]) -> None:
        """Have a flow built; :meth:`next` returns it when it is done.

        Raises
        ------
        BuildFailedError
            The flow cannot be built: its files or its code cannot be had. An unexpected error in here counts
            as such, so that it stops one flow only.
        """
        try:
            request = self._request(flow, externals)
            message = msgspec.msgpack.encode(request)
            trees = flow.python_path if request.code else []
            modules = frozenset(name for tree in trees for name in self._modules_in(tree))
        except TransientError:
            raise
        except (LostError, UnfitError) as error:
            raise self._failed(flow, error.message, error.hint) from error
        except ReconcilerError:
            raise
        except Exception as error:
            raise self.unexpected(flow, error) from error
        self._waiting.append(_Order(flow, externals, modules, request.token, message))

    @property
    def unfinished(self) -> int:
        """The number of flows that were started and have not been returned."""
        return len(self._waiting) + sum(len(line.orders) for line in self._lines)

    @property
    def is_full(self) -> bool:
        """Whether the processes have enough to do; then get finished flows before starting others."""
        return self.unfinished > self._ahead * self._most_lines

    def next(self) -> tuple[DesiredFlow, BuiltFlow | BuildFailedError]:
        """Wait until a flow is finished that was started, and return it with its build.

        It failed if its code failed, or took longer than ``spec.build_timeout`` of the Project.

        Raises
        ------
        TransientError
            No process can be started.
        """
        while True:
            self._send()
            for line in list(self._lines):
                found = self._finished(line)
                if found is not None:
                    return found
            if not self._lines:  # they have ended: start another one
                continue
            now = time.monotonic()
            ends = [line.since + self._limit(line) for line in self._lines if line.orders]
            wait_for([line.process for line in self._lines], max(0.0, min(ends) - now))
            if self._waiting and all(line.ready for line in self._lines):
                self._waited += time.monotonic() - now

    def _built(self, order: _Order, answer: BuildAnswer) -> BuiltFlow:
        flow, problem = order.flow, answer.problem
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
            build_key=build_key(flow.inputs, order.externals),
            jobs=answer.jobs,
            jobflow_version=answer.jobflow_version,
            code=flow.code,
            python_path=flow.python_path,
            preview={job.key: job.digest for job in flow.preview},
            form=flow.content,
            files=flow.files,
            externals=dict(order.externals),
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
        """End the build processes and all processes that they started."""
        self._waiting.clear()
        while self._lines:
            self._lines.pop().process.close()

    def kill(self) -> None:
        """Kill the build processes and all that they started, for another thread when the program ends."""
        for line in list(self._lines):
            line.process.kill()

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

    # the processes ------------------------------------------------------------------------------------

    @property
    def _ahead(self) -> int:
        """How many flows a process gets in advance: many that are built fast, only one that takes long."""
        passed = time.monotonic() - self._began
        return max(1, min(_MOST_AHEAD, int(_SENT_AHEAD * self._answers / passed))) if self._answers else 1

    def _limit(self, line: _Line) -> float:
        return self.desired.project.build_timeout if line.ready else _START_TIMEOUT

    def _send(self) -> None:
        """Send flows that wait to the processes that can take some more; start processes for them."""
        while self._waiting:
            line = self._line_for(self._waiting[0])
            if line is None:
                return
            if not line.orders and line.ready:
                line.since = time.monotonic()
            order = self._waiting.popleft()
            line.orders.append(order)
            line.process.send(order.message)

    def _line_for(self, order: _Order) -> _Line | None:
        """Return the process that gets a flow now; None if one must finish a flow before.

        A flow with code of its own gets a process without flows: what those import can matter to it.
        """
        ahead = 1 if order.modules else self._ahead
        free = sorted((line for line in self._lines if len(line.orders) < ahead), key=lambda x: len(x.orders))
        line = next((line for line in free if self._suits(line, order)), None)
        if line is not None or not self._lines:
            return line or self._start_line(order.flow.env)
        idle = next((line for line in free if not line.orders), None)
        if idle is not None:
            self._lines.remove(idle)
            idle.process.close()
            return self._start_line(order.flow.env)
        if len(self._lines) >= self._most_lines or self._waited < _SECOND_AFTER:
            return None
        try:
            return self._start_line(order.flow.env)
        except TransientError:  # one is enough
            self._most_lines = 1
            return None

    def _suits(self, line: _Line, order: _Order) -> bool:
        """Return whether a flow builds in a process as it would in a new one.

        Not with another environment, nor if the code of the flow has a module of the name of an installed
        package that an earlier flow imported: the flow would get that package.
        """
        if line.process.env != order.flow.env:
            return False
        return order.modules.isdisjoint(line.imported)

    def _modules_in(self, tree: str) -> set[str]:
        """Return the names of modules and packages at the top of a tree; git is asked only once."""
        if tree not in self._modules:
            self._modules[tree] = {name.removesuffix(".py") for name in self.source.top_level_names(tree)}
        return self._modules[tree]

    def _start_line(self, env: Mapping[str, str]) -> _Line:
        from_spare = self._spare is not None and not env and not self._lines
        line = _Line(self._spare.take() if self._spare and from_spare else BuildProcess(env))
        self._lines.append(line)
        return line

    def _finished(self, line: _Line) -> tuple[DesiredFlow, BuiltFlow | BuildFailedError] | None:
        """Return the first flow of a line if it is built, or cannot be."""
        while (message := line.process.take()) is not None:
            if not line.ready:
                line.ready, line.since = True, time.monotonic()
                self._began = self._began or line.since
            elif line.orders:  # the code of an earlier flow may have written to the stream of answers
                with contextlib.suppress(msgspec.DecodeError):
                    answer = msgspec.msgpack.decode(message, type=BuildAnswer)
                    if answer.token == line.orders[0].token:
                        return self._taken(line, answer)
        if line.process.ended:
            code, tail = line.process.last_words()
            what = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return self._lost(line, f"its build process {what}{f': {tail}' if tail else ''}", None)
        limit = self._limit(line)
        if line.orders and time.monotonic() >= line.since + limit:
            if line.ready:
                hint = "raise spec.build_timeout of the Project, or split the flow"
                return self._lost(line, f"building took longer than {limit:g} s", hint)
            slow = f"the build process was not ready after {limit:g} s"
            return self._lost(line, slow, "check whether the machine is very busy, and try again")
        return None

    def _taken(self, line: _Line, answer: BuildAnswer) -> tuple[DesiredFlow, BuiltFlow | BuildFailedError]:
        order = line.orders.popleft()
        line.since = time.monotonic()
        line.imported |= {name.partition(".")[0] for name in answer.imported}
        self._answers += 1
        try:
            return order.flow, self._built(order, answer)
        except BuildFailedError as error:
            return order.flow, error
        except Exception as error:
            return order.flow, self.unexpected(order.flow, error)

    def _lost(
        self, line: _Line, message: str, hint: str | None
    ) -> tuple[DesiredFlow, BuildFailedError] | None:
        """End a line. Its first flow has failed, if it had one; the others wait for another process."""
        self._lines.remove(line)
        line.process.close()
        if not line.orders:
            return None
        first = line.orders.popleft()
        self._waiting.extendleft(reversed(line.orders))
        return first.flow, self._failed(first.flow, message, hint)

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
