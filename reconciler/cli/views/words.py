"""Small pieces of text that several views share."""

from __future__ import annotations

from collections.abc import Sequence


def many(number: int, what: str) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def some(names: Sequence[str], limit: int) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
