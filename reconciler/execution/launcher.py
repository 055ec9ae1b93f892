"""Runs one job in its run directory: ``python launcher.py`` beside ``job.json``.

This file travels to workers and is the only part of reconciler there. It imports nothing but the standard
library, jobflow and what comes with jobflow, and runs on Python 3.9. It reads ``job.json``, has jobflow
resolve the references from the documents in it and beside it, has it run the job, and writes
``claim/result.json`` atomically.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # the directory of this file is not for modules: others could put some there
    sys.path[:] = [path for path in sys.path if path != __file__.rpartition("/")[0]]

import base64
import contextlib
import copy
import errno
import fcntl
import hashlib
import json
import os
import resource
import select
import shutil
import signal
import time
import traceback
from collections.abc import Iterator
from enum import Enum
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any

INPUT, RESULT, DOCUMENTS = "job.json", "claim/result.json", "claim/documents"
SIGNALLED = "claim/signalled"
"""Exists once the job got the signal that announces its time limit."""
ATTEMPT, PREVIOUS, ELAPSED = "RECONCILER_ATTEMPT", "RECONCILER_PREVIOUS_RUN_DIR", "RECONCILER_ELAPSED"
"""Variables: the number of the attempt, the run directory that it continues, and how many seconds the script
of the job has run before this program started."""
FILE_MARKER = "reconciler-file:"
"""Prefix of an argument that stands for a file of the repository: ``reconciler-file:<blob id>/<name>``."""

PATIENCE, PAUSE = 600.0, 1.0
"""Seconds to wait for room on a full disk, and between two tries: the result may have cost many hours."""


DEEPEST, LONGEST_TEXT = 200, 20_000
"""The most levels of nesting in a result, and the most characters of an error."""
LARGEST_RESULT, LARGE = 256 << 20, 64 << 10
"""Bytes of a result, and of a document that gets a file of its own."""
TOO_LARGE = "too_large"
"""The directory, in that of an attempt, for the documents of a result that is too large to be stored."""
TOO_DEEP = (
    f"the output of the job has more than {DEEPEST} levels of nesting; flatten it, or write it to a file and "
    "return its path"
)


class CannotImportError(RuntimeError):
    """This Python lacks something that the job needs; the message says what, where, and how to fix it."""


def main() -> int:
    """Run the job; return 0 if it ended without an error."""
    started = time.time()
    here, process = Path.cwd(), os.getpid()
    result: dict[str, Any] = {"started": started, "python": sys.version.split()[0]}
    try:
        request = json_with_bytes((here / INPUT).read_text(encoding="utf-8"))
        os.environ[ATTEMPT] = str(request.get("attempt", 1))
        if "signal" in request:
            announce_end(request["signal"]["name"], request["signal"]["after"], here / SIGNALLED)
        if "continue" in request:
            continue_attempt(here, **request["continue"])
        result |= run(request, here, result)
        large = take_large(result)
        result["usage"] = usage()
        text = json.dumps(result | {"ended": time.time()})
        size = len(text) + sum(map(len, large.values()))
        if size > LARGEST_RESULT:
            for digest, data in large.items():  # it may have cost many hours
                write_result(here / TOO_LARGE / f"{digest[:8]}.msgpack", data)
            raise ValueError(
                f"the result of the job has {size >> 20} MB, the limit is {LARGEST_RESULT >> 20} MB; "
                "keep large data in files of the run directory, and return their paths. "
                f"What it computed is in {TOO_LARGE}/ of its run directory, as MessagePack"
            )
    except BaseException as error:
        large = {}
        for key in ("documents", "blobs", "packed", "refers", "response"):
            result.pop(key, None)
        result |= {"ok": False, "error": describe(error), "usage": usage(), "ended": time.time()}
        result["signalled"] = (here / SIGNALLED).exists()
        text = json.dumps(result)
    if os.getpid() != process:  # the job forked, and its child returned from the function too
        os._exit(0)
    for digest, data in large.items():
        write_result(here / DOCUMENTS / digest, data)
        share(here / DOCUMENTS / digest)
    write_result(here / RESULT, text.encode())
    return 0 if result["ok"] else 1


def run(request: dict[str, Any], here: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Run the job of a request; return its documents and what it asks for next.

    The version of jobflow is added to ``report`` before anything can fail because of it.

    Raises
    ------
    CannotImportError
        This Python cannot import jobflow, or what the job needs.
    """
    worker = request["worker"]
    with imports_for("jobflow", worker):
        import jobflow
        from jobflow import JobStore
    report["jobflow"] = jobflow.__version__
    job_documents = document_store_class()
    for one in request.get("packed", ()):
        known = request["blobs"][one["store"]] if one["store"] else request["documents"]
        known.append(unpacked(packed_document(one, here)))
    stores = {name: job_documents(blobs) for name, blobs in request["blobs"].items()}
    store = JobStore(job_documents(request["documents"]), additional_stores=stores)
    job, function = load_job(with_files(request["job"], here), worker)
    # The documents are kept, not only their ids, since Python reuses the id of a deleted object.
    given = {id(doc): doc for documents in (store.docs_store, *stores.values()) for doc in documents.docs}
    with imports_for(function, worker):
        response = job.run(store=store, job_dir=here)

    def written(documents: Any) -> Any:
        """Return what the job wrote: its output, and documents of an exposed store."""
        found = plain([doc for doc in documents.docs if id(doc) not in given], keep_bytes=True)
        check_depth(found)
        return found

    documents = written(store.docs_store)
    blobs = {name: written(other) for name, other in stores.items()}
    asked: dict[str, Any] = {
        "stored_data": plain(response.stored_data, keep_bytes=True),
        "stop_children": bool(response.stop_children),
        "stop_jobflow": bool(response.stop_jobflow),
    }
    for kind in ("replace", "detour", "addition"):  # new jobs, each with the uuids of its parents
        flow = getattr(response, kind)
        if flow is not None:
            asked[kind] = [[job_json(new), parents] for new, parents in flow.iterflow()]
    check_depth(asked)
    return {
        "ok": True,
        "documents": documents,
        "blobs": blobs,
        "refers": sorted(set(references([documents, blobs]))),
        "response": asked,
    }


