"""Settings: one value of a run config with the place it came from."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Level(StrEnum):
    """The levels of a run config, strongest first."""

    RULE = "rule"
    JOB = "job"
    GENERATOR = "generator"
    FLOW = "flow"
    PROJECT = "project"
    WORKER = "worker"


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which value of which manifest set something: its level, identity and JSON pointer.

    File and line are looked up when shown, so that an origin stays right when a file moves.
    """

    level: Level
    kind: str
    name: str
    pointer: str


class Resources(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A scheduler request: the scheduler's own keywords, or (``generic``) fields of qtoolkit's QResources."""

    values: dict[str, Any]
    generic: bool = False


class Setting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One value of a run config and its origin."""

    value: str | int | dict[str, Any] | Resources
    origin: Origin

    @property
    def shown(self) -> Any:
        """The value as plain data; generic resources say so."""
        if isinstance(self.value, Resources):
            return {"qresources": self.value.values} if self.value.generic else self.value.values
        return self.value


Layer = dict[str, Setting]
"""The settings of one level: one for each field that is present, and only for those."""
