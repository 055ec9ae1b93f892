"""Documents as bytes: MessagePack, with the values that MongoDB supports and JSON does not.

Strings, booleans, None, floats (NaN and infinities too), integers of 64 bits, bytes, lists and dicts with
string keys are MessagePack's own types, so a document without special values is read by one call of C code.
The others are extensions: dates, uuids, larger integers, and bson's own types (``ObjectId`` ...), for which
bson is imported only when one is met.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

Document = dict[str, Any]

_DATE, _UUID, _BIG_INT, _BSON = 1, 2, 3, 4
_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
_PLAIN = frozenset({str, float, bool, bytes, type(None)})


def encode(doc: Mapping[str, Any]) -> bytes:
    """Return the bytes of a document.

    Dates are converted as by MongoDB: to UTC without time zone, in whole milliseconds. Keys become strings,
    and tuples become lists.

    Raises
    ------
    TypeError
        A value has a type that cannot be stored; the message names the type.
    """
    return msgspec.msgpack.encode(_ready_dict(doc))


def decode(data: bytes) -> Document:
    """Return the document in ``data``; dates are naive, in UTC.

    Raises
    ------
    msgspec.DecodeError
        ``data`` is damaged.
    """
    found: Document = _decoder.decode(data)
    return found


def decode_value(data: bytes | memoryview) -> Any:
    """Return a part of a document, of any type."""
    return _decoder.decode(data)


def stored_date(value: datetime) -> datetime:
    """Return a date as :func:`decode` returns it: naive, in UTC, truncated to milliseconds."""
    return _EPOCH + _milliseconds(value) * _MILLISECOND


def _milliseconds(value: datetime) -> int:
    naive = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    return (naive - _EPOCH) // _MILLISECOND


def _ready(value: Any) -> Any:
    """Return ``value`` with extensions for everything that msgspec would change or refuse."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return _ready_dict(value)
    if kind is list or kind is tuple:
        # Long lists of numbers are common in outputs: this check saves a call for each number.
        return value if _PLAIN.issuperset(map(type, value)) else [_ready(item) for item in value]
    if kind is int:
        return value if _LOWEST <= value <= _HIGHEST else _extension(_BIG_INT, str(value).encode())
    return _ready_special(value)


def _ready_dict(value: Mapping[Any, Any]) -> Document:
    return {
        key if type(key) is str else str.__str__(key) if isinstance(key, str) else str(key): _ready(item)
        for key, item in value.items()
    }


def _ready_special(value: Any) -> Any:
    if isinstance(value, datetime):
        return _extension(_DATE, _milliseconds(value).to_bytes(8, "big", signed=True))
    if isinstance(value, UUID):
        return _extension(_UUID, value.bytes)
    # By name, so that reading and writing without such values never imports bson. Its Code and Binary are
    # subclasses of str and bytes, hence before _ready_subclass.
    if type(value).__module__.partition(".")[0] == "bson":
        return _ready_bson(value)
    return _ready_subclass(value)


def _ready_bson(value: Any) -> Any:
    if isinstance(value, int | Mapping):  # Int64 and SON
        return _ready_subclass(value)
    import bson

    return _extension(_BSON, bson.encode({"v": value}))


def _ready_subclass(value: Any) -> Any:
    """Convert enums of strings or numbers, ordered dicts and the like to plain types; refuse the rest."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    for number in (int, float):
        if isinstance(value, number):
            return _ready(number(value))
    if isinstance(value, Mapping):
        return _ready_dict(value)
    if isinstance(value, list | tuple):
        return [_ready(item) for item in value]
    kind_name = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(f"cannot store a value of type {kind_name}: {value!r:.80}")


def _extension(code: int, data: bytes) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, data)


def _revive(code: int, data: memoryview) -> Any:
    """Return the value of an extension."""
    if code == _DATE:
        return _EPOCH + int.from_bytes(data, "big", signed=True) * _MILLISECOND
    if code == _UUID:
        return UUID(bytes=bytes(data))
    if code == _BIG_INT:
        return int(bytes(data))
    if code == _BSON:
        import bson

        return bson.decode(bytes(data))["v"]
    raise msgspec.DecodeError(f"unknown extension {code}: the document was written by a newer version")


_decoder = msgspec.msgpack.Decoder(ext_hook=_revive)
