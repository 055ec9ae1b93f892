"""Functions, makers and objects for the flows of ``test_export.py``: a module that builds can import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jobflow import Flow, Job, Maker, job
from monty.json import MSONable
from pydantic import BaseModel


class Result(BaseModel):
    """The schema of an output."""

    energy: float = 0.0


class Cell(MSONable):
    """An object that writes itself as JSON."""

    def __init__(self, lengths: list[float]) -> None:
        self.lengths = lengths


def plain(a: Any = None, *, b: Any = None) -> Any:
    return a, b


@job
def give(a: Any = None, *, b: Any = None) -> Any:
    return a, b


@job(output_schema=Result)
def relax(cell: Any) -> Result:
    return Result()


@job(pictures="images")
def draw(cell: Any) -> dict[str, Any]:
    return {"images": [], "cell": cell}


class Tools:
    """Functions in a class."""

    @staticmethod
    @job
    def measure(a: Any) -> Any:
        return a


@dataclass
class Relax(Maker):
    name: str = "relax"
    steps: int = 100
    options: dict[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] = (1.0,)

    @job
    def make(self, cell: Any, previous: Any = None) -> Any:
        return cell, previous

    @job
    def other(self, cell: Any) -> Any:
        return cell


@dataclass
class Twice(Maker):
    name: str = "twice"
    relaxing: Relax = field(default_factory=Relax)

    @job
    def make(self, cell: Any) -> Any:
        return cell

    def flow(self, cell: Any) -> Flow:
        first = self.relaxing.make(cell)
        second = self.relaxing.make(first.output[0], previous=first.output)
        return Flow([first, second], output=second.output, name=self.name)


def grid() -> Any:
    return np.linspace(0.0, 1.0, 5).reshape(1, 5)


def named(made: Job, name: str) -> Job:
    made.name = name
    return made
