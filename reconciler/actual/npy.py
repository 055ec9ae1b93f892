"""Packed lists of numbers as a NumPy file, piece by piece and without NumPy.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator

from reconciler.actual import packed
from reconciler.actual.codec import decode_value

_KINDS = {
    "float64": ("d", "f8"),
    "float32": ("f", "f4"),
    "int64": ("q", "i8"),
    "int32": ("i", "i4"),
    "int16": ("h", "i2"),
    "int8": ("b", "i1"),
    "uint64": ("Q", "u8"),
    "uint32": ("I", "u4"),
    "uint16": ("H", "u2"),
    "uint8": ("B", "u1"),
    "bool": ("B", "b1"),
}
"""Types of NumPy: type codes of Python's arrays, and what the file calls them."""


def npy_pieces(data: bytes | memoryview) -> Iterator[bytes]:
    """Yield a number, a list of numbers or lists of equal length, or an array as monty writes it.

    Raises
    ------
    ValueError
        It is something else; the message completes "it is".
    """
    kind = None
    if packed.is_map(data):
        fields = packed.members(data)
        if not {"@class", "dtype", "data"} <= fields.keys() or decode_value(fields["@class"]) != "array":
            raise ValueError("a mapping")
        kind, data = decode_value(fields["dtype"]), fields["data"]
        if kind not in _KINDS:
            raise ValueError(f"an array of {kind}")
    shape = _shape(data)
    if kind is None:
        types = {kind for numbers in _numbers(data, shape) for kind in map(type, numbers)}
        kind = "bool" if types == {bool} else "int64" if types == {int} else "float64"
    code, name = _KINDS[kind]
    order = "|" if name.endswith("1") else "<" if sys.byteorder == "little" else ">"
    header = f"{{'descr': '{order}{name}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    yield b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    for numbers in _numbers(data, shape):
        try:
            yield array(code, numbers).tobytes()
        except OverflowError:
            raise ValueError(f"a list with numbers that {kind} cannot hold") from None


def _shape(data: bytes | memoryview) -> tuple[int, ...]:
    shape = []
    while packed.is_list(data):
        shape.append(packed.length(data))
        if not shape[-1]:
            break
        data = packed.item(data, 0)
    return tuple(shape)


def _numbers(data: bytes | memoryview, shape: tuple[int, ...]) -> Iterator[list[float]]:
    """Yield all numbers in order, some at a time."""
    if not shape:
        found = [decode_value(data)]
        if not isinstance(found[0], bool | int | float):
            raise ValueError(f"or contains a {type(found[0]).__name__}, not only numbers")
        yield found
        return
    if not packed.is_list(data) or packed.length(data) != shape[0]:
        raise ValueError("a list whose items differ in length")
    for inner in packed.items(data):
        if not isinstance(inner, list):
            yield from _numbers(inner, shape[1:])
        elif len(shape) == 1:
            yield inner
        else:
            raise ValueError("a list whose items differ in length")
