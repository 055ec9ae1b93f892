"""What ``doctor`` and ``fsck`` found: a symbol and a line for each check, or data."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from reconciler.actual.fsck.snapshot import Problem, Report
from reconciler.cli.context import Context
from reconciler.cli.streams import redraw_line
from reconciler.cli.views.words import many
from reconciler.doctor.check import Check, Group, Status

_SYMBOLS = {Status.OK: "✔", Status.WARNING: "⚠", Status.FAILED: "✗"}
_ASCII_SYMBOLS = {Status.OK: "+", Status.WARNING: "!", Status.FAILED: "x"}
_COLORS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "red"}

_PROBLEMS_SHOWN = 10
"""Problems of one fsck check that are shown without --verbose."""


def _symbol(context: Context, status: Status) -> str:
    """Return the symbol of a status, in ASCII if stdout cannot encode it."""
    try:
        "".join(_SYMBOLS.values()).encode(sys.stdout.encoding or "ascii")
        symbols = _SYMBOLS
    except (LookupError, UnicodeEncodeError):
        symbols = _ASCII_SYMBOLS
    return context.style(symbols[status], fg=_COLORS[status])


# doctor -----------------------------------------------------------------------------------------------------


class DoctorText:
    """Prints each group of checks on stdout when it is complete.

    While the next group runs, a terminal shows on stderr what doctor waits for.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._waiting = False

    def progress(self, line: str) -> None:
        """Show what doctor waits for, until the next output."""
        if sys.stderr.isatty() and not self.context.options.quiet:
            self.clear()
            click.echo(f"{line} ...", err=True, nl=False)
            self._waiting = True

    def clear(self) -> None:
        """Remove the line of :meth:`progress`."""
        if self._waiting:
            redraw_line()
            self._waiting = False

    def show(self, group: Group) -> None:
        """Print the checks of a group. Checks that were skipped for the same reason are one line."""
        self.clear()
        click.echo(self.context.style(group.title, bold=True))
        for check in group.checks:
            if check.status is not Status.SKIPPED:
                click.echo(f"  {_symbol(self.context, check.status)} {check.name}: {check.message}")
                if check.fix:
                    click.echo(f"      fix: {check.fix}")
        reasons = Counter(check.message for check in group.checks if check.status is Status.SKIPPED)
        for reason, number in reasons.items():
            if number > 1:
                click.echo(f"  {number} checks skipped: {reason}")
        click.echo()

    def summary(self, checks: Sequence[Check]) -> None:
        """Print how many checks have which status."""
        self.clear()
        count = Counter(check.status for check in checks)
        parts = [f"{count[Status.OK]} ok"]
        parts += [many(count[Status.WARNING], "warning")] * bool(count[Status.WARNING])
        parts += [f"{count[Status.FAILED]} failed"] * bool(count[Status.FAILED])
        parts += [f"{count[Status.SKIPPED]} skipped"] * bool(count[Status.SKIPPED])
        click.echo(", ".join(parts))


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


# fsck -------------------------------------------------------------------------------------------------------


def show_report(context: Context, found: Report, left: Report) -> None:
    """Print every check with its problems, and a summary.

    ``left`` is what remains after a repair; without ``--repair`` it is ``found`` itself.
    """
    remaining = {_identity(problem) for problem in left.problems}
    for check in found.checks:
        symbol = _symbol(context, Status.FAILED if check.problems else Status.OK)
        problems = many(len(check.problems), "problem") + " in " if check.problems else ""
        click.echo(f"{symbol} {check.name}: {problems}{check.looked_at} checked")
        shown = check.problems if context.options.verbose else check.problems[:_PROBLEMS_SHOWN]
        for problem in shown:
            repaired = "" if _identity(problem) in remaining else " (repaired)"
            click.echo(f"    {problem.subject}: {problem.message}{repaired}")
            if problem.fix:
                click.echo(f"      fix: {problem.fix}")
        if more := len(check.problems) - len(shown):
            click.echo(f"    and {more} more; -v shows all")
    summary = f"{many(len(found.checks), 'check')}, {many(len(found.problems), 'problem')}"
    repairable = sum(1 for problem in found.problems if problem.repairable)
    if found is not left and found.problems:
        summary += f"; {len(left.problems)} left after the repair"
    elif found is left and repairable:
        summary += f"; `reconcile fsck --repair` can repair {repairable}"
    click.echo(summary)


def _identity(problem: Problem) -> tuple[str, str]:
    """Return what tells problems apart: a repair makes new objects."""
    return problem.subject, problem.message


def fsck_data(found: Report, left: Report) -> dict[str, Any]:
    """Return all checks; the contract of ``fsck -o json``. For ``left`` see :func:`show_report`."""
    remaining = {_identity(problem) for problem in left.problems}
    return {
        "clean": not left.problems,
        "checks": [
            {
                "name": check.name,
                "looked_at": check.looked_at,
                "problems": [
                    {
                        "subject": problem.subject,
                        "message": problem.message,
                        "fix": problem.fix or None,
                        "repairable": problem.repairable,
                        "repaired": _identity(problem) not in remaining,
                    }
                    for problem in check.problems
                ],
            }
            for check in found.checks
        ],
    }
