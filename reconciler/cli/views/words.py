"""Small pieces of text that several views share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.actual.contents import Contents


def many(number: int, what: str) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def some(names: Sequence[str], limit: int) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def contents_text(contents: Contents) -> str:
    """Return what a store holds: ``3 flows, 12 jobs, main@9a07e55``."""
    parts = [many(contents.flows, "flow"), many(contents.jobs, "job")]
    return ", ".join([*parts, contents.revision or "nothing applied yet"])
