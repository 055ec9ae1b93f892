"""The build process: answers each request to build a flow. Runs the user's code.

:mod:`reconciler.build.builder` starts it as ``python -P -m reconciler.build.server``. It imports jobflow
once and forks for each flow that runs more than installed code, so a flow builds as if it were alone:
whatever its code does to the directory, the environment, the path or the modules of its process does not
reach the next flow. A crash or an endless loop affects one process and nothing else.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import random
import select
import signal
import site
import sys
import sysconfig
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import msgspec
from jobflow import Flow, Job

from reconciler.build.calls import check_call
from reconciler.build.construct import Construction, jobs_in
from reconciler.build.function_paths import function_paths
from reconciler.build.identity import IdentifiedJob, identify, renamed
from reconciler.build.messages import (
    LARGEST,
    BuildAnswer,
    BuildProblem,
    BuildRequest,
    clean_text,
    frame,
    read_frame,
    runs_user_code,
)
from reconciler.build.round_trip import PayloadError, check_payload
from reconciler.build.user_code import BuildError, headline, where_raised
from reconciler.errors import ExitCode
from reconciler.execution.launcher import plain
from reconciler.jobs.job_checks import JobRefusedError, check_identity, check_job, clean_name
from reconciler.jobs.job_json import references
from reconciler.model.flows import BuiltJob, unique_keys

_JOBFLOW_VERSION = importlib.metadata.version("jobflow")

_PARENT_CHECK_INTERVAL = 1.0
"""Seconds between two checks that the parent process is still running."""

_CHILD_CHECK_INTERVAL = 0.05
"""Seconds between two checks that the process of a flow is still running."""


def main() -> None:
    """Report that all is imported, then answer requests until their stream ends."""
    # The user's code gets neither the stream of requests nor that of answers: its standard input is empty,
    # and what it prints goes to standard error.
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    warnings.simplefilter("ignore")
    gc.freeze()
    own = _Surroundings()
    answers.write(frame(b""))
    answers.flush()
    while (message := read_frame(requests)) is not None:
        request = msgspec.msgpack.decode(message, type=BuildRequest)
        if request.code or runs_user_code(request.spec):
            encoded = _answer_of_child(request, [requests, answers])
        else:
            with own.kept():
                encoded = _encoded(answer(request))
        answers.write(frame(encoded))
        answers.flush()
        missing = [name for name in _imported_by(encoded) if name not in sys.modules]
        if missing:
            with own.kept():
                _import_installed(missing)


def _end_with(parent: int) -> None:
    """End this process and all that it started when its parent has been killed.

    The user's code may never return to where the end of the requests is noticed.
    """
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_INTERVAL)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class _Surroundings:
    """Directory, environment and path of this process, which imports of installed modules may change."""

    def __init__(self) -> None:
        self._directory = os.open(".", os.O_RDONLY)
        self._environment, self._path = dict(os.environ), list(sys.path)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Restore them after a block if anything was imported in it: nothing else runs code here."""
        before = len(sys.modules)
        try:
            yield
        finally:
            if len(sys.modules) != before:
                os.environ.clear()
                os.environ.update(self._environment)
                sys.path[:] = self._path
                os.fchdir(self._directory)


def _imported_by(encoded: bytes) -> list[str]:
    return msgspec.msgpack.decode(encoded, type=_Imported).imported


class _Imported(msgspec.Struct):
    """The part of a :class:`BuildAnswer` that the process itself needs."""

    imported: list[str] = []


def _answer_of_child(request: BuildRequest, private: list[IO[bytes]]) -> bytes:
    """Return the answer of a new process to a request; ``private`` are streams that it must not have."""
    errors_before = os.fstat(2).st_size
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            for stream in private:
                os.close(stream.fileno())
            _become_fresh(list(request.code))
            _write_all(writing, frame(_encoded(answer(request))))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(ExitCode.BUG)
    os.close(writing)
    received = b""
    ended: int | None = None
    with os.fdopen(reading, "rb", buffering=0) as stream:
        # A process that the code of the flow left behind may hold the pipe open, so its end does not tell
        # all.
        while not _is_complete(received) and len(received) <= LARGEST:
            if select.select([stream], [], [], _CHILD_CHECK_INTERVAL)[0]:
                chunk = stream.read(1 << 20)
                if not chunk:
                    break
                received += chunk
            elif ended is not None:
                break
            else:
                done, status = os.waitpid(child, os.WNOHANG)
                ended = status if done else None
    if ended is None:
        _, ended = os.waitpid(child, 0)
    if _is_complete(received):
        return _checked(received[_HEADER_SIZE:], request)
    code = os.waitstatus_to_exitcode(ended)
    what = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    tail = os.pread(2, 100_000, max(errors_before, os.fstat(2).st_size - 100_000))
    lines = tail.decode(errors="backslashreplace").strip().splitlines()
    message = f"its build process {what}{f': {lines[-1]}' if lines else ''}"
    return _encoded(BuildAnswer(token=request.token, problem=BuildProblem(message)))


_HEADER_SIZE = len(frame(b""))


def _checked(encoded: bytes, request: BuildRequest) -> bytes:
    """Return the answer of a child; its code could write to the stream, so another answer is a problem."""
    try:
        if msgspec.msgpack.decode(encoded, type=BuildAnswer).token == request.token:
            return encoded
    except (msgspec.DecodeError, RecursionError):
        pass
    problem = BuildProblem("its code wrote to the stream for the answer of the build process")
    return _encoded(BuildAnswer(token=request.token, problem=problem))