def usage() -> dict[str, float]:
    """Return what this process and its ended children have used: ``cpu`` in seconds, ``memory`` in bytes.

    ``memory`` is the most that one process had in memory at a time. Processes on other nodes do not count.
    """
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu": round(sum(one.ru_utime + one.ru_stime for one in (mine, theirs)), 3),
        "memory": max(mine.ru_maxrss, theirs.ru_maxrss) * unit,
    }


def take_large(result: dict[str, Any]) -> dict[str, bytes]:
    """Take large documents out of a result; return them as MessagePack, by the sha256 of their bytes.

    ``packed`` in the result names them. They are as the store keeps them, and as jobs get them: nothing has
    to be converted on the way. A value that MessagePack cannot hold leaves its document where it is.
    """
    import msgpack  # comes with jobflow

    large: dict[str, bytes] = {}
    result["packed"] = []
    for store, documents in [("", result["documents"]), *result["blobs"].items()]:
        for document in list(documents):
            try:
                data = msgpack.packb(with_bytes(document))
            except (OverflowError, ValueError, UnicodeError):
                continue
            if len(data) > LARGE:
                digest = hashlib.sha256(data).hexdigest()
                large[digest] = data
                documents.remove(document)
                result["packed"].append({"store": store, "sha256": digest})
    return large


def share(document: Path) -> None:
    """Link a document to where jobs of this worker find it, if that is possible; else it is sent there."""
    shared = Path(__file__).resolve().parent.parent / ".documents"
    with contextlib.suppress(OSError):
        document.chmod(0o400)
        if (shared / document.name).exists():
            os.utime(shared / document.name)  # the time of its last use
        elif shared.is_dir():
            os.link(document, shared / document.name)


