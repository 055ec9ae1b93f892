"""Automatic retries: which failures get another attempt, when, and with how much more resources.

``Cause`` is why an attempt failed; a policy is the ``retries`` of a run config.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from reconciler.model.settings import Resources
from reconciler.model.types_ready import make_ready


def back_off(failures: int, first: float, longest: float) -> float:
    """Return the seconds to wait after failures in a row: ``first``, then doubled up to ``longest``."""
    return min(longest, first * 2.0 ** min(max(0, failures - 1), 32))


class Cause(StrEnum):
    """Why an attempt failed; ``exception`` is one that the Python code of the job raised."""

    WALLTIME = "walltime"
    OOM = "oom"
    NODE_FAIL = "node_fail"
    PREEMPTED = "preempted"
    KILLED = "killed"
    LOST = "lost"
    EXCEPTION = "exception"
    NEVER_STARTED = "never_started"


LONGEST_WAIT = 3600.0
"""The longest back-off, in seconds."""

HIGHEST_LIMIT = 100

LARGEST_FACTOR = 1e6
"""The largest factor by which repeated escalation multiplies a value."""

FORMS = ("resources", "qresources")
"""The keys of ``escalate``: the two forms that resources have."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Continuation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a retry continues what the attempt before it has left, instead of starting from the beginning.

    ``keep`` are glob patterns of files and directories in the run directory of that attempt, which the next
    one gets: copies or, with ``link``, hard links. ``rename`` maps their names to new ones. ``signal`` is
    sent to the processes of the job before its time limit: ``TERM@300`` is SIGTERM, 300 seconds before.
    Any other value raises ValueError.
    """

    keep: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    link: bool = False
    signal: str | None = None

    def __post_init__(self) -> None:
        """Check the values: a policy that Python code sets has passed no schema."""
        for path in (*self.keep, *self.rename, *self.rename.values()):
            if not path or path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"'{path}' is not a path below the run directory")
        if self.signal is not None and _SIGNAL.fullmatch(self.signal) is None:
            raise ValueError(
                f"'{self.signal}' is not a signal and seconds: give {', '.join(SIGNALS)}, as in TERM@300"
            )

    @property
    def warning(self) -> tuple[str, int] | None:
        """The signal, and how many seconds before the time limit it is sent."""
        if self.signal is None:
            return None
        name, _, seconds = self.signal.partition("@")
        return name, int(seconds)


SIGNALS = ("TERM", "INT", "HUP", "USR1", "USR2", "XCPU")
"""The signals that can announce the end of an attempt."""

_SIGNAL = re.compile(rf"({'|'.join(SIGNALS)})@(\d{{1,6}})")


class Retries(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"continuation": "continue"}
):
    """A policy. ``limit`` attempts beyond the first; 0 is explicitly none.

    ``backoff`` is the wait before the first of them, doubled before each further one. ``escalate`` multiplies
    values of the ``resources`` or ``qresources`` each time: ``{resources: {time: "*2"}}``. ``continuation``,
    written ``continue``, says what a retry gets from the attempt before it. Any other value raises
    ValueError.
    """

    limit: int
    on: tuple[Cause, ...] = (Cause.WALLTIME, Cause.OOM, Cause.NODE_FAIL, Cause.PREEMPTED, Cause.LOST)
    backoff: str = "10s"
    escalate: dict[str, dict[str, str]] = {}
    continuation: Continuation | None = None

    def __post_init__(self) -> None:
        """Check the values: a policy that Python code sets has passed no schema."""
        if not 0 <= self.limit <= HIGHEST_LIMIT:
            raise ValueError(f"limit is {self.limit}: give a number from 0 to {HIGHEST_LIMIT}")
        seconds_of(self.backoff)
        for form, factors in self.escalate.items():
            if form not in FORMS:
                raise ValueError(f"'{form}' cannot be escalated: give {' or '.join(FORMS)}")
            for factor in factors.values():
                factor_of(factor)

    def wants(self, cause: str | None, made: int) -> bool:
        """Return whether an attempt that failed for a cause gets a retry after ``made`` earlier ones."""
        return made < self.limit and cause in self.on

    def wait(self, made: int) -> float:
        """Return the seconds to wait before the next retry."""
        return back_off(made + 1, seconds_of(self.backoff), LONGEST_WAIT)

    def escalated(self, resources: Resources | None, made: int) -> Resources | None:
        """Return the resources after a number of retries; values that cannot be multiplied stay."""
        if resources is None or made == 0:
            return resources
        factors = self.factors(resources)
        values = {
            key: _grown(value, factors[key], made) if key in factors else value
            for key, value in resources.values.items()
        }
        return Resources(values, resources.generic)

    def factors(self, resources: Resources) -> Mapping[str, str]:
        """Return the factors for resources of this form, by key."""
        return self.escalate.get(form_of(resources), {})

    def problems(self, resources: Resources) -> Iterator[tuple[str, str]]:
        """Yield (key, what is wrong) of the values that cannot be multiplied."""
        for key, factor in self.factors(resources).items():
            try:
                multiplied(resources.values.get(key, 1), factor_of(factor))
            except ValueError as error:
                yield key, str(error)


def form_of(resources: Resources) -> str:
    """Return under which of :data:`FORMS` resources are written."""
    return "qresources" if resources.generic else "resources"


def _grown(value: Any, factor: str, made: int) -> Any:
    try:
        return multiplied(value, min(LARGEST_FACTOR, factor_of(factor) ** made))
    except ValueError:
        return value


def policy_of(value: Any) -> Retries | None:
    """Return the policy that a run config has as plain data; None for None.

    Raises
    ------
    msgspec.ValidationError
        The value, which Python code may have set, is not a policy.
    """
    return msgspec.convert(value, Retries) if value is not None else None


def seconds_of(duration: str) -> float:
    """Return the seconds of ``30s``, ``5m``, ``2h``, ``7d`` or ``1w``.

    Raises
    ------
    ValueError
        It has another form.
    """
    found = re.fullmatch(r"(\d{1,9})([smhdw])", duration)
    if found is None:
        raise ValueError(f"'{duration}' is not a duration: give a number with s, m, h, d or w")
    return float(int(found[1]) * _UNITS[found[2]])


def factor_of(text: str) -> float:
    """Return the factor of ``*2`` or ``*1.5``.

    Raises
    ------
    ValueError
        It has another form, or is zero.
    """
    found = re.fullmatch(r"\*\s*(\d{1,3}(?:\.\d{1,6})?)", text)
    factor = float(found[1]) if found is not None else 0.0
    if factor == 0.0:
        raise ValueError(f"'{text}' is not a factor: give '*2' or '*1.5'")
    return factor


def multiplied(value: Any, factor: float) -> Any:
    """Return a value of a scheduler's keyword, multiplied and rounded up: numbers, times, amounts of memory.

    Times keep their form: ``1-12:00:00``, ``48:00:00``, ``90:00``; memory its unit where the result is whole.

    Raises
    ------
    ValueError
        The value cannot be multiplied.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.ceil(round(value * factor, 6))
    if isinstance(value, str):
        for read in (_number, _time, _memory):
            found = read(value.strip(), factor)
            if found is not None:
                return found
    raise ValueError(f"{value!r} cannot be multiplied: it is not a number, a time or an amount of memory")


