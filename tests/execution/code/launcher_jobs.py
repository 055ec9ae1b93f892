"""Jobs that are hard on the launcher. User code: it runs on workers, which have no reconciler."""

from __future__ import annotations

import datetime
import enum
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jobflow import CURRENT_JOB, Flow, OutputReference, Response, job
from monty.json import MSONable
from pydantic import BaseModel


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Cell(MSONable):
    edges: list[float]
    name: str = "cell"


class Report(BaseModel):
    energy: float
    steps: int = 0


@job
def give(what: Any) -> Any:
    """Return an argument, or one of the values that have a name here."""
    return what


@job
def special(kind: str) -> Any:
    return {
        "nan": lambda: [float("nan"), float("inf"), -float("inf")],
        "datetime": lambda: datetime.datetime(2024, 2, 29, 12, 30, 1, 5000),
        "numpy": lambda: {
            "array": np.arange(6.0).reshape(2, 3),
            "scalar": np.float64(1.5),
            "int": np.int32(7),
        },
        "pydantic": lambda: Report(energy=-1.5, steps=3),
        "msonable": lambda: {"cells": [Cell([1.0, 2.0]), Cell([3.0], name="ü")]},
        "enum": lambda: Colour.RED,
        "tuple": lambda: (1, (2, None), {"a": True}),
        "keys": lambda: {1: "one", "two": 2, 3.5: None},
        "path": lambda: Path("/a/b c"),
        "text": lambda: "a\x00b\ud7ff\U0001f600\n",
        "long integer": lambda: 2**70,
        "none": lambda: None,
        "nested": lambda: {"a": [{"b": {"c": [Cell([1.0]), np.zeros(2)]}}]},
    }[kind]()


@job
def unserialisable() -> Any:
    return {"handle": object()}


@job
def lone_surrogate() -> str:
    return "\udc80"


@job(output_schema=Report)
def with_schema(values: dict[str, Any]) -> dict[str, Any]:
    return values


@job(data="heavy")
def keeps_heavy(n: int) -> dict[str, Any]:
    return {"light": n, "heavy": {"numbers": list(range(n))}}


@job(data=["first"], second="other")
def keeps_in_two() -> dict[str, Any]:
    return {"first": [1, 2], "other": {"x": [3]}, "rest": 4}


@job
def total(values: list[float]) -> float:
    return sum(values)


@job
def what_kind(*arguments: Any) -> list[str]:
    return [type(argument).__name__ for argument in arguments]


@job
def both_forms(resolved: Any) -> list[Any]:
    return [resolved.value, resolved.reference.uuid]


@job
def through_store(uuid: str) -> Any:
    store = CURRENT_JOB.store
    return [store.get_output(uuid), store.count({"uuid": uuid})]


@job
def keeps_more(uuid: str) -> str:
    """Write a second document through the exposed store."""
    CURRENT_JOB.store.docs_store.update(
        {"uuid": uuid, "index": 1, "output": "extra", "metadata": {}, "name": "extra"}, key=["uuid", "index"]
    )
    return "kept"


@job
def refers(reference: Any) -> dict[str, Any]:
    """Return a reference inside the output: whoever reads it gets what it refers to."""
    return {"inner": OutputReference(reference)}


@job
def replaces() -> Response:
    first = give(1)
    return Response(replace=Flow([first, give(first.output)], output=first.output), stored_data={"why": 1})


@job
def fails(text: str) -> NoReturn:
    raise ValueError(text)


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@job
def fails_without_text() -> NoReturn:
    raise UnspeakableError


@job
def fails_deep(n: int) -> int:
    return fails_deep.original(n + 1)


@job
def interrupts_itself() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)


@job
def exits(code: Any) -> NoReturn:
    sys.exit(code)


@job
def exits_at_once(code: int) -> NoReturn:
    os._exit(code)


@job
def changes_directory(to: str) -> str:
    os.chdir(to)
    return "elsewhere"


@job
def removes_its_directory() -> str:
    shutil.rmtree(Path.cwd())
    return "homeless"


@job
def forks_and_returns() -> str:
    """Return in both processes, the child later, as a careless library may do."""
    if os.fork() == 0:
        time.sleep(1.0)
        return "child"
    return "parent"


@job
def leaves_a_child(seconds: float) -> int:
    """Leave a process behind that lives on and keeps stdout open; return its pid."""
    pid = os.fork()
    if pid == 0:
        time.sleep(seconds)
        os._exit(0)
    return pid


@job
def closes_stderr() -> NoReturn:
    sys.stderr.close()
    raise ValueError("said nowhere")


@job
def prints_bytes() -> str:
    sys.stdout.buffer.write(b"\xff\xfe\x00 caf\xe9\n")
    sys.stderr.buffer.write(b"\xff error \xe9\n")
    return "printed"


@job
def prints_bytes_and_dies() -> NoReturn:
    sys.stderr.buffer.write(b"\xff last words \xe9\n")
    sys.stderr.flush()
    os._exit(9)


@job
def writes_result_json() -> str:
    Path("result.json").write_text("mine")
    return "own file"


@job
def big(megabytes: int) -> str:
    return "x" * (megabytes << 20)


@job
def knows_reconciler() -> bool:
    try:
        import reconciler  # noqa: F401
    except ImportError:
        return False
    return True


@job
def imports_late() -> int:
    """Need what is not there, and find out in mid-job."""
    import another_that_is_nowhere.part  # noqa: F401

    return 1


@job
def imports_a_part() -> int:
    """Need a part that an installed package does not have."""
    import json.nowhere  # noqa: F401

    return 1


@job
def imports_a_name() -> int:
    """Need a name that a module does not have."""
    from json import nothing  # noqa: F401

    return 1
