"""Flows with jobs that generate jobs, to see what run config these get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import simple_jobs
from jobflow import Flow, Job, Response, job


def _named(name: str, made: Job) -> Job:
    made.name = name
    return made


@job
def generate(kind: str, depth: int = 1, gate: str | None = None, label: str = "") -> Any:
    """Ask for a child ``depth`` levels deep, by a detour, an addition or a replacement."""
    while gate is not None and not Path(gate).exists():
        simple_jobs.time.sleep(0.01)
    name = "child" if depth == 1 else "middle"
    inner = simple_jobs.give(depth) if depth == 1 else generate(kind, depth - 1)
    new = Flow([_named(name, inner)])
    return Response(**{kind: new})


def family(
    label: str, kind: str, depth: int = 1, config: dict[str, Any] | None = None, gate: str | None = None
) -> Job:
    """Return the generator; ``config`` are fields of its JobConfig."""
    made = _named("generator", generate(kind, depth, gate, label))
    for key, value in (config or {}).items():
        setattr(made.config, key, value)
    return made
