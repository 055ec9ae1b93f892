"""Large documents without decoding them: find, cut out, check and print parts of MessagePack.

A list of six million numbers has 54 MB as MessagePack, and 200 MB as Python objects. What is here works on
the bytes, and needs memory for one part at a time.
The format: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import base64
import codecs
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import msgspec

from reconciler.actual.codec import decode_value

Step = str | int
"""One step into a document: the key of a mapping, or the index of a list, which can be negative."""

SPARSE = 100
"""Extension for a list of which only some items travel: its length, and the items by index.

The launcher puts None in place of the others (``reconciler/execution/launcher.py``).
"""

_PIECE = 1 << 16
"""Items or bytes that are decoded together."""
_RUN = 4096
"""Numbers that one match finds, because the matcher keeps about a hundred bytes for each of them."""
_SMALL_LIST = 10_000
"""Items of a list that is taken apart in one go."""

_FLOATS = re.compile(rb"(?:\xcb[\s\S]{8})+")
_SMALL_INTEGERS = re.compile(rb"[\x00-\x7f\xe0-\xff]+")

_Raw = msgspec.Raw
_as_map = msgspec.msgpack.Decoder(dict[str, _Raw])
_as_list = msgspec.msgpack.Decoder(list[_Raw])

# Bytes of each scalar by its first byte, and of the length that follows the first byte of the others.
_FIXED = {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9} | {
    first + power: 1 + 2**power for first in (0xCC, 0xD0) for power in range(4)
}
_FIXED |= dict.fromkeys([*range(0x80), *range(0xE0, 0x100)], 1)
_FIXED |= {0xD4 + power: 2 + 2**power for power in range(5)}  # extensions of 1, 2, 4, 8 and 16 bytes
_BINARY = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_LISTS, _MAPS = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}
_WIDTHS = _BINARY | _TEXTS | _LISTS | _MAPS | _EXTENSIONS


def is_map(data: bytes | memoryview) -> bool:
    """Return whether a value is a mapping."""
    return 0x80 <= data[0] <= 0x8F or data[0] in _MAPS


def is_list(data: bytes | memoryview) -> bool:
    """Return whether a value is a list."""
    return 0x90 <= data[0] <= 0x9F or data[0] in _LISTS


def raw_pieces(data: bytes | memoryview) -> Iterator[str] | Iterator[bytes] | None:
    """Return a text or bytes piece by piece, so that little of it is in memory; None for other values."""
    first = data[0]
    if first not in _BINARY and first not in _TEXTS and not 0xA0 <= first <= 0xBF:
        return None
    start, length = _head(data, 0)
    cuts = range(start, start + length, _PIECE)
    pieces = (bytes(data[at : min(at + _PIECE, start + length)]) for at in cuts)
    return pieces if first in _BINARY else codecs.iterdecode(pieces, "utf-8")


def members(data: bytes | memoryview) -> dict[str, memoryview]:
    """Return the values of a mapping, still packed, by their keys."""
    return {key: memoryview(value) for key, value in _as_map.decode(data).items()}


def length(data: bytes | memoryview) -> int:
    """Return the number of items of a list or a mapping."""
    return _head(data, 0)[1]


def item(data: bytes | memoryview, index: int) -> memoryview:
    """Return one item of a list, still packed.

    Raises
    ------
    IndexError
        The list is shorter.
    """
    start, count = _head(data, 0)
    index = index + count if index < 0 else index
    if not 0 <= index < count:
        raise IndexError(index)
    if count <= _SMALL_LIST:
        return memoryview(_as_list.decode(data)[index])
    begin = _skip(data, start, index)
    return memoryview(data)[begin : _skip(data, begin, 1)]


def part(data: bytes | memoryview, steps: Sequence[Step]) -> memoryview:
    """Return what some steps lead to, still packed.

    Raises
    ------
    LookupError
        They lead nowhere; its argument is the number of the step that failed.
    """
    found = memoryview(data)
    for number, step in enumerate(steps):
        try:
            if is_list(found) and isinstance(step, int):
                found = item(found, step)
            elif is_map(found):
                found = members(found)[str(step)]
            else:
                raise LookupError
        except LookupError:
            raise LookupError(number) from None
    return found


def cut(data: bytes | memoryview, paths: Collection[Sequence[Step]]) -> Any:
    """Return only what some paths lead to, each at its place, for ``msgspec.msgpack.encode``.

    A part that describes an object (``@class`` ...) stays whole, since only its class knows where a step
    leads; so does one in which a step leads nowhere.
    """
    first_steps = {path[0] if path else None for path in paths}
    if None in first_steps:
        return _Raw(data)
    rest = {step: [path[1:] for path in paths if path[0] == step] for step in first_steps}
    if is_map(data):
        inner = members(data)
        if all(step in inner for step in rest) and not describes_object(inner):
            return {step: cut(inner[str(step)], rest[step]) for step in rest}
    elif is_list(data) and all(type(step) is int for step in rest):
        count = length(data)
        if all(-count <= step < count for step in rest):  # type: ignore[operator]
            items: dict[int, list[Sequence[Step]]] = {}
            for step, paths_on in rest.items():
                items.setdefault(int(step) % count, []).extend(paths_on)  # type: ignore[arg-type]
            kept = {index: cut(item(data, index), on) for index, on in items.items()}
            return msgspec.msgpack.Ext(SPARSE, msgspec.msgpack.encode([count, kept]))
    return _Raw(data)


def describes_object(keys: Collection[str]) -> bool:
    """Return whether a mapping with these keys stands for something else: an object, or a part elsewhere."""
    return any(key.startswith("@") for key in keys) or "blob_uuid" in keys


def check(data: bytes | memoryview, deepest: int) -> None:
    """Check that a value is complete, valid, and not nested too deeply for those who read it.

    Raises
    ------
    ValueError
        It is not.
    """
    try:
        position, size = 0, len(data)
        open_: list[int] = [1]
        while open_:
            if open_[-1] == 0:
                open_.pop()
                continue
            first = data[position]
            run = _run(data, position, open_[-1])
            if run is not None:
                position, count = run
                open_[-1] -= count
                continue
            open_[-1] -= 1
            after = _after(data, position)
            if first in _EXTENSIONS or 0xD4 <= first <= 0xD8:
                raise ValueError("it has a value that is not JSON")
            if first in _TEXTS or 0xA0 <= first <= 0xBF:
                str(memoryview(data)[after - _head(data, position)[1] : after], "utf-8")
            elif is_map(data[position : position + 1]) or is_list(data[position : position + 1]):
                count = _head(data, position)[1]
                open_.append(count if is_list(data[position : position + 1]) else 2 * count)
                if len(open_) > deepest:
                    raise ValueError(f"it has more than {deepest} levels of nesting")
            position = after
    except (IndexError, KeyError) as error:
        raise ValueError("it is cut off or damaged") from error
    if position != size:
        raise ValueError("it is cut off or damaged")


Load = Callable[[memoryview], memoryview]
"""Returns what is to be printed in place of a mapping: the mapping itself, or what it stands for."""


def json_pieces(
    data: bytes | memoryview, *, ascii_only: bool, load: Load | None = None, level: int = 0
) -> Iterator[str]:
    """Yield a value as indented JSON text piece by piece; NaN and infinite numbers become null.

    ``load`` is asked about the mappings that have a ``blob_uuid``, which are links to additional stores.
    """
    margin = "\n" + "  " * level
    links = load is not None and re.search(b"blob_uuid", data) is not None
    if links and load is not None and is_map(data) and "blob_uuid" in members(data):
        data = load(memoryview(data))
        links = False  # the content of an additional store has no links
    if not links:
        load = None
    if len(data) > _PIECE and data[0] in _TEXTS:
        yield '"'
        for text in raw_pieces(data) or ():
            yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield '"'
        return
    if (len(data) <= _PIECE and not links) or not (is_map(data) or is_list(data)):
        # The line ends are all between values: those in a text are written as an escape.
        yield _as_json(decode_value(data), ascii_only).replace("\n", margin)
        return
    separator = f",{margin}  "
    yield "{" if is_map(data) else "["
    first = True
    for key, inner in members(data).items() if is_map(data) else ((None, one) for one in items(data)):
        yield separator[first:]
        first = False
        if key is not None:
            yield f"{json.dumps(key, ensure_ascii=ascii_only)}: "
        if isinstance(inner, list):  # numbers
            yield (
                json.dumps(inner)[1:-1]
                .replace(", ", separator)
                .replace("-Infinity", "null")
                .replace("Infinity", "null")
                .replace("NaN", "null")
            )
        else:
            yield from json_pieces(inner, ascii_only=ascii_only, load=load, level=level + 1)
    yield margin + ("}" if is_map(data) else "]")


def loaded(data: bytes | memoryview, load: Load) -> Any:
    """Return the value with what its links to additional stores stand for."""
    if re.search(b"blob_uuid", data) is None:
        return decode_value(data)
    if is_map(data):
        inner = members(data)
        if "blob_uuid" in inner:
            return decode_value(load(memoryview(data)))
        return {key: loaded(one, load) for key, one in inner.items()}
    if is_list(data):
        return [loaded(one, load) for one in _as_list.decode(data)]
    return decode_value(data)


def _as_json(value: Any, ascii_only: bool) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=ascii_only, default=_readable, allow_nan=False)
    except ValueError:
        return json.dumps(finite(value), indent=2, ensure_ascii=ascii_only, default=_readable)


def finite(value: Any) -> Any:
    """Return JSON data with None in place of NaN and infinite numbers, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list) else value


