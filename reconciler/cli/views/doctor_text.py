"""What doctor found, as text and as data."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

from reconciler.cli.context import Context
from reconciler.cli.views.words import many
from reconciler.doctor.check import Check, Group, Status

_SYMBOLS = {Status.OK: "✔", Status.WARNING: "⚠", Status.FAILED: "✗"}
_ASCII = {Status.OK: "+", Status.WARNING: "!", Status.FAILED: "x"}
COLORS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "red"}


class DoctorText:
    """Shows groups as they are ready: findings on stdout, on a terminal what is waited for on stderr."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.symbols = symbols()
        self._waiting = False

    def progress(self, line: str) -> None:
        """Say what is waited for, until something is shown."""
        if sys.stderr.isatty() and not self.context.options.quiet:
            self.clear()
            click.echo(f"{line} ...", err=True, nl=False)
            self._waiting = True

    def clear(self) -> None:
        """Remove the line of :meth:`progress`."""
        if self._waiting:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._waiting = False

    def show(self, group: Group) -> None:
        """Print the checks of a group; those that were skipped are counted, with what they had in common."""
        self.clear()
        click.echo(self.context.style(group.title, bold=True))
        for check in group.checks:
            if check.status is not Status.SKIPPED:
                self._show(check)
        why = Counter(check.message for check in group.checks if check.status is Status.SKIPPED)
        for message, number in why.items():
            if number > 1:
                click.echo(f"  {number} checks skipped: {message}")
        click.echo()

    def _show(self, check: Check) -> None:
        symbol = self.context.style(self.symbols[check.status], fg=COLORS[check.status])
        click.echo(f"  {symbol} {check.name}: {check.message}")
        if check.fix:
            click.echo(f"      fix: {check.fix}")

    def summary(self, checks: Sequence[Check]) -> None:
        """Print how many checks ended how."""
        self.clear()
        count = Counter(check.status for check in checks)
        parts = [f"{count[Status.OK]} ok"]
        parts += [many(count[Status.WARNING], "warning")] * bool(count[Status.WARNING])
        parts += [f"{count[Status.FAILED]} failed"] * bool(count[Status.FAILED])
        parts += [f"{count[Status.SKIPPED]} skipped"] * bool(count[Status.SKIPPED])
        click.echo(", ".join(parts))


def symbols() -> Mapping[Status, str]:
    """Return how each ending is shown on this terminal."""
    return _SYMBOLS if _can_encode("".join(_SYMBOLS.values())) else _ASCII


def _can_encode(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def doctor_data(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return all checks; the contract of ``doctor -o json``."""
    return [
        {
            "subject": check.subject,
            "name": check.name,
            "status": str(check.status),
            "message": check.message,
            "fix": check.fix or None,
        }
        for check in checks
    ]
