"""Plain scalars of the YAML 1.2 core schema, and nothing else.

``8:00:00``, ``on``, ``yes``, ``1_000`` and ``2024-01-01`` are strings; ``010`` is ten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

Scalar = None | bool | int | float | str

_INT_RANGE = range(-(2**63), 2**63)
_LONGEST_INT = 64  # digits; far above 64 bits, far below where int() gives up


class OutOfRangeError(ValueError):
    """The text is a number that cannot be kept without changing it."""


def resolve_plain(text: str) -> Scalar:
    """Return the value of an unquoted scalar.

    Raises OutOfRangeError for an integer beyond 64 bits and for a float that would become infinite.
    """
    if text and text[0] not in _FIRST:
        return text
    for pattern, convert in _TABLE:
        if pattern.fullmatch(text):
            return convert(text)
    return text


def _boolean(text: str) -> bool:
    return text[0] in "tT"


def _integer(text: str, base: int = 10) -> int:
    value = int(text, base) if len(text) <= _LONGEST_INT else _INT_RANGE.stop
    if value not in _INT_RANGE:
        raise OutOfRangeError("does not fit into 64 bits")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise OutOfRangeError("is too large for a floating-point number")
    return value


_FIRST = frozenset("nN~tTfF+-.0123456789")
_TABLE: tuple[tuple[re.Pattern[str], Callable[[str], Scalar]], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda text: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), _boolean),
    (re.compile(r"[-+]?[0-9]+"), _integer),
    (re.compile(r"0o[0-7]+"), lambda text: _integer(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: _integer(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), _float),
    (re.compile(r"\+?\.(inf|Inf|INF)"), lambda text: math.inf),
    (re.compile(r"-\.(inf|Inf|INF)"), lambda text: -math.inf),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda text: math.nan),
)
