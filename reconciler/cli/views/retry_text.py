"""Automatic retries for people: how many were made, of what attempts died, and when the next one comes."""

from __future__ import annotations

from typing import Any

from reconciler.cli.views.worker_text import coming_text


def coming_retry(row: dict[str, Any], now: float) -> str | None:
    """Return ``retry 2 of 3 in 40 s`` for a job, as ``job_data`` gives it, that waits for it; else None."""
    if row["retry_at"] is None:
        return None
    return f"retry {_count(row)} {coming_text(row['retry_at'], now)}"


def retry_line(row: dict[str, Any], now: float) -> str | None:
    """Return ``2 of 3 in 40 s, after walltime, oom``, or that they are made; None if there are none."""
    if not row["retried"]:
        return None
    when = "made" if row["retry_at"] is None else coming_text(row["retry_at"], now)
    return f"{_count(row)} {when}, after {', '.join(row['retried'])}"


def _count(row: dict[str, Any]) -> str:
    """The policy may have been changed since."""
    policy = row["retries"]
    limit = policy.get("limit", 0) if isinstance(policy, dict) else 0
    return f"{len(row['retried'])} of {limit}"


def escalation_text(found: dict[str, Any]) -> str:
    """Return ``time *2, 2 times, after walltime, walltime``."""
    factors = ", ".join(f"{key} {factor}" for key, factor in found["factors"].items())
    times = len(found["after"])
    often = f", {times} times" if times > 1 else ""
    return f"{factors}{often}, after {', '.join(found['after'])}"