def write_result(path: Path, text: bytes) -> None:
    """Write a part of the result; wait for room on a full disk or for an exhausted quota."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return write_atomically(path, text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


def write_atomically(path: Path, text: bytes) -> None:
    """Write a file that exists completely or not at all, also after a power failure."""
    path.parent.mkdir(parents=True, exist_ok=True)  # the job may have removed its own directory
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


# Continuing an earlier attempt ----------------------------------------------------------------------------

OWN = {"claim", "files", ".documents", INPUT, "submit.sh", "warm.sh", "queue.out", "queue.err"}
"""What each run directory has of its own."""
FICLONE = 0x40049409
"""The ioctl that makes a file share the blocks of another one until either is written."""


def continue_attempt(here: Path, previous: str, keep: list[str], rename: dict[str, str], link: bool) -> None:
    """Bring files of the run directory of an earlier attempt into this one.

    A file to rename that is missing or empty, as programs leave it when they are ended too early, is replaced
    by the one that the earlier attempt itself began with. What is here already stays: a scheduler can start
    an attempt a second time.
    """
    source = Path(previous).expanduser()
    if not source.is_dir():
        print(f"reconciler: {previous} is gone, so this attempt begins anew", file=sys.stderr)
        os.environ.pop(PREVIOUS, None)
        return
    os.environ[PREVIOUS] = str(source)
    wanted = {}
    for pattern in keep:
        for path in source.glob(pattern):
            name = path.relative_to(source)
            if name.parts and name.parts[0] not in OWN:
                wanted[str(name)] = path
    for old, new in rename.items():
        wanted.pop(old, None)
        for path in (source / old, source / new):
            if path.is_dir() or (path.is_file() and path.stat().st_size):
                wanted[new] = path
                break
    for target, path in sorted(wanted.items()):
        bring(path, here / target, link)


def bring(source: Path, target: Path, link: bool) -> None:
    """Copy or link a file or directory, completely or not at all, unless the target exists."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    if source.is_dir():
        shutil.rmtree(partial, ignore_errors=True)

        def bring_file(path: str, copy: str) -> None:
            bring(Path(path), Path(copy), link)

        shutil.copytree(source, partial, symlinks=True, copy_function=bring_file)
    else:
        partial.unlink(missing_ok=True)
        try:
            if not link:
                raise OSError
            os.link(source, partial)
        except OSError:  # not wanted, or not on one file system
            clone(source, partial)
    partial.replace(target)


def clone(source: Path, target: Path) -> None:
    """Copy a file; on file systems that can, without copying its blocks."""
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, 1 << 20)
    shutil.copystat(source, target)


