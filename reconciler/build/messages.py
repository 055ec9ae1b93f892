"""What a reconcile and its build process send each other: one request for each flow, and one answer."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO, Any

import msgspec

from reconciler.desired.values import iter_directives
from reconciler.model.flows import BuiltJob

HEADER = struct.Struct(">Q")
"""Before each message: its length in bytes."""


LARGEST = 1 << 30
"""Bytes of the largest message."""


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One flow to build.

    ``token`` is random, and the answer repeats it: the code of another flow cannot know it.
    ``externals`` maps ``flow/job`` to (uuid, content hash) of a job of another flow, and ``flow/`` to the
    JSON and the digest of the output of a flow. ``files`` maps paths of
    the repository to their copies, and ``blobs`` the copies to (blob id, file name, and ``x`` if
    executable). ``code`` maps the directories to import from to their names in the repository. ``filters``
    are the functions that override rules name. ``callables`` are the names that the policy allows; None
    allows all.
    """

    token: str
    flow: str
    identity: str
    spec: dict[str, Any]
    externals: dict[str, tuple[str, str]]
    files: dict[str, str]
    blobs: dict[str, tuple[str, ...]]
    code: dict[str, str]
    code_as_content: list[str]
    filters: list[str] = []
    callables: list[str] | None = None


class BuildProblem(msgspec.Struct, frozen=True):
    """Why a flow cannot be built; ``pointer`` is the value of the manifest that causes it, if known."""

    message: str
    pointer: str | None = None
    hint: str | None = None


class BuildAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of a flow, or a problem.

    ``token`` is that of the request. ``imported`` are the installed modules that the build needed, ``used``
    those directories of the request's ``code`` that it imported a module from.
    ``aliases`` are other paths of functions, ``output`` is that of the flow, see :class:`BuiltFlow`.
    """

    token: str
    jobs: list[BuiltJob] = []
    aliases: dict[str, list[str]] = {}
    output: str = ""
    jobflow_version: str = ""
    problem: BuildProblem | None = None
    imported: list[str] = []
    used: list[str] = []


def runs_user_code(spec: Mapping[str, Any]) -> bool:
    """Return whether a build may run more than imports of modules that its jobs name, and jobflow itself."""
    directives = (name for _, name, _ in iter_directives(spec))
    return any("maker" in job for job in spec.get("jobs") or [{"maker": None}]) or not {
        "$call",
        "$maker",
        "$load",
    }.isdisjoint(directives)


def clean_text(text: str) -> str:
    r"""Return text that can be stored and shown; half of a surrogate pair becomes ``\udce9``."""
    return text.encode("utf-8", "backslashreplace").decode()


def frame(message: bytes) -> bytes:
    """Return a message with its length before it."""
    return HEADER.pack(len(message)) + message


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Return the next message of a stream without a buffer; None at its end, or if a message breaks off.

    Nothing after the message is read: the code of a flow must not find the next requests in its memory.
    """
    header = _read(stream, HEADER.size)
    if len(header) < HEADER.size:
        return None
    (length,) = HEADER.unpack(header)
    message = _read(stream, length) if length <= LARGEST else b""
    return message if len(message) == length else None


def _read(stream: IO[bytes], length: int) -> bytes:
    found = bytearray()
    while len(found) < length and (chunk := stream.read(length - len(found))):
        found += chunk
    return bytes(found)
