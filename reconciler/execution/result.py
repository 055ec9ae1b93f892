"""What the launcher reports of a job: the one reading of its result file."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from reconciler.model.types_ready import make_ready

NewJob = tuple[dict[str, Any], list[str]]
"""A jobflow Job as JSON, and the uuids of its parents among the jobs that came with it."""


class JobError(msgspec.Struct, frozen=True):
    """What a job raised."""

    type: str
    message: str
    traceback: str


class JobResponse(msgspec.Struct, frozen=True):
    """What a job asks for next, in jobflow's terms."""

    stored_data: Any = None
    stop_children: bool = False
    stop_jobflow: bool = False
    replace: list[NewJob] = []
    detour: list[NewJob] = []
    addition: list[NewJob] = []


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended. Times are seconds since the epoch; ``error`` is None if it ended well.

    ``refers`` are the uuids of the jobs that its output refers to: it tells what they give.
    """

    ok: bool
    started: float
    ended: float
    python: str = ""
    jobflow: str = ""
    error: JobError | None = None
    documents: list[dict[str, Any]] = []
    blobs: dict[str, list[dict[str, Any]]] = {}
    refers: list[str] = []
    response: JobResponse = JobResponse()


make_ready(JobResult)


def read_result(raw: bytes) -> JobResult:
    """Return the result that a launcher wrote.

    Raises
    ------
    ValueError
        It is damaged.
    """
    # Python's reader, since outputs may hold NaN, which strict JSON does not know.
    return msgspec.convert(json.loads(raw), JobResult)