def _is_complete(received: bytes) -> bool:
    return len(received) >= _HEADER_SIZE and len(received) >= _HEADER_SIZE + int.from_bytes(
        received[:_HEADER_SIZE], "big"
    )


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _encoded(answer: BuildAnswer) -> bytes:
    try:
        return msgspec.msgpack.encode(answer)
    except (UnicodeEncodeError, OverflowError, ValueError) as error:
        problem = f"a name or setting of its jobs cannot be stored: {headline(error)}"
        failed = BuildAnswer(token=answer.token, problem=BuildProblem(clean_text(problem)))
        return msgspec.msgpack.encode(failed)


def _import_installed(names: list[str]) -> None:
    """Import modules here that the build of a flow needed, so that the next flows find them imported.

    Only installed packages: the code of the repository belongs to one flow and is imported for each.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException:  # the flow that needs it will report the error, if there is one
            sys.modules.pop(name, None)
    gc.freeze()  # what a child need not look at, it need not copy


# In the process of one flow ---------------------------------------------------------------------------------


def answer(request: BuildRequest) -> BuildAnswer:
    """Build one flow; any error becomes part of the answer."""
    known = set(sys.modules)
    try:
        jobs, output = _build(request)
    except BuildError as error:
        hint = None if error.hint is None else clean_text(error.hint)
        problem = BuildProblem(clean_text(error.message), error.pointer, hint)
        return BuildAnswer(token=request.token, problem=problem)
    except BaseException as error:  # also SystemExit and the like, which only end this process
        where = where_raised(error, request.code)
        problem = BuildProblem(clean_text(f"{headline(error)}{where}"))
        return BuildAnswer(token=request.token, problem=problem)
    try:
        aliases = function_paths({job.function for job in jobs}, request.code, request.filters)
    except Exception:  # selectors then match the path of the definition only
        aliases = {}
    return BuildAnswer(
        token=request.token,
        jobs=jobs,
        aliases=aliases,
        output=output,
        jobflow_version=_JOBFLOW_VERSION,
        imported=_installed(set(sys.modules) - known),
        used=_used(request.code),
    )


def _become_fresh(code: list[str]) -> None:
    """Make the user's code importable, here and in new processes, and seed random numbers anew."""
    sys.path[:0] = code
    known = os.environ.get("PYTHONPATH")
    if code:
        os.environ["PYTHONPATH"] = os.pathsep.join([*code, *([known] if known else [])])
    importlib.invalidate_caches()
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _build(request: BuildRequest) -> tuple[list[BuiltJob], str]:
    """Return the jobs of a flow, and its own output as JSON if that refers to its jobs and to no others."""
    construction = Construction(
        externals={name: uuid for name, (uuid, _) in request.externals.items()},
        files=request.files,
        code=request.code,
        callables=request.callables,
    )
    made = construction.build(request.spec, request.flow)
    for job in jobs_in(made):
        try:
            check_payload(job)
        except PayloadError as error:
            raise BuildError(error.message, construction.place(job, error.place), error.hint) from error
        check_call(job, construction.place(job, "function"))
    items = identify(
        made,
        identity=request.identity,
        externals=dict(request.externals.values()),
        files=request.blobs,
        code=request.code_as_content,
    )
    ids = {job.uuid: key for key, job in construction.jobs.items()}
    names = [ids.get(item.job.uuid) or clean_name(str(item.job.name)) for item in items]
    jobs = [_described(item, key) for item, key in zip(items, unique_keys(names), strict=True)]
    output = made.output if isinstance(made, Flow | Job) else None
    referred = {item.job.uuid: item.uuid for item in items}
    try:
        encoded = renamed(plain(output), referred, {}, set())
    except (TypeError, ValueError):  # not data, so no flow can use it
        return jobs, ""
    used = set(references(encoded))
    return jobs, json.dumps(encoded) if used and used <= set(referred.values()) else ""


def _described(item: IdentifiedJob, key: str) -> BuiltJob:
    payload = item.payload
    try:
        _, index = check_identity({"uuid": item.uuid, "index": item.job.index})
        job = check_job(payload)
    except JobRefusedError as error:
        raise BuildError(f"the job '{clean_name(key)}' is not valid: {error}", "") from error
    described = {
        "key": key,
        "uuid": item.uuid,
        "index": index,
        "name": job.name,
        "function": job.function,
        "content": item.content,
        "parents": item.parents,
        "on_missing": job.on_missing,
        "own": job.own,
        "files": item.files,
        "hosts": job.hosts,
        "stores": job.stores,
        "payload": json.dumps(payload).encode(),
    }
    return msgspec.convert(described, BuiltJob)


def _used(code: Iterable[str]) -> list[str]:
    """Return those directories that a module of this process comes from."""
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    places = [str(spec.origin or "") for spec in specs if spec is not None]
    places += [
        str(place) for spec in specs if spec is not None for place in spec.submodule_search_locations or ()
    ]
    return [name for name in code if any(place.startswith(f"{name}{os.sep}") for place in places)]


def _installed(names: set[str]) -> list[str]:
    """Return those modules that are part of installed packages."""
    if not names:
        return []
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib")}
    folders = tuple(
        f"{path}{os.sep}" for path in (*paths, *site.getsitepackages(), site.getusersitepackages())
    )
    found = []
    for name in sorted(names):
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if spec is not None and spec.name == name and str(spec.origin or "").startswith(folders):
            found.append(name)
    return found


if __name__ == "__main__":
    main()
