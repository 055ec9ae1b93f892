"""FlowSets: a campaign in one document. Its typed spec, its items, and conditions on the values of items.

An item is one row of the set's table: its values by column, and the key that identifies it whatever its
place in the table.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from reconciler.model.manifests import Prune
from reconciler.model.types_ready import make_ready


class OnRemoved(StrEnum):
    """What to do with the flow of an item that was removed from its set."""

    KEEP = "keep"
    CANCEL = "cancel"
    DELETE = "delete"

    @property
    def prune(self) -> Prune:
        """The same for the record of a flow."""
        return {"keep": Prune.ORPHAN, "cancel": Prune.CANCEL, "delete": Prune.DELETE}[self.value]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that freeze a set: more items than ``max_items``, or too many that are gone.

    ``max_removed`` is a number of flows, or a share of the set's flows such as ``5%``.
    """

    max_items: int = 20_000
    max_removed: int | str = "30%"

    def allows_removal(self, removed: int, live: int) -> bool:
        """Return whether that many of the set's live flows may be removed at once. One always may."""
        if removed <= 1:
            return True
        if isinstance(self.max_removed, int):
            return removed <= self.max_removed
        return removed <= float(self.max_removed.removesuffix("%")) / 100 * live


class ItemsSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where the items of a set come from; see ``flowset.schema.json``."""

    sources: list[dict[str, Any]] = msgspec.field(name="from", default_factory=list)
    join: dict[str, Any] | None = None
    matrix: dict[str, list[Any]] = {}
    include: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    schema: str | dict[str, Any] | None = None


class FlowSetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """``kind: FlowSet``. ``template`` is the spec of a Flow with ``{$item: column}`` and ``"{column}"``."""

    items: ItemsSpec
    key: str
    template: dict[str, Any]
    overrides: list[dict[str, Any]] = []
    limits: Limits = Limits()
    on_removed: OnRemoved | None = None
    suspend: bool = False


# conditions on values -------------------------------------------------------------------------------------

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, ">": operator.gt, "<": operator.lt,
    "=": operator.eq,
}  # fmt: skip
_OPERATOR = re.compile(r"(>=|<=|!=|>|<|=)\s*(.*)", re.DOTALL)
_CONDITION = re.compile(r"([^<>=!]+?)\s*(>=|<=|!=|>|<|=)\s*(.*)", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None}


class ItemCondition(msgspec.Struct, frozen=True):
    """A comparison of one column: ``natoms>60``. ``=`` and ``!=`` take globs for text."""

    column: str
    operator: str
    text: str

    def holds(self, item: Mapping[str, Any]) -> bool:
        """Return whether an item fulfills the condition; an item without the column never does."""
        if self.column not in item:
            return False
        value = item[self.column]
        if isinstance(value, str):
            if self.operator in ("=", "!="):
                return fnmatch.fnmatchcase(value, self.text) is (self.operator == "=")
            return _COMPARE[self.operator](value, self.text)
        wanted: Any = _WORDS.get(self.text, self.text)
        if isinstance(value, int | float) and not isinstance(value, bool) and isinstance(wanted, str):
            try:
                wanted = float(wanted)
            except ValueError:
                return self.operator == "!="
            return _COMPARE[self.operator](value, wanted)
        if self.operator in ("=", "!="):
            return (type(value) is type(wanted) and value == wanted) is (self.operator == "=")
        return False


def read_condition(text: str) -> ItemCondition:
    """Parse ``natoms>60``, ``family=halide``, ``formula=La*``. Raises ValueError with a sentence."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ValueError(f"'{text}' is not a condition: write a column, one of >= <= != > < =, and a value")
    return ItemCondition(*found.groups())


def matches(item: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether an item has the wanted values; see :func:`value_matches`."""
    return all(column in item and value_matches(item[column], value) for column, value in wanted.items())


def value_matches(value: Any, wanted: Any) -> bool:
    """Return whether a value is as wanted: equal, one of a list, or for text a comparison or glob: ``">60"``.

    A number equals a number of the other type; ``true`` is not 1.
    """
    if isinstance(wanted, list):
        return any(value_matches(value, one) for one in wanted)
    if isinstance(wanted, str):
        comparison = _OPERATOR.fullmatch(wanted)
        if comparison is not None:
            return ItemCondition("", *comparison.groups()).holds({"": value})
        return isinstance(value, str) and fnmatch.fnmatchcase(value, wanted)
    same_kind = isinstance(value, bool) is isinstance(wanted, bool)
    return same_kind and bool(value == wanted)


make_ready(FlowSetSpec)
