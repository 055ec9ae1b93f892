"""The JSON of a jobflow Job, of its output and of the launcher's result. Reading it does not need jobflow."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from reconciler.actual.codec import decode_value
from reconciler.actual.packed import members
from reconciler.model.types_ready import make_ready

# jobs and outputs ------------------------------------------------------------------------------------------

JOB_FIELDS = frozenset(
    [
        "function", "function_args", "function_kwargs", "output_schema", "uuid", "index", "name", "metadata",
        "config", "hosts", "metadata_updates", "config_updates", "name_updates",
    ]
)  # fmt: skip
"""The fields of a jobflow Job; any other key of its JSON names an additional store."""


_UUID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")


def is_uuid(value: Any) -> bool:
    """Return whether a value has the form of a job's uuid: that of any kind of uuid that jobflow can make.

    It becomes part of paths, keys and names, where ``_`` comes before the index.
    """
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def additional_stores(payload: Mapping[str, Any]) -> list[str]:
    """Return the names of the additional stores that a job writes to."""
    return [key for key in payload if key not in JOB_FIELDS and not key.startswith("@")]


def resolves(payload: Mapping[str, Any]) -> bool:
    """Return whether a job gets the values that it refers to, not only the references."""
    return bool((payload.get("config") or {}).get("resolve_references", True))


def references(value: Any) -> Iterator[str]:
    """Yield the uuids of all OutputReferences in JSON data."""
    return (uuid for uuid, _ in output_references(value))


def output_references(value: Any) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Yield (uuid, path) of each OutputReference in JSON data; an empty path if it cannot be followed."""
    if isinstance(value, dict):
        if value.get("@class") == "OutputReference" and is_uuid(value.get("uuid")):
            try:
                steps = tuple(step for _, step in value.get("attributes") or ())
            except (TypeError, ValueError):
                steps = ()
            yield value["uuid"], steps if all(type(step) in (str, int) for step in steps) else ()
            return
        value = value.values()
    elif not isinstance(value, list):
        return
    for inner in value:
        if isinstance(inner, dict | list):
            yield from output_references(inner)


def blob_links(value: Any) -> Iterator[tuple[str, str]]:
    """Yield (store, blob_uuid) of each part of an output that is in an additional store."""
    if isinstance(value, dict):
        if "blob_uuid" in value and "store" in value:
            yield value["store"], value["blob_uuid"]
        else:
            for inner in value.values():
                yield from blob_links(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from blob_links(inner)


# results ---------------------------------------------------------------------------------------------------

NewJob = tuple[dict[str, Any], list[str]]
"""A jobflow Job as JSON, and the uuids of its parents among the jobs that came with it."""


class UnresolvedReference(msgspec.Struct, frozen=True):
    """A reference that leads nowhere: the output of the job ``uuid`` lacks the attribute ``missing``.

    ``attributes`` are all steps of the reference, ``["a", name]`` or ``["i", index]``; ``missing`` is the
    number of the one that failed, on a value of the type ``found``.
    """

    uuid: str
    attributes: list[tuple[str, Any]]
    missing: int
    found: str


class JobError(msgspec.Struct, frozen=True):
    """The exception that a job raised; ``reference`` if it was that a reference leads nowhere."""

    type: str
    message: str
    traceback: str
    reference: UnresolvedReference | None = None


class JobResponse(msgspec.Struct, frozen=True):
    """What a job asks for next, in jobflow's terms."""

    stored_data: Any = None
    stop_children: bool = False
    stop_jobflow: bool = False
    replace: list[NewJob] = []
    detour: list[NewJob] = []
    addition: list[NewJob] = []


class PackedDocument(msgspec.Struct, frozen=True):
    """A large document of a result: an output if ``store`` is empty, else a part in an additional store.

    ``data`` is MessagePack, as the store keeps it; it comes in a file that is named by its ``sha256``.
    """

    store: str
    sha256: str
    data: bytes = b""

    def head(self) -> dict[str, Any]:
        """Return the fields that identify the document."""
        fields = members(self.data)
        return {name: decode_value(fields[name]) for name in _IDENTITY if name in fields}

    def with_field(self, name: str, value: Any) -> PackedDocument:
        """Return the document with another field; its other fields stay packed."""
        fields: dict[str, Any] = {key: msgspec.Raw(one) for key, one in members(self.data).items()}
        return msgspec.structs.replace(self, data=msgspec.msgpack.encode(fields | {name: value}))


_IDENTITY = ("uuid", "index", "blob_uuid", "job_uuid", "job_index")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a job used: CPU time in seconds, and the largest memory of one of its processes in bytes."""

    cpu: Annotated[float, msgspec.Meta(ge=0)]
    memory: Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended. Times are seconds since the epoch; ``error`` is None if it succeeded.

    ``refers`` are the uuids of the jobs that its output refers to. ``signalled``: the job got the signal
    that announces its time limit, so if it failed, it failed for want of time.
    """

    ok: bool
    started: float
    ended: float
    python: str = ""
    jobflow: str = ""
    error: JobError | None = None
    usage: Usage | None = None
    signalled: bool = False
    documents: list[dict[str, Any]] = []
    blobs: dict[str, list[dict[str, Any]]] = {}
    packed: list[PackedDocument] = []
    refers: list[str] = []
    response: JobResponse = JobResponse()


make_ready(JobResult)


def read_result(raw: bytes) -> JobResult:
    """Return the result that a launcher wrote. Raises ValueError if it is damaged."""
    # Python's reader, because outputs may contain NaN, which strict JSON does not have.
    data = json.loads(raw, object_hook=_with_bytes if b'"@bytes"' in raw else None)
    return msgspec.convert(data, JobResult)


def payload_json(payload: Mapping[str, Any]) -> bytes:
    """Return the JSON of a job that was read with bytes, as :func:`read_result` does."""
    return json.dumps(payload, default=_bytes_as_json).encode()


def _bytes_as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"@bytes": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} is not JSON")


def _with_bytes(value: dict[str, Any]) -> Any:
    """Return the bytes that the launcher writes as ``{"@bytes": <base64>}``; any other mapping as it is."""
    if len(value) == 1 and isinstance(text := value.get("@bytes"), str):
        with contextlib.suppress(ValueError):
            return base64.b64decode(text, validate=True)
    return value