def _number(text: str, factor: float) -> str | None:
    return str(math.ceil(round(int(text) * factor, 6))) if text.isdigit() else None


def _time(text: str, factor: float) -> str | None:
    """Multiply Slurm's ``D-H``, ``D-H:M``, ``D-H:M:S`` and ``M:S``, and the ``H:M:S`` of all schedulers."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if found is None or (found[1] is None and found[3] is None):
        return None
    days, first, second, third = (int(part) if part is not None else 0 for part in found.groups())
    if found[1] is None and found[4] is None:  # minutes and seconds
        total = math.ceil(round((first * 60 + second) * factor, 6))
        return f"{total // 60}:{total % 60:02}"
    total = math.ceil(round((((days * 24 + first) * 60 + second) * 60 + third) * factor, 6))
    hours, rest = divmod(total, 3600)
    clock = f"{rest // 60:02}:{rest % 60:02}"
    return f"{hours // 24}-{hours % 24:02}:{clock}" if found[1] is not None else f"{hours:02}:{clock}"


_SMALLER = {"t": "g", "g": "m", "m": "k"}


def _memory(text: str, factor: float) -> str | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgtKMGT])([bB]?)", text)
    if found is None:
        return None
    amount, unit = round(float(found[1]) * factor, 6), found[2]
    while amount != int(amount) and unit.lower() in _SMALLER:  # schedulers take whole numbers only
        smaller = _SMALLER[unit.lower()]
        amount, unit = round(amount * 1024, 6), smaller.upper() if unit.isupper() else smaller
    return f"{math.ceil(amount)}{unit}{found[3]}"


make_ready(Retries)
