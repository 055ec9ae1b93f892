"""Building flows in a process of their own, with a deadline each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from reconciler.actual.view import View
from reconciler.build.process import BuildProcess, SpareProcess
from reconciler.desired.flows import build_form
from reconciler.desired.source.git import Source
from reconciler.desired.state import flows_in_build_order
from reconciler.diagnostics import Diagnostic
from reconciler.errors import WorldError
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow, BuiltJob, build_key
from reconciler.model.manifests import OnCodeChange
from reconciler.model.records import FlowRecord

_START_TIMEOUT = 60.0
"""Seconds that a cold interpreter may take to import jobflow, before the deadline of a flow begins."""


class BuildFailedError(Exception):
    """A flow could not be built; carries the diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class FlowBuilder:
    """Builds flows of one revision, in a process that is started, or taken from ``spare``, for the first."""

    def __init__(
        self, source: Source, desired: DesiredState, state_dir: Path, spare: SpareProcess | None = None
    ) -> None:
        self.source = source
        self.desired = desired
        self.code_dir = state_dir / "code"
        self.files_dir = state_dir / "files"
        self._process: BuildProcess | None = None
        self._spare = spare

    def build(self, flow: DesiredFlow, externals: Mapping[str, tuple[str, str]]) -> BuiltFlow:
        """Build one flow.

        Raises
        ------
        BuildFailedError
            The user's code failed, or took longer than ``spec.build_timeout`` of the Project.
        """
        request = self._request(flow, externals)
        answer = self._ask(flow, json.dumps(request).encode() + b"\n")
        if not answer["ok"]:
            raise BuildFailedError(
                flow.manifest.diagnostic(
                    "build/failed",
                    f"flow '{flow.name}' cannot be built: {answer['message']}",
                    answer["pointer"],
                    hint=answer["hint"],
                )
            )
        jobs = [
            msgspec.convert(job | {"payload": job["payload"].encode()}, BuiltJob) for job in answer["jobs"]
        ]
        return BuiltFlow(
            build_key=build_key(flow.inputs, externals),
            jobs=jobs,
            jobflow_version=answer["jobflow"],
            code=flow.code,
            preview={job.key: job.digest for job in flow.preview},
        )

    def close(self) -> None:
        """End the build process and all that it started."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def kill(self) -> None:
        """Kill the build process with all that it started; for another thread, of a program that ends now."""
        process = self._process
        if process is not None:
            process.kill()

    def _request(self, flow: DesiredFlow, externals: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
        files = self._materialise_files(flow)
        recompute = (
            flow.spec.on_code_change or self.desired.project.on_code_change
        ) is OnCodeChange.RECOMPUTE
        return {
            "flow": flow.name,
            "identity": flow.identity,
            "spec": build_form(flow.spec),
            "externals": dict(externals),
            "files": {path: place for path, (place, _) in files.items()},
            "blobs": {place: (blob, Path(path).name) for path, (place, blob) in files.items()},
            "code_as_content": flow.code if recompute else [],
        }

    def _materialise_files(self, flow: DesiredFlow) -> dict[str, tuple[str, str]]:
        """Write the repository's files that the flow names; return {path: (place, blob id)}."""
        blobs = dict(flow.files)
        places = {path: self.files_dir / blob / Path(path).name for path, blob in blobs.items()}
        missing = {blobs[path]: place for path, place in places.items() if not place.exists()}
        for blob, data in self.source.blobs(missing):
            write_file(missing[blob], data)
        for path, place in places.items():
            if not place.exists():  # the same content under two names
                write_file(place, next(data for _, data in self.source.blobs([blobs[path]])))
        return {path: (str(place), blobs[path]) for path, place in places.items()}

    # the process --------------------------------------------------------------------------------------

    def _start(self) -> BuildProcess:
        """Return a process that knows where the code of the flows is."""
        trees = dict.fromkeys(tree for flow in self.desired.flows.values() for tree in flow.code)
        for tree in trees:
            self.source.extract(tree, self.code_dir / tree)
        process = self._spare.take() if self._spare is not None else BuildProcess()
        process.send(json.dumps([str(self.code_dir / tree) for tree in trees]).encode() + b"\n")
        return process

    def _ask(self, flow: DesiredFlow, request: bytes) -> dict[str, Any]:
        try:
            if self._process is None:
                self._process = self._start()
                slow = f"the process that builds flows was not ready after {_START_TIMEOUT:g} s"
                self._read_line(flow, _START_TIMEOUT, slow, "is the machine very busy? try again")
            self._process.send(request)
        except BrokenPipeError:
            raise self._died(flow) from None
        limit = self.desired.project.build_timeout
        hint = "raise spec.build_timeout of the Project, or build less at once"
        line = self._read_line(flow, limit, f"building took longer than {limit:g} s", hint)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read_line(self, flow: DesiredFlow, limit: float, too_slow: str, hint: str) -> bytes:
        assert self._process is not None
        try:
            line = self._process.read_line(limit)
        except TimeoutError:
            self.close()
            raise self._failed(flow, too_slow, hint) from None
        if line is None:
            raise self._died(flow)
        return line

    def _died(self, flow: DesiredFlow) -> BuildFailedError:
        assert self._process is not None
        code, tail = self._process.last_words()
        self.close()
        what = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return self._failed(flow, f"its build process {what}{f': {tail}' if tail else ''}", None)

    def _failed(self, flow: DesiredFlow, message: str, hint: str | None) -> BuildFailedError:
        place = f"/spec/{flow.spec.form}"
        text = f"flow '{flow.name}' cannot be built: {message}"
        return BuildFailedError(flow.manifest.diagnostic("build/failed", text, place, hint=hint))


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that it is there completely or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise WorldError(f"cannot write {path}: {error.strerror}") from error


# Which flows of a revision have been built before, and what their builds refer to.


def known_builds(view: View, desired: DesiredState) -> dict[str, BuiltFlow]:
    """Return the flows that were built before with exactly these inputs."""
    built: dict[str, BuiltFlow] = {}
    for flow in flows_in_build_order(desired.flows):
        externals = external_jobs(flow, built)
        known = view.build(build_key(flow.inputs, externals)) if externals is not None else None
        if known is not None:
            built[flow.name] = known
    return built


def previous_previews(
    view: View, flows: Mapping[str, FlowRecord], built: Mapping[str, BuiltFlow]
) -> dict[str, dict[str, str]]:
    """Return how the manifests of flows looked when they were last applied, for those to be rebuilt."""
    old = {name: view.build(flow.build_key) for name, flow in flows.items() if name not in built}
    return {name: found.preview for name, found in old.items() if found is not None}


def external_jobs(flow: DesiredFlow, built: Mapping[str, BuiltFlow]) -> dict[str, tuple[str, str]] | None:
    """Return uuid and content of the jobs of other flows it refers to; None if one is not built yet."""
    found = {}
    exports = {other: built[other].exports for other in _others(flow) if other in built}
    for reference in flow.externals:
        other, _, job = reference.partition("/")
        exported = exports.get(other, {}).get(job)
        if exported is None:
            return None
        found[reference] = exported
    return found


def _others(flow: DesiredFlow) -> set[str]:
    return {reference.partition("/")[0] for reference in flow.externals}
