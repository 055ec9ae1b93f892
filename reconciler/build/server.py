"""The build process: answers each line with a request by one line. Runs the user's code.

:mod:`reconciler.build.builder` starts it as ``python -m reconciler.build.server``. A crash or an endless loop
in here affects this process and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from typing import Any, TextIO

from reconciler.build.construct import BuildError, Construction
from reconciler.build.identity import IdentifiedJob, identify
from reconciler.jobs.job_json import own_run_config
from reconciler.model.flows import unique_keys

_PARENT_CHECK_INTERVAL = 1.0
"""Seconds between two checks that the parent process is still running."""


def main() -> None:
    """Report that all is imported, read where the user's code is, then answer requests until stdin ends."""
    answers = _own_stdout()
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    warnings.simplefilter("ignore")
    answers.write("ready\n")
    answers.flush()
    _add_code(json.loads(sys.stdin.readline() or "[]"))
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


def _end_with(parent: int) -> None:
    """End this process and all that it started when its parent has been killed.

    The user's code may never return to where the end of stdin is noticed.
    """
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_INTERVAL)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _own_stdout() -> TextIO:
    """Keep stdout for answers; the output of the user's code goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _add_code(paths: list[str]) -> None:
    """Make the user's code importable, here and in the processes that this one starts."""
    sys.path[1:1] = paths
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([known] if known else [])])


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Build one flow; any error becomes part of the answer."""
    try:
        return {"ok": True, "jobs": _build(request), "jobflow": importlib.metadata.version("jobflow")}
    except BuildError as error:
        return _failure(error.message, error.pointer, error.hint, error.__cause__ or error)
    except Exception as error:
        return _failure(f"{type(error).__name__}: {error}", "/spec", None, error)


def _failure(message: str, pointer: str, hint: str | None, cause: BaseException) -> dict[str, Any]:
    trace = "".join(traceback.format_exception(cause))
    return {"ok": False, "message": message, "pointer": pointer, "hint": hint, "traceback": trace}


def _build(request: dict[str, Any]) -> list[dict[str, Any]]:
    externals: dict[str, list[str]] = request["externals"]
    construction = Construction(
        externals={name: uuid for name, (uuid, _) in externals.items()}, files=request["files"]
    )
    made = construction.build(request["spec"], request["flow"])
    items = identify(
        made,
        identity=request["identity"],
        externals=dict(map(tuple, externals.values())),  # type: ignore[arg-type]
        files={path: tuple(file) for path, file in request["blobs"].items()},
        code=request["code_as_content"],
    )
    ids = {job.uuid: job_id for job_id, job in construction.jobs.items()}
    names = [ids.get(item.job.uuid) or str(item.job.name) for item in items]
    return [_describe(item, key) for item, key in zip(items, unique_keys(names), strict=True)]


def _describe(item: IdentifiedJob, key: str) -> dict[str, Any]:
    payload = item.payload
    function = payload["function"]
    config = payload.get("config") or {}
    return {
        "key": key,
        "uuid": item.uuid,
        "index": item.job.index,
        "name": str(item.job.name),
        "function": f"{function['@module']}.{function['@callable']}",
        "content": item.content,
        "parents": item.parents,
        "on_missing": config.get("on_missing_references") or "error",
        "own": own_run_config(config.get("manager_config") or {}),
        "files": item.files,
        "hosts": payload.get("hosts", []),
        "payload": json.dumps(payload),
    }


if __name__ == "__main__":
    main()