def _readable(value: Any) -> Any:
    """Return what JSON has in place of bytes, dates and the like."""
    return {"@bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else str(value)


def items(data: bytes | memoryview) -> Iterator[memoryview | list[Any]]:
    """Yield the items of a list, still packed; of equal numbers in a row, lists of at most 65536 of them."""
    position, count = _head(data, 0)
    view = memoryview(data)
    while count:
        run = _run(data, position, min(count, _PIECE))
        if run is not None:
            end, many = run
            yield decode_value(b"\xdd" + many.to_bytes(4, "big") + view[position:end].tobytes())
            position, count = end, count - many
        else:
            end = _skip(data, position, 1)
            yield view[position:end]
            position, count = end, count - 1


def _run(data: bytes | memoryview, position: int, count: int) -> tuple[int, int] | None:
    """Return the end and the number of equal numbers in a row, at most ``count``; None if there are none."""
    count = min(count, _RUN)
    first = data[position]
    if first == 0xCB:
        found = _FLOATS.match(data, position, position + 9 * count)
        return (found.end(), (found.end() - position) // 9) if found is not None else None
    if first < 0x80 or first >= 0xE0:
        found = _SMALL_INTEGERS.match(data, position, position + count)
        return (found.end(), found.end() - position) if found is not None else None
    return None


def _skip(data: bytes | memoryview, position: int, count: int) -> int:
    """Return the position after ``count`` values and all that is in them."""
    while count:
        run = _run(data, position, count)
        if run is not None:
            position, many = run
            count -= many
            continue
        first = data[position : position + 1]
        if is_list(first) or is_map(first):
            inner = _head(data, position)[1]
            count += inner if is_list(first) else 2 * inner
        position = _after(data, position)
        count -= 1
    return position


def _after(data: bytes | memoryview, position: int) -> int:
    """Return the position after a scalar, or of the first value in a list or mapping."""
    first = data[position]
    end: int
    if first in _FIXED:
        end = position + _FIXED[first]
    else:
        start, count = _head(data, position)
        holds = first in _LISTS or first in _MAPS or 0x80 <= first <= 0x9F
        end = start if holds else start + count
    if end > len(data):
        raise IndexError(end)
    return end


def _head(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return where the content of a value begins, and its length: of items, or of bytes."""
    first = data[position]
    if 0x80 <= first <= 0x9F:
        return position + 1, first & 0x0F
    if 0xA0 <= first <= 0xBF:
        return position + 1, first & 0x1F
    width = _WIDTHS[first]
    start = position + 1 + width
    kind = 1 if first in _EXTENSIONS else 0
    return start + kind, int.from_bytes(data[position + 1 : start], "big")
