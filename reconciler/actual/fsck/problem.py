"""What a check of the store is, what it found, and which edits would put that right."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class Edit(msgspec.Struct, frozen=True):
    """One entry to set, or to remove if ``value`` is None."""

    table: str
    key: bytes
    value: bytes | None = None


class Problem(msgspec.Struct, frozen=True):
    """One breach of an invariant.

    ``subject`` is ``job/<flow>/<job>``, ``flow/<name>`` or ``<table>/<key>``. ``fix`` is what a person can
    do; empty where ``edits`` put it right.
    """

    subject: str
    message: str
    fix: str = ""
    edits: tuple[Edit, ...] = ()

    @property
    def repairable(self) -> bool:
        """Whether a repair puts it right without losing anything that cannot be made again."""
        return bool(self.edits)


class StoreCheck(msgspec.Struct, frozen=True):
    """One invariant: its name, how many entries were looked at, and those that break it."""

    name: str
    looked_at: int
    problems: list[Problem]


class Report(msgspec.Struct, frozen=True):
    """All checks, in their order."""

    checks: list[StoreCheck]

    @property
    def problems(self) -> list[Problem]:
        """All breaches."""
        return [problem for check in self.checks for problem in check.problems]

    def edits(self) -> Iterator[Edit]:
        """Yield what puts right all that can be."""
        for problem in self.problems:
            yield from problem.edits


RESTORE = "put a backup back: `reconcile restore FILE`"


def shown(key: bytes) -> str:
    """Return a key as text that fits in a line: names with a slash between them; numbers as hexadecimal."""
    text = key.replace(b"\0", b"/").decode(errors="replace")
    return text if text.isprintable() and "\ufffd" not in text else key.hex()
