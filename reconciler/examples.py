"""Small jobs for tutorials and tests.

They are user code: flows name them as ``reconciler.examples.add`` and workers import them. Nothing else in
the package imports this module, since it imports jobflow.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import jobflow
from jobflow import Flow, Maker, Response

Number: TypeAlias = int | float

# jobflow's decorator has overloads that strict type checking cannot see through. This says what it does to
# a function here: the arguments stay, and calling it gives a Job instead of the result.
job: Callable[[Callable[..., Any]], Callable[..., Any]] = jobflow.job


@job
def value(n: Any) -> Any:
    """Return ``n`` as it is."""
    return n


@job
def add(a: Number, b: Number) -> Number:
    """Return ``a + b``."""
    return a + b


@job
def add_many(*to_sum: Number) -> Number:
    """Return the sum of all arguments, 0 for none."""
    return sum(to_sum)


@job
def make_list(a: Any, length: int | None = None) -> list[Any]:
    """Return ``length`` times ``a``; without a length, two to five times, by chance."""
    return [a] * (random.randint(2, 5) if length is None else length)


@job
def sleep(s: float) -> float:
    """Wait for ``s`` seconds and return ``s``."""
    time.sleep(s)
    return s


@job
def add_sleep(a: Number, b: Number) -> Number:
    """Wait for ``b`` seconds and return ``a + b``."""
    time.sleep(b)
    return a + b


@job
def fail(message: str = "failed on purpose") -> NoReturn:
    """Raise ``RuntimeError(message)``."""
    raise RuntimeError(message)


@job
def write_file(name: str, text: str) -> str:
    """Write ``text`` into the file ``name`` of the run directory and return its absolute path.

    Raises ValueError if ``name`` is not a plain file name, as it could leave the run directory.
    """
    if Path(name).name != name:
        raise ValueError(f"{name!r} is not a plain file name")
    path = Path.cwd() / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@job
def environment(name: str) -> str:
    """Return the value of the environment variable ``name`` in the job, or an empty string."""
    return os.environ.get(name, "")


@job
def pid() -> int:
    """Return the process id of the job on its worker."""
    return os.getpid()


@job
def add_distributed(list_a: Sequence[Number]) -> Response:
    """Replace this job by a flow with one job ``add`` for each number, which adds 1 to it."""
    return Response(replace=Flow([add(number, 1) for number in list_a]))


@job
def conditional_sum_replace(numbers: Sequence[Number], min_n: Number = 10) -> Number | Response:
    """Return the sum of ``numbers`` if it reaches ``min_n``, else try again with 5 more.

    Trying again is a flow of three jobs that replaces this one: two values and the same job on them.
    """
    total = sum(numbers)
    if total >= min_n:
        return total
    so_far, more = value(total), value(5)
    again = conditional_sum_replace([so_far.output, more.output], min_n=min_n)
    return Response(replace=Flow([so_far, more, again], output=again.output))


@job
def self_replace(n: int) -> int | Response:
    """Replace this job by itself ``n`` times; the last one returns ``n``, which is 0 then."""
    return Response(replace=self_replace(n - 1)) if n > 0 else n


def multiply(a: Number, b: Number) -> Number:
    """Return ``a * b``. Not decorated: a flow may name any function."""
    return a * b


def power(base: Number, exponent: int = 2) -> Number:
    """Return ``base`` to the power of ``exponent``. Not decorated, with a default value."""
    result: Number = base**exponent
    return result


@dataclass
class AddMaker(Maker):  # type: ignore[misc]  # jobflow is not followed by the type checker: its classes are Any
    """Makes a job that adds two numbers and the ``offset``."""

    name: str = "add"
    offset: Number = 0

    @job
    def make(self, a: Number, b: Number) -> Number:
        """Return ``a + b + offset``."""
        return a + b + self.offset


@dataclass
class AddTwiceMaker(Maker):  # type: ignore[misc]  # as above
    """Makes a flow of two jobs of its ``add_maker``: the second adds ``b`` to what the first gives."""

    name: str = "add twice"
    add_maker: AddMaker = field(default_factory=AddMaker)

    def make(self, a: Number, b: Number) -> Flow:
        """Return the flow; its output is that of the second job: ``a + 2 b + 2 offset``."""
        first = self.add_maker.make(a, b)
        second = self.add_maker.make(first.output, b)
        second.name = f"{self.add_maker.name} again"
        return Flow([first, second], output=second.output, name=self.name)


def arithmetic_flow(a: Number, b: Number) -> Flow:
    """Return a flow of two jobs, ``value`` and ``add``, that gives ``a + b``. For the factory form."""
    first = value(a)
    total = add(first.output, b)
    return Flow([first, total], output=total.output, name="arithmetic")