def announce_end(name: str, after: float, note: Path) -> None:
    """Start a process that sends a signal to this job after a number of seconds, and notes it before.

    It ends with this process. Its signal goes to this process and all that have started from it. Here it
    changes nothing unless the function of the job handles it; but another one, from the scheduler or the
    user, ends the job as always.
    """
    after -= float(os.environ.get(ELAPSED) or 0)
    note.unlink(missing_ok=True)  # of a former start of this attempt
    if after <= 0:
        return
    number = getattr(signal, f"SIG{name}")

    def once(*_: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        if not note.exists():
            os.kill(os.getpid(), number)

    job = os.getpid()
    alive, held = os.pipe()  # by this the other process notices the end of this one
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(alive)
        signal.signal(number, once)
        return
    try:
        if os.fork():  # so that a job which waits for any of its children never meets this one
            return
        os.close(held)
        if not select.select([alive], [], [], after)[0]:
            note.touch()
            for process in [job, *descendants(job)]:
                if process != os.getpid():
                    with contextlib.suppress(OSError):
                        os.kill(process, number)
    finally:
        os._exit(0)


def descendants(ancestor: int) -> list[int]:
    """Return the processes that a process has started, and those that they have started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(stat.parent.name)] = int(
                stat.read_text(errors="replace").rpartition(")")[2].split()[1]
            )
    found = [ancestor]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


# Errors ---------------------------------------------------------------------------------------------------


def describe(error: BaseException) -> dict[str, Any]:
    """Return type, message and traceback of an error, without the frames of the launcher itself."""
    lines = traceback.format_exception(type(error), error, frames_of_others(error))
    with contextlib.suppress(Exception):  # the job may have closed stderr
        sys.stderr.writelines(lines)
    message = "".join(traceback.format_exception_only(type(error), error)).strip()
    found: dict[str, Any] = {
        "type": type(error).__name__,
        "message": bounded(message),
        "traceback": bounded("".join(lines)),
    }
    reference = unresolved_reference(error)
    return found | {"reference": reference} if reference is not None else found


def unresolved_reference(error: BaseException) -> Any:
    """Return the reference among the arguments that jobflow could not resolve, if that is the error.

    ``uuid`` is the job that it refers to, ``attributes`` all steps (``["a", "energy"]``, ``["i", 0]``),
    ``missing`` the number of the step that failed, and ``found`` the type of the value that lacks it.
    """
    if not isinstance(error, (AttributeError, LookupError, TypeError)):
        return None
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "resolve" and frame.f_globals.get("__name__") == "jobflow.core.reference":
            reference: Any = frame.f_locals["self"]
            step = frame.f_locals.get("attr")
            steps = [list(pair) for pair in reference.attributes]
            numbers = [number for number, pair in enumerate(steps) if pair[1] == step]
            if "data" in frame.f_locals and numbers:
                found = type(frame.f_locals["data"]).__name__
                where = numbers[0] if len(numbers) == 1 else len(steps) - 1
                return {"uuid": reference.uuid, "attributes": steps, "missing": where, "found": found}
        trace = trace.tb_next
    return None


def bounded(text: str) -> str:
    """Return the head and tail of a text that is too long to keep."""
    left_out = len(text) - LONGEST_TEXT
    if left_out <= 0:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\n[... {left_out} characters left out ...]\n{text[-half:]}"


def frames_of_others(error: BaseException) -> TracebackType | None:
    """Return the traceback of an error from where it left the launcher, or None if it never did."""
    trace = error.__traceback__ if not isinstance(error, CannotImportError) else None
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


@contextlib.contextmanager
def imports_for(what: str, worker: str) -> Iterator[None]:
    """Turn a failed import into an error that says what is missing, on which worker, and how to fix it.

    Raises
    ------
    CannotImportError
        An import failed.
    """
    try:
        yield
    except ImportError as error:
        here = f"worker '{worker}': {sys.executable}"
        missing = missing_module(error)
        if missing is None:
            text = f"{here} cannot import what {what} needs: {error}; repair it there, or set `python:`"
        elif what == missing or what.startswith(f"{missing}."):
            text = f"{here} has no module '{missing}': {where_from(missing)}"
        else:
            text = f"{here} has no module '{missing}', which {what} needs: {where_from(missing)}"
        raise CannotImportError(text) from error.with_traceback(frames_of_others(error))


def missing_module(error: ImportError) -> str | None:
    """Return the module to install: the top-level package, or the submodule that the package lacks."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    top = error.name.partition(".")[0]
    return error.name if top in sys.modules else top


def where_from(module: str) -> str:
    """Return how to get a module that is missing."""
    if module == "jobflow":
        return f"`{sys.executable} -m pip install jobflow` there, or set `python:` to a Python that has it"
    return (
        "install it there, set `python:` of the worker to a Python that has it, or, if it is yours, add its "
        "folder to spec.python_path of the Project"
    )


# Jobs as JSON ---------------------------------------------------------------------------------------------


def load_job(raw: dict[str, Any], worker: str) -> tuple[Any, str]:
    """Return the Job and the path of its function.

    Raises
    ------
    CannotImportError
        Its function, or a class among its arguments, cannot be imported.
    """
    module, function = raw["function"].get("@module"), raw["function"].get("@callable")
    with imports_for(f"{module}.{function}", worker):
        job = decoded(raw | {"function_args": [], "function_kwargs": {}})
        if not isinstance(job, dict):
            job.function_args = tuple(decoded(raw["function_args"]))
            job.function_kwargs = decoded(raw["function_kwargs"])
    if isinstance(job, dict) or isinstance(job.function, dict):
        raise CannotImportError(
            f"worker '{worker}': {sys.executable} has a module '{module}', but no '{function}' in it: "
            f"another version than the flow was built with? {where_from(module)}"
        )
    return job, f"{module}.{function}"


def with_files(value: Any, here: Path) -> Any:
    """Replace each marker of a repository file by the path of the file in the run directory."""
    if isinstance(value, dict):
        return {key: with_files(inner, here) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_files(inner, here) for inner in value]
    if isinstance(value, str) and value.startswith(FILE_MARKER):
        return str(here / "files" / value[len(FILE_MARKER) :])
    return value


def references(value: Any) -> Iterator[str]:
    """Yield the uuids of the jobs whose outputs JSON data refers to."""
    is_one = isinstance(value, dict) and value.get("@class") == "OutputReference"
    if is_one and isinstance(value.get("uuid"), str):  # a link to a blob can have the class of its content
        yield value["uuid"]
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, (dict, list)):
                yield from references(inner)


def check_depth(value: Any) -> None:
    """Check that JSON data is not nested too deeply for those who read it.

    Raises
    ------
    ValueError
        It is.
    """
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list, tuple))
        ]
        if not level:
            return
    raise ValueError(TOO_DEEP)


BYTES_KEY = "@bytes"


