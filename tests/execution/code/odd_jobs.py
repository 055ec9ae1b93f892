"""Jobs with odd results: each must fail alone, with a reason."""

from __future__ import annotations

import os
import subprocess
from typing import Any, NoReturn

from jobflow import Job, Response, job


@job
def runs_and_dies(script: str, code: int = 0) -> NoReturn:
    """Run a bash script in the run directory, and end without a word from the launcher."""
    subprocess.run(["bash", "-c", script], check=True)
    os._exit(code)


@job
def nests(levels: int) -> Any:
    """Return a list of lists of lists."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@job
def returns_text(characters: int) -> str:
    return "x" * characters


@job
def returns_half_a_character() -> str:
    return "\ud83d"


@job
def raises_text(text: str, times: int = 1) -> NoReturn:
    raise ValueError(text * times)


@job
def raises_half_a_character() -> NoReturn:
    raise ValueError("caf\udce9")


@job
def raises_group() -> NoReturn:
    raise ExceptionGroup("two things", [ValueError("one"), TypeError("two")])


@job
def raises_pydantic() -> NoReturn:
    from pydantic import BaseModel

    class TaskDoc(BaseModel):
        energy: float

    TaskDoc(energy="n/a")
    raise AssertionError


def decoded(value: Any) -> Any:
    """Return a number for ``=10**30``: a manifest cannot hold one of so many digits."""
    return eval(value[1:]) if isinstance(value, str) and value.startswith("=") else value


@job
def child() -> None:
    return None


@job
def generates_odd(**fields: Any) -> Response:
    """Generate a job with odd fields."""
    made: Job = child()
    for name, value in fields.items():
        setattr(made, name, decoded(value))
    return Response(addition=made)


@job
def generates_odd_priority(priority: Any) -> Response:
    made: Job = child()
    made.config.manager_config = {"priority": decoded(priority)}
    return Response(addition=made)
