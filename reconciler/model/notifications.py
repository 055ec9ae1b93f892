"""Notifications: what a rule of the Project selects, and the message that it makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from reconciler.model.connections import Secret
from reconciler.model.retries import seconds_of

FLOW_REASONS = (
    *("JobsFailed", "JobsStuck", "DependencyNotReady", "OutOfSync", "NotSubmitted"),
    *("Completed", "Suspended", "JobsPaused", "JobsCancelled"),
)
JOB_REASONS = ("JobFailed", "JobStuck", "JobCompleted")
WORKER_REASONS = ("Unreachable", "Reachable")
SOURCE_REASONS = ("RevisionRefused", "RevisionFailed", "RevisionInvalid", "RevisionApplied")
DEFAULT_REASONS = (*FLOW_REASONS[:5], "Unreachable", *SOURCE_REASONS[:3])
"""Everything that waits for a person, told once for each flow and not for each of its jobs."""

_LISTED = 50
"""Notices that the text of a message lists; the others are counted."""

_SENT = 1000
"""Notices that the JSON of a message has; the others are counted."""

_LONGEST_TEXT = 500


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP endpoint. With ``secret``, requests carry the HMAC-SHA256 of their body."""

    url: str
    secret: Secret | None = None


class NotifyRule(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``spec.notify``: which notices go to which target.

    Exactly one of ``command``, ``webhook``, ``mail`` (addresses) and ``apprise`` (a configuration file) is
    given. ``digest`` is the shortest time between two messages.
    """

    name: str
    reasons: tuple[str, ...] = DEFAULT_REASONS
    flows: list[str] = []
    labels: dict[str, str] = {}
    digest: str = "1m"
    command: list[str] | None = None
    webhook: Webhook | None = None
    mail: list[str] | None = None
    apprise: str | None = None

    @property
    def interval(self) -> float:
        """The shortest time between two messages, in seconds."""
        return seconds_of(self.digest)

    def selects(self, notice: Notice) -> bool:
        """Return whether a notice belongs to this rule.

        ``flows`` and ``labels`` restrict notices about flows and their jobs. A rule that has them tells
        nothing about workers and the source.
        """
        if notice.reason not in self.reasons:
            return False
        if notice.flow is None:
            return not (self.flows or self.labels)
        named = not self.flows or any(fnmatchcase(notice.flow, pattern) for pattern in self.flows)
        return named and self.labels.items() <= notice.labels.items()


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to tell. ``object`` is ``flow/NAME``, ``job/KEY``, ``worker/NAME`` or ``source``.

    ``flow`` is the flow that it is about, if any; ``fix`` is what you can do.
    """

    object: str
    reason: str
    message: str
    fix: str = ""
    revision: str = ""
    flow: str | None = None
    labels: dict[str, str] = {}

    @property
    def identity(self) -> str:
        """What is told once: object and reason, and for the source the revision."""
        return f"{self.object} {self.reason}" + (f" {self.revision}" if self.object == "source" else "")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Notices for one target: a subject and a text for people, JSON for programs."""

    subject: str
    text: str
    data: dict[str, Any]


def message_of(project: str, rule: str, notices: Sequence[Notice]) -> Message:
    """Return the message that tells some notices, at least one."""
    lines = []
    for notice in notices[:_LISTED]:
        lines.append(f"{cut(notice.object)}: {notice.reason}: {cut(notice.message)}")
        if notice.fix:
            lines.append(f"    {cut(notice.fix)}")
    if len(notices) > _LISTED:
        lines.append(
            f"... and {len(notices) - _LISTED} more: `reconcile get flows`, `reconcile get failures`"
        )
    if len(notices) == 1:
        what = f"{cut(notices[0].object)}: {notices[0].reason}"
    else:
        counts = Counter(notice.reason for notice in notices)
        what = ", ".join(f"{number} {reason}" for reason, number in counts.items())
    return Message(
        subject=f"[{project}] {what}",
        text="\n".join(lines) + "\n",
        data={
            "schema_version": 1,
            "project": project,
            "rule": rule,
            "subject": f"[{project}] {what}",
            "notices": [_data(notice) for notice in notices[:_SENT]],
            "left_out": max(0, len(notices) - _SENT),
        },
    )


def _data(notice: Notice) -> dict[str, Any]:
    return {
        "object": notice.object,
        "reason": notice.reason,
        "message": cut(notice.message),
        "fix": cut(notice.fix),
        "revision": notice.revision,
        "labels": notice.labels,
    }


def cut(text: str) -> str:
    """Return a text as one line without control characters, at most 500 characters long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 3] + "..."


class NotifyState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How far a rule is: everything up to the event number ``cursor`` was told.

    ``told`` are the identities of notices that were told while ``revision`` was in force. ``sent`` is when
    the last message went out, ``error`` why the last try failed, and ``failures`` how many failed in a row.
    """

    cursor: int
    revision: str = ""
    told: list[str] = []
    sent: float = 0.0
    tried: float = 0.0
    failures: int = 0
    error: str = ""