def bytes_as_json(value: Any) -> Any:
    """Return bytes as ``{"@bytes": <base64>}``, for ``json.dumps``."""
    if isinstance(value, (bytes, bytearray)):
        return {BYTES_KEY: base64.b64encode(value).decode()}
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def json_with_bytes(text: Any) -> Any:
    """Return the data of JSON text (or UTF-8) in which bytes are written by :func:`bytes_as_json`."""

    def read(value: dict[str, Any]) -> Any:
        if value.keys() == {BYTES_KEY} and isinstance(value[BYTES_KEY], str):
            with contextlib.suppress(ValueError):
                return base64.b64decode(value[BYTES_KEY], validate=True)
        return value

    has_bytes = (BYTES_KEY if isinstance(text, str) else BYTES_KEY.encode()) in text
    return json.loads(text, object_hook=read if has_bytes else None)


def packed_document(given: dict[str, str], here: Path) -> bytes:
    """Return a document in MessagePack: from ``job.json``, or a file that jobs of this worker share.

    Raises
    ------
    ValueError
        The file is not what was sent.
    """
    if "data" in given:
        return base64.b64decode(given["data"])
    file = here / "documents" / given["sha256"]
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != given["sha256"]:
        raise ValueError(f"{file} is damaged: the disk may be faulty; `reconcile retry` sends it again")
    return data


SPARSE, LARGE_INTEGER = 100, 3
"""Extensions of MessagePack: a list of which only some items travel, and an integer of more than 64 bits."""


def unpacked(data: bytes) -> Any:
    """Return the value of MessagePack as the store has it (``reconciler/actual/codec.py``)."""
    import msgpack  # comes with jobflow

    def special(code: int, content: bytes) -> Any:
        if code == SPARSE:
            length, items = unpacked(content)
            sparse = [None] * length
            for index, item in items.items():
                sparse[index] = item
            return sparse
        if code == LARGE_INTEGER:
            return int(content)
        raise ValueError(f"extension {code} of a value that is not JSON")

    return msgpack.unpackb(data, ext_hook=special, strict_map_key=False)


def with_bytes(value: Any) -> Any:
    """Return JSON data with bytes in place of ``{"@bytes": <base64>}``."""
    if isinstance(value, dict):
        if value.keys() == {BYTES_KEY} and isinstance(value[BYTES_KEY], str):
            with contextlib.suppress(ValueError):
                return base64.b64decode(value[BYTES_KEY], validate=True)
        return {key: with_bytes(inner) for key, inner in value.items()}
    if isinstance(value, list) and not SCALARS.issuperset(map(type, value)):
        return [with_bytes(inner) for inner in value]
    return value


SCALARS = frozenset({str, int, float, bool, type(None)})


def plain(value: Any, *, keep_bytes: bool = False) -> Any:
    """Return JSON data; datetimes and the like become monty's tagged dicts.

    ``keep_bytes``: bytes become ``{"@bytes": <base64>}``; otherwise they are an error.

    Raises
    ------
    ValueError
        It is nested too deeply.
    """
    from monty.json import MontyEncoder

    class Encoder(MontyEncoder):  # type: ignore[misc]
        def default(self, o: Any) -> Any:
            if keep_bytes and isinstance(o, (bytes, bytearray)):
                return bytes_as_json(o)
            return super().default(o)

    try:
        return json.loads(json.dumps(value, cls=Encoder))
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def job_json(job: Any) -> dict[str, Any]:
    """Return a jobflow Job as JSON whose arguments decode to the same types, enums and arrays too."""
    bare = copy.copy(job)  # monty cannot write each argument, for example an MSONable class
    bare.function_args, bare.function_kwargs = (), {}
    raw: dict[str, Any] = plain(bare.as_dict(), keep_bytes=True)
    raw["function_args"] = [encoded(value) for value in job.function_args]
    raw["function_kwargs"] = {str(key): encoded(value) for key, value in job.function_kwargs.items()}
    return raw


TUPLE_KEY, MAP_KEY, NUMBER_KEY = "@tuple", "@map", "@number"
"""What JSON does not have: ``{"@tuple": [...]}``, a mapping with keys that are not strings as
``{"@map": [[key, value], ...]}``, and a NumPy scalar as ``{"@number": [dtype, value]}``."""


