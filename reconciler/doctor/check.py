"""Checks and their findings."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from reconciler.files import space_text

LEAST_SPACE = 2**30
"""Bytes; less free space than this gives a warning."""


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True):
    """What a check found, in one line, and what to do about it; ``fix`` is empty if nothing is wrong.

    ``by_user`` marks a mistake in a document or an option, not a problem of a machine.
    """

    status: Status
    message: str
    fix: str = ""
    by_user: bool = False


class Check(msgspec.Struct, frozen=True):
    """A named finding. ``subject`` is ``machine``, ``repository`` or ``worker/NAME``."""

    name: str
    subject: str
    status: Status
    message: str
    fix: str = ""
    by_user: bool = False


class Group(msgspec.Struct, frozen=True):
    """All checks of one subject; ``title`` is for people."""

    title: str
    checks: list[Check]


def ok(message: str) -> Finding:
    """Return the finding that everything is right."""
    return Finding(Status.OK, message)


def warning(message: str, fix: str) -> Finding:
    """Return the finding that something may cause trouble, but jobs can run."""
    return Finding(Status.WARNING, message, fix)


def failed(message: str, fix: str, *, by_user: bool = False) -> Finding:
    """Return the finding that jobs cannot run."""
    return Finding(Status.FAILED, message, fix, by_user)


def skipped(message: str) -> Finding:
    """Return that the check was not made, and why."""
    return Finding(Status.SKIPPED, message)


def named(name: str, subject: str, finding: Finding) -> Check:
    """Return a finding as a check, with its message on one line."""
    message = "; ".join(line.strip() for line in finding.message.splitlines() if line.strip())
    return Check(name, subject, finding.status, message, finding.fix, finding.by_user)


def space_finding(free: int, place: str, fix: str) -> Finding:
    """Return the finding for ``free`` bytes."""
    text = f"{space_text(free)} in {place}"
    return ok(text) if free >= LEAST_SPACE else warning(f"only {text}", fix)


def first_line(text: str) -> str:
    """Return the first line with content, without what bash puts before it: ``bash: line 7: ``."""
    lines = (line.strip() for line in text.splitlines())
    return re.sub(r"^\S+: line \d+: ", "", next((line for line in lines if line), ""))
