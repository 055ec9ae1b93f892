"""What fsck found, as text and as data."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import click

from reconciler.actual.fsck.problem import Problem, Report, StoreCheck
from reconciler.cli.context import Context
from reconciler.cli.views.doctor_text import COLORS, symbols
from reconciler.cli.views.words import many
from reconciler.doctor.check import Status

_SHOWN = 10
"""Problems of one check that are shown without --verbose."""


def show_report(context: Context, found: Report, left: Report) -> None:
    """Print every check, with its problems below it; ``left`` is what there is after a repair."""
    remaining = _remaining(left)
    for check in found.checks:
        _show(context, check, remaining)
    click.echo(_summary(found, left))


def _show(context: Context, check: StoreCheck, remaining: Collection[tuple[str, str]]) -> None:
    status = Status.FAILED if check.problems else Status.OK
    symbol = context.style(symbols()[status], fg=COLORS[status])
    found = many(len(check.problems), "problem") + " in " if check.problems else ""
    click.echo(f"{symbol} {check.name}: {found}{check.looked_at} looked at")
    shown = check.problems if context.options.verbose else check.problems[:_SHOWN]
    for problem in shown:
        repaired = "" if _name(problem) in remaining else " (repaired)"
        click.echo(f"    {problem.subject}: {problem.message}{repaired}")
        if problem.fix:
            click.echo(f"      fix: {problem.fix}")
    if more := len(check.problems) - len(shown):
        click.echo(f"    and {more} more: -v shows all")


def _summary(found: Report, left: Report) -> str:
    text = f"{many(len(found.checks), 'check')}, {many(len(found.problems), 'problem')}"
    if found is not left:
        return f"{text}; {len(left.problems)} left after the repair" if found.problems else text
    repairable = sum(1 for problem in found.problems if problem.repairable)
    return f"{text}; `reconcile fsck --repair` puts {repairable} of them right" if repairable else text


def _remaining(left: Report) -> set[tuple[str, str]]:
    return {_name(problem) for problem in left.problems}


def _name(problem: Problem) -> tuple[str, str]:
    return problem.subject, problem.message


def fsck_data(found: Report, left: Report) -> dict[str, Any]:
    """Return everything; the contract of ``fsck -o json``."""
    remaining = _remaining(left)
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
                        "repaired": _name(problem) not in remaining,
                    }
                    for problem in check.problems
                ],
            }
            for check in found.checks
        ],
    }
