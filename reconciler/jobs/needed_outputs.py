"""The parts of earlier outputs that a job needs, cut out of the stored bytes.

Of a large output, only the parts travel to which the references of the job lead, if that can be told without
the classes of the objects in it, and the job does not read the store itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from reconciler.actual import packed
from reconciler.actual.codec import decode_value
from reconciler.jobs.job_json import blob_links, output_references
from reconciler.jobs.outputs import Outputs

SMALL = 16 << 10
"""Bytes of a document that travels whole, in the input of the job."""

Path = tuple[packed.Step, ...]
EVERYTHING: Path = ()
_LONGEST = 100
"""Steps of a path that is followed through references."""
_Key = tuple[str, str]  # the additional store, or "" for the output of a job; and the uuid there


class NeededDocument(msgspec.Struct, frozen=True):
    """A document that a job needs, as MessagePack: the output of a job if ``store`` is empty, else a blob.

    ``is_part``: it was cut out of a larger one, and can have lists of which only some items are there
    (:data:`~reconciler.actual.packed.SPARSE`).
    """

    store: str
    data: bytes
    is_part: bool = False


def needed_outputs(payload: Mapping[str, Any], outputs: Outputs) -> list[NeededDocument]:
    """Return what a job needs of earlier outputs: what it refers to, directly or through other outputs."""
    config = payload.get("config") or {}
    reads_all = bool(config.get("expose_store")) or not config.get("resolve_references", True)
    data: dict[_Key, bytes] = {}
    wanted: dict[_Key, set[Path]] = {}
    open_: list[tuple[_Key, Path]] = [
        (("", uuid), EVERYTHING if reads_all else on) for uuid, on in output_references(payload)
    ]
    seen: set[tuple[_Key, Path]] = set()
    while open_:
        key, path = step = open_.pop()
        if step in seen:
            continue
        seen.add(step)
        if key not in wanted:
            store, uuid = key
            found = outputs.packed_blob(store, uuid) if store else outputs.packed(uuid)
            if found is not None:
                data[key] = found
            wanted[key] = set()
        if key in data:
            refers, kept = _follow(key, data[key], path)
            wanted[key].add(kept)
            open_ += refers
    return [_needed(key, found, wanted[key]) for key, found in data.items()]


def _follow(key: _Key, data: bytes, path: Path) -> tuple[list[tuple[_Key, Path]], Path]:
    """Return what the part at a path refers to, and the path to keep: empty for the whole document."""
    content = _content(key, data)
    # Searched in place: a copy of a large output costs as much memory again.
    if re.search(b"OutputReference", content) is not None:
        # jobflow resolves every reference of an output, also those that nothing asks for.
        part, kept = content, EVERYTHING
    elif re.search(b"blob_uuid", content) is not None:
        part, kept = _stop(content, path)[0], path
    else:
        return [], EVERYTHING if len(data) <= SMALL else path
    stop, rest = _stop(content, path)
    through = _link(decode_value(stop)) if packed.is_map(stop) else None
    refers = []
    for other, on in _links(decode_value(part)):
        is_through = (
            through == (other, on) and len(on) + len(rest) <= _LONGEST
        )  # references can go in a circle
        refers.append((other, (*on, *rest) if is_through else on))
    return refers, kept


def _link(value: Any) -> tuple[_Key, Path] | None:
    """Return what a mapping stands for, if it is a reference or a link to an additional store."""
    inner = list(_links(value))
    is_one = isinstance(value, dict) and (value.get("@class") == "OutputReference" or "blob_uuid" in value)
    return inner[0] if is_one and inner else None


def _links(value: Any) -> Iterator[tuple[_Key, Path]]:
    """Yield all references and links in JSON data, with their paths."""
    for uuid, path in output_references(value):
        yield ("", uuid), path
    for store, blob_uuid in blob_links(value):
        if isinstance(store, str) and store and isinstance(blob_uuid, str):
            yield (store, blob_uuid), EVERYTHING


def _content(key: _Key, data: bytes) -> memoryview:
    """Return the part of a document that references lead into."""
    return packed.members(data).get(_field(key), memoryview(b"\xc0"))


def _field(key: _Key) -> str:
    return "data" if key[0] else "output"


def _stop(content: memoryview, path: Path) -> tuple[memoryview, Path]:
    """Return the part from which on only a class knows where a path leads, and the rest of the path."""
    for number, step in enumerate(path):
        if packed.is_map(content) and packed.describes_object(packed.members(content)):
            return content, path[number:]
        try:
            content = packed.part(content, [step])
        except LookupError:
            return content, path[number:]
    return content, ()


def _needed(key: _Key, data: bytes, paths: set[Path]) -> NeededDocument:
    if EVERYTHING in paths:
        return NeededDocument(key[0], data)
    content = _content(key, data)
    # As others need it, and as its worker may have it; but no job gets links to parts that it does not need.
    may_be_whole = re.search(b"blob_uuid", content) is None
    if may_be_whole and 2 * max(_size(content, path) for path in paths) > len(data):
        return NeededDocument(key[0], data)  # without a copy of a large part first
    fields: dict[str, Any] = {
        field: packed.cut(value, sorted(paths, key=str)) if field == _field(key) else msgspec.Raw(value)
        for field, value in packed.members(data).items()
    }
    part = msgspec.msgpack.encode(fields)
    if may_be_whole and 2 * len(part) > len(data):
        return NeededDocument(key[0], data)
    return NeededDocument(key[0], part, is_part=True)


def _size(content: memoryview, path: Path) -> int:
    """Return the bytes of the part at a path; 0 if only a class can know where it leads."""
    try:
        return len(packed.part(content, path))
    except LookupError:
        return 0
