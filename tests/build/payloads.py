"""What jobs of the tests are given: functions and objects that arrive on a worker, and such that do not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Any

import numpy as np
from jobflow import Maker, job
from monty.json import MSONable
from pydantic import BaseModel


class Colour(Enum):
    RED = "red"
    BLUE = 3


class Letter(str, Enum):  # noqa: UP042 (what many codes have)
    A = "a"


class Level(IntEnum):
    LOW = 1


class Point(BaseModel):
    x: float
    tags: dict[int, str] = {}


class Labelled(Point):
    label: str


class Line(BaseModel):
    points: list[Point]


class Cell(MSONable):  # type: ignore[misc]
    def __init__(self, edges: Any, inner: Any = None) -> None:
        self.edges = edges
        self._inner = inner

    def longest(self, factor: float = 1) -> float:
        return float(max(self.edges)) * factor


class Grown(MSONable):  # type: ignore[misc]
    """It writes itself, in a form of its own."""

    def __init__(self, seeds: Any, rings: int = 0) -> None:
        self.seeds, self.rings = seeds, rings + 1

    def as_dict(self) -> dict[str, Any]:
        return {"@module": __name__, "@class": "Grown", "seeds": self.seeds, "years": self.rings}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Grown:
        return cls(d["seeds"], d["years"] - 1)


class Sheet:
    """It writes itself as a subclass, as ``ase.Atoms`` do once quacc is imported."""

    reads_all = True

    def __init__(self, cells: list[Any]) -> None:
        self.cells = cells
        self.notes: dict[str, Any] = {}
        self._cache = dict.fromkeys(map(str, cells))

    def as_dict(self) -> dict[str, Any]:
        return {"@module": __name__, "@class": f"Read{type(self).__name__}", "cells": self.cells}


def noted() -> Sheet:
    """Return a sheet with a note, which does not arrive."""
    sheet = Sheet([1])
    sheet.notes["a"] = "b"
    return sheet


class ReadSheet(Sheet):
    """What arrives."""

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"@class": type(self).__name__}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> ReadSheet:
        made = cls(d["cells"] if cls.reads_all else [])
        made._cache.clear()
        return made


class Scrap(Sheet):
    """It arrives without its cells."""

    reads_all = False


class ReadScrap(ReadSheet, Scrap):
    """What arrives of it."""


@dataclasses.dataclass
class AddMaker(Maker):  # type: ignore[misc]
    name: str = "add"
    numbers: Any = (1, 2)
    function: Any = None

    @job
    def make(self, a: float) -> Any:
        return a + sum(self.numbers)


class Outer:
    class Inner(MSONable):  # type: ignore[misc]
        def __init__(self, x: int) -> None:
            self.x = x

    @classmethod
    def doubled(cls, x: float) -> float:
        return 2 * x


def double(x: float) -> float:
    return 2 * x


@job
def decorated(x: float) -> float:
    return 3 * x


def add(x: float, more: float = 0) -> float:
    return x + more


def adding(more: float) -> Callable[[float], float]:
    """Return a partial that looks like ``add``."""
    return functools.update_wrapper(functools.partial(add, more=more), add)


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args) + 1

    return inner


def local_function(more: float) -> Callable[[float], float]:
    def inner(x: float) -> float:
        return x + more

    return inner


def local_class() -> Any:
    class Local(MSONable):  # type: ignore[misc]
        def __init__(self, x: int) -> None:
            self.x = x

    return Local


@logged
def wrapped_in_place(x: float) -> float:
    return x


class Scale:
    """A callable object that has a name, as jobs need it."""

    def __init__(self, by: float) -> None:
        self.by = by
        self.__name__ = self.__qualname__ = "scale"

    def __call__(self, x: float) -> float:
        return self.by * x


scale = Scale(2)


def told(value: Any, in_object: bool = False) -> Any:
    """Return what a value is, type by type: functions by what they compute."""
    if isinstance(value, dict):
        return {"dict": [(told(key), told(inner, in_object)) for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if in_object else type(value).__name__
        return {kind: [told(inner, in_object) for inner in value]}
    if isinstance(value, np.ndarray):
        return ["array", str(value.dtype), value.shape, str(value.tolist())]
    if isinstance(value, Grown):
        return ["Grown", value.seeds, value.rings]
    if isinstance(value, Sheet):
        return ["Sheet", value.cells]
    if isinstance(value, Cell):
        return ["Cell", told(value.edges, True), told(value._inner, True)]
    if isinstance(value, AddMaker):
        return ["AddMaker", told(value.numbers, True), told(value.function, True)]
    if isinstance(value, type) or hasattr(value, "original") or value is len:
        return ["by name", value.__module__, value.__qualname__]
    if callable(value):
        return ["gives", value(3), told(getattr(value, "__self__", None))]
    if isinstance(value, float):
        return ["float", str(float(value))]
    if isinstance(value, np.int64) or (in_object and isinstance(value, np.integer | IntEnum)):
        return ["int", str(int(value))]
    return [type(value).__name__, str(value)]


def tell(*args: Any, **kwargs: Any) -> Any:
    return told([list(args), kwargs])
