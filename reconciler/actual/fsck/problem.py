"""Checks of the store, their problems, and the edits that repair them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class Edit(msgspec.Struct, frozen=True):
    """An entry of a table to set, or to delete if ``value`` is None."""

    table: str
    key: bytes
    value: bytes | None = None


class Problem(msgspec.Struct, frozen=True):
    """One problem.

    ``subject`` is ``job/<flow>/<job>``, ``flow/<name>`` or ``<table>/<key>``. ``fix`` is what the user can
    do; empty if ``edits`` repair it.
    """

    subject: str
    message: str
    fix: str = ""
    edits: tuple[Edit, ...] = ()

    @property
    def repairable(self) -> bool:
        """Whether ``--repair`` repairs it, without losing anything that cannot be recreated."""
        return bool(self.edits)


class StoreCheck(msgspec.Struct, frozen=True):
    """One check: its name, the number of entries that were checked, and the problems."""

    name: str
    looked_at: int
    problems: list[Problem]


class Report(msgspec.Struct, frozen=True):
    """All checks, in their order."""

    checks: list[StoreCheck]

    @property
    def problems(self) -> list[Problem]:
        """All problems."""
        return [problem for check in self.checks for problem in check.problems]

    def edits(self) -> Iterator[Edit]:
        """Yield the edits that repair everything that can be repaired."""
        for problem in self.problems:
            yield from problem.edits


RESTORE = "restore a backup: `reconcile restore FILE`"


def shown(key: bytes) -> str:
    """Return a key as text on one line: names separated by slashes, other keys in hexadecimal."""
    text = key.replace(b"\0", b"/").decode(errors="replace")
    return text if text.isprintable() and "\ufffd" not in text else key.hex()
