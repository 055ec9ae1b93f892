"""The jobs that a manifest shows by itself, so that a plan can foresee them without running any code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.desired.values import iter_directives, parse_output_reference
from reconciler.model.desired import PreviewJob
from reconciler.model.flows import digest
from reconciler.model.manifests import JOB_BY_ID, FlowSpec, Kind
from reconciler.model.run_config import layer_of
from reconciler.model.settings import Level, Origin

_CONTENT = ("function", "args", "kwargs", "config")
"""The keys of a job that decide what it computes."""


def preview_jobs(
    flow: str, spec: FlowSpec, blobs: Mapping[str, str], code: Sequence[str]
) -> list[PreviewJob]:
    """Return the jobs of the ``jobs:`` form; other forms are known only to their code.

    ``blobs`` maps the repository's files that the flow names to their blob ids; ``code`` are the trees
    that count as content.
    """
    return [_preview(flow, job, blobs, code) for job in spec.jobs or []]


def _preview(flow: str, job: Mapping[str, Any], blobs: Mapping[str, str], code: Sequence[str]) -> PreviewJob:
    origin = Origin(Level.JOB, Kind.FLOW, flow, "")
    return PreviewJob(
        key=job["id"],
        name=job.get("name", job["id"]),
        function=job["function"],
        own=layer_of(job, origin, f"{JOB_BY_ID}{job['id']}"),
        digest=digest([{key: _named(job.get(key), blobs) for key in _CONTENT}, list(code)]),
        needs=_needs(flow, job),
    )


def _named(value: Any, blobs: Mapping[str, str]) -> Any:
    """A file counts by its content, not by its name."""
    if isinstance(value, dict):
        if "$path" in value:
            return {"$blob": blobs.get(value["$path"])}
        return {key: _named(inner, blobs) for key, inner in value.items()}
    if isinstance(value, list):
        return [_named(inner, blobs) for inner in value]
    return value


def _needs(flow: str, job: Mapping[str, Any]) -> list[str]:
    """Return ``flow/job`` of every job whose output this one takes."""
    found = set()
    for _, directive, value in iter_directives({"args": job.get("args"), "kwargs": job.get("kwargs")}):
        if directive == "$output":
            other, name, _ = parse_output_reference(value)
            found.add(f"{other or flow}/{name}")
    return sorted(found)
