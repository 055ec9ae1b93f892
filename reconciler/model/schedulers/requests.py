"""What a resource request amounts to: cores, GPUs and time, read from the text of the manifest.

Nothing is guessed: what depends on the site (whole nodes, default cores, the time limit of a queue) is
unknown. Only defaults of the scheduler's own language count, such as one CPU per task in Slurm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class ResourceRequest(msgspec.Struct, frozen=True):
    """What one job asks for; None where that is unknown. ``seconds`` is the limit of its run time."""

    cores: int | None = None
    seconds: int | None = None
    gpus: int | None = 0

    @property
    def core_hours(self) -> float | None:
        """The most that the job can use: cores x time limit."""
        return None if self.cores is None or self.seconds is None else self.cores * self.seconds / 3600

    @property
    def gpu_hours(self) -> float | None:
        """The most that the job can use: GPUs x time limit."""
        return None if self.gpus is None or self.seconds is None else self.gpus * self.seconds / 3600


UNKNOWN = ResourceRequest(gpus=None)


def whole(value: object) -> int | None:
    """Return a positive whole number, also one written as text; None for everything else."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def count(values: Mapping[str, Any], key: str) -> int | None:
    """Return the number that a keyword gives: 1 if it is missing, None if it is not a whole number."""
    return whole(values[key]) if key in values else 1


def product(*factors: int | None) -> int | None:
    """Return the product; None if a factor is unknown."""
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


def total(terms: Sequence[int | None]) -> int | None:
    """Return the sum; None if a term is unknown."""
    known = [term for term in terms if term is not None]
    return sum(known) if len(known) == len(terms) else None


def last_number(value: object) -> int | None:
    """Return the number of ``2`` or ``a100:2``; a list of several kinds is not added up."""
    text = str(value)
    return None if "," in text else whole(text.rpartition(":")[2])


def clock_seconds(value: object) -> int | None:
    """Return the seconds of ``S``, ``M:S``, ``H:M:S`` or ``D:H:M:S``; None for 0, which means no limit.

    This is the form of PBS and Grid Engine, in which an empty part is 0.
    """
    parts = str(value).strip().split(":")
    if len(parts) > 4 or isinstance(value, bool) or not all(re.fullmatch(r"\d{0,9}", part) for part in parts):
        return None
    units = (1, 60, 3600, 86400)
    return sum(int(part or 0) * unit for part, unit in zip(reversed(parts), units, strict=False)) or None


def clock_text(seconds: int) -> str:
    """Return a time as ``H:MM:SS``, which Slurm, PBS and Grid Engine all read."""
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def is_clock(value: object) -> bool:
    """Return whether this is a time for PBS and Grid Engine; 0 and a value without digits are not."""
    return clock_seconds(value) is not None


def whole_number(value: object, otherwise: int) -> int:
    """Return a whole number, which may be negative or written as text; ``otherwise`` for everything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,9}\s*", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def options_of(value: object) -> dict[str, str]:
    """Return the requests of ``select=2:ncpus=8,walltime=1:00:00``: what follows ``-l``."""
    items = (item.partition("=") for item in str(value).replace(" ", "").split(","))
    return {name: rest for name, _, rest in items}
