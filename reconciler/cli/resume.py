"""``reconcile resume``: let paused jobs start."""

from __future__ import annotations

from reconciler.cli.job_verbs import job_verb

command = job_verb(
    "resume",
    "Let paused jobs start.",
    "Takes PAUSED, unless the flow is suspended by spec.suspend.",
)
