"""Runs one job in its run directory: ``python launcher.py`` beside ``job.json``.

This file travels to workers and is all of reconciler that they see: it imports nothing but the standard
library and jobflow. It reads ``job.json``, lets jobflow resolve the references from the documents that
came along and run the job, and writes ``claim/result.json`` atomically.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Container, Iterator
from enum import Enum
from operator import itemgetter
from pathlib import Path
from typing import Any

INPUT, RESULT = "job.json", "claim/result.json"
FILE_MARKER = "reconciler-file:"
"""Begins an argument that stands for a file of the repository: ``reconciler-file:<blob id>/<name>``."""


def main() -> int:
    """Run the job; return 0 if it ended without an error."""
    started = time.time()
    here, process = Path.cwd(), os.getpid()
    result: dict[str, Any] = {"started": started, "python": sys.version.split()[0]}
    try:
        request = json.loads((here / INPUT).read_text(encoding="utf-8"))
        result |= run(request, here)
        text = json.dumps(result | {"ended": time.time()})
    except BaseException as error:
        result |= {"ok": False, "error": describe(error), "ended": time.time()}
        text = json.dumps(result)
    if os.getpid() != process:  # a child that the job forked came back from the function, too
        os._exit(0)
    write_atomically(here / RESULT, text)
    return 0 if result["ok"] else 1


def describe(error: BaseException) -> dict[str, str]:
    """Return type, message and traceback of an error, without the launcher's own frames."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    with contextlib.suppress(Exception):  # the job may have closed stderr
        sys.stderr.writelines(lines)
    message = "".join(traceback.format_exception_only(error)).strip()
    return {"type": type(error).__name__, "message": message, "traceback": "".join(lines)}


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is there completely or not at all, also after a power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)  # the job may have removed its own directory
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def run(request: dict[str, Any], here: Path) -> dict[str, Any]:
    """Run the job of a request; return its documents and what it asks for next.

    Raises
    ------
    RuntimeError
        jobflow, or the function of the job, cannot be imported by this Python.
    """
    try:
        import jobflow
        from jobflow import JobStore
    except ImportError as error:
        raise RuntimeError(
            f"worker '{request['worker']}': {sys.executable} cannot import jobflow ({error}); "
            "install jobflow there, or set `python:` of the worker to a Python that has it"
        ) from error
    shelf = shelf_class()
    stores = {name: shelf(blobs) for name, blobs in request["blobs"].items()}
    store = JobStore(shelf(request["documents"]), additional_stores=stores)
    job = load_job(with_files(request["job"], here), request["worker"])
    # The documents are kept as well as their ids, since the id of one that is thrown away may be used again.
    known = {id(doc): doc for shelved in (store.docs_store, *stores.values()) for doc in shelved.docs}
    response = job.run(store=store, job_dir=here)
    return {
        "ok": True,
        "jobflow": jobflow.__version__,
        "documents": plain(written(store.docs_store, known)),
        "blobs": {name: plain(written(other, known)) for name, other in stores.items()},
        "response": plain_response(response),
    }


def written(shelf: Any, known: Container[int]) -> list[dict[str, Any]]:
    """Return the documents that the job wrote: its output, and what it kept through an exposed store."""
    return [doc for doc in shelf.docs if id(doc) not in known]


def load_job(raw: dict[str, Any], worker: str) -> Any:
    """Return the Job.

    Raises
    ------
    RuntimeError
        Its function or a class among its arguments cannot be imported; says which, where and why.
    """
    from monty.json import MontyDecoder

    name = f"{raw['function'].get('@module')}.{raw['function'].get('@callable')}"
    reason = "it is not there"
    try:
        job = MontyDecoder().process_decoded(raw)
        if not isinstance(job, dict) and not isinstance(job.function, dict):
            return job
    except ImportError as error:
        reason = str(error)
    raise RuntimeError(
        f"worker '{worker}': {sys.executable} cannot import {name}: {reason}; install what is missing "
        "there, set `python:` of the worker, or add its folder to spec.python_path of the Project"
    )


def with_files(value: Any, here: Path) -> Any:
    """Replace each marker of a repository file by the path where the file lies now."""
    if isinstance(value, dict):
        return {key: with_files(inner, here) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_files(inner, here) for inner in value]
    if isinstance(value, str) and value.startswith(FILE_MARKER):
        return str(here / "files" / value[len(FILE_MARKER) :])
    return value


def plain(value: Any) -> Any:
    """Return JSON data; datetimes and the like become monty's tagged dicts."""
    from monty.json import MontyEncoder

    return json.loads(json.dumps(value, cls=MontyEncoder))


def plain_response(response: Any) -> dict[str, Any]:
    """Return what a job asks for next, with new jobs as a list of (job, uuids of its parents)."""
    asked: dict[str, Any] = {
        "stored_data": plain(response.stored_data),
        "stop_children": bool(response.stop_children),
        "stop_jobflow": bool(response.stop_jobflow),
    }
    for kind in ("replace", "detour", "addition"):
        flow = getattr(response, kind)
        if flow is not None:
            asked[kind] = [[job_json(job), parents] for job, parents in flow.iterflow()]
    return asked


def job_json(job: Any) -> dict[str, Any]:
    """Return a jobflow Job as JSON; its arguments come back as what they are, enums and arrays too."""
    raw: dict[str, Any] = plain(job.as_dict())
    raw["function_args"] = encoded(job.function_args)
    raw["function_kwargs"] = encoded(job.function_kwargs)
    return raw


def encoded(value: Any) -> Any:
    """Return a value as JSON that monty's decoder turns into the same value, of the same type."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, dict):
        return {str(key): encoded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(inner) for inner in value]
    if isinstance(value, Enum) and not hasattr(value, "as_dict"):
        kind = type(value)
        return {"@module": kind.__module__, "@class": kind.__name__, "value": encoded(value.value)}
    return plain(value)


def shelf_class() -> Any:
    """Return a maggma Store that keeps documents in a list: all that a job sees of the job store."""
    from maggma.core import Store

    class Shelf(Store):  # type: ignore[misc]
        """Documents in memory, found by equality and ``$in``."""

        def __init__(self, docs: list[dict[str, Any]]) -> None:
            super().__init__()
            self.docs = docs

        @property
        def _collection(self) -> Any:
            return self.docs

        @property
        def name(self) -> str:
            return "shelf"

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
            import copy

            found = [doc for doc in self.docs if matches(doc, criteria or {})]
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
            raise NotImplementedError("a job's own store has no groupby; use the project's JobStore")

        def remove_docs(self, criteria: dict[str, Any]) -> None:
            self.docs[:] = [doc for doc in self.docs if not matches(doc, criteria)]

    return Shelf


def matches(doc: dict[str, Any], criteria: dict[str, Any]) -> bool:
    """Whether a document fits simple criteria: ``{field: value}`` or ``{field: {"$in": [...]}}``."""
    for field, wanted in criteria.items():
        if isinstance(wanted, dict) and "$in" in wanted:
            if doc.get(field) not in wanted["$in"]:
                return False
        elif doc.get(field) != wanted:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