def encoded(value: Any) -> Any:
    """Return a value as JSON that :func:`decoded` turns into the same value, of the same type."""
    kind = type(value)
    if value is None or kind in (str, int, float, bool):
        return value
    if isinstance(value, Enum) and not hasattr(value, "as_dict"):
        return {"@module": kind.__module__, "@class": kind.__name__, "value": encoded(value.value)}
    if isinstance(value, dict):
        if all(type(key) is str for key in value):
            return {key: encoded(inner) for key, inner in value.items()}
        return {MAP_KEY: [[encoded(key), encoded(inner)] for key, inner in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [encoded(inner) for inner in value]
        return {TUPLE_KEY: items} if isinstance(value, tuple) else items
    is_number = kind.__module__ == "numpy" and hasattr(value, "dtype") and value.dtype.kind in "iuf"
    if is_number and kind.__name__ not in ("ndarray", "float64", "int64"):  # those become Python's own
        return {NUMBER_KEY: [value.dtype.name, value.item()]}
    return plain(value, keep_bytes=True)


def decoded(value: Any) -> Any:
    """Return the value of JSON that :func:`encoded` made, or monty, of bytes that are read already."""
    from monty.json import MontyDecoder

    class Decoder(MontyDecoder):  # type: ignore[misc]
        def process_decoded(self, d: Any) -> Any:
            if isinstance(d, dict) and len(d) == 1:
                ((key, inner),) = d.items()
                if key == TUPLE_KEY:
                    return tuple(self.process_decoded(inner))
                if key == MAP_KEY:
                    return {self.process_decoded(k): self.process_decoded(v) for k, v in inner}
                if key == NUMBER_KEY:
                    form = {"@module": "numpy", "@class": "array", "dtype": inner[0], "data": inner[1]}
                    return super().process_decoded(form)[()]
            return super().process_decoded(d)

    return Decoder().process_decoded(value)


# The job store of the job ---------------------------------------------------------------------------------


def document_store_class() -> Any:
    """Return the class of the store that a job sees: a maggma Store with a list of documents.

    It is a function, since maggma must not be imported before jobflow is known to exist.
    """
    from maggma.core import Store

    class DocumentStore(Store):  # type: ignore[misc]
        """The documents of ``job.json`` in memory; queries know equality and ``$in``."""

        def __init__(self, docs: list[dict[str, Any]]) -> None:
            super().__init__()
            self.docs = docs

        @property
        def _collection(self) -> Any:
            return self.docs

        @property
        def name(self) -> str:
            return "job.json"

        def connect(self, force_reset: bool = False) -> None:
            return None

        def close(self) -> None:
            return None

        def count(self, criteria: dict[str, Any] | None = None) -> int:
            return sum(1 for _ in self.query(criteria))

        def query(
            self,
            criteria: dict[str, Any] | None = None,
            properties: Any = None,
            sort: Any = None,
            skip: int = 0,
            limit: int = 0,
        ) -> Iterator[dict[str, Any]]:
            found = [doc for doc in self.docs if matches(doc, criteria or {})]
            names = list(properties or ())  # copies of all other fields can cost much
            if isinstance(properties, dict) and not all(properties.values()):
                names = []
            if names and not any("." in field for field in names):
                found = [{field: doc[field] for field in names if field in doc} for doc in found]
            for field, direction in reversed(list((sort or {}).items())):
                found.sort(key=itemgetter(field), reverse=int(direction) < 0)
            for doc in found[skip : skip + limit if limit else None]:
                yield copy.deepcopy(doc)

        def update(self, docs: Any, key: Any = None) -> None:
            keys = [key] if isinstance(key, str) else list(key or [self.key])
            for doc in docs if isinstance(docs, list) else [docs]:
                self.docs[:] = [old for old in self.docs if any(old.get(k) != doc.get(k) for k in keys)]
                self.docs.append(doc)

        def ensure_index(self, key: str, unique: bool = False) -> bool:
            return True

        def groupby(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError("the store of a job has no groupby; use the project's JobStore")

        def remove_docs(self, criteria: dict[str, Any]) -> None:
            self.docs[:] = [doc for doc in self.docs if not matches(doc, criteria)]

    return DocumentStore


def matches(doc: dict[str, Any], criteria: dict[str, Any]) -> bool:
    """Return whether a document matches ``{field: value}`` or ``{field: {"$in": [...]}}``."""
    for field, wanted in criteria.items():
        if isinstance(wanted, dict) and "$in" in wanted:
            if doc.get(field) not in wanted["$in"]:
                return False
        elif doc.get(field) != wanted:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
