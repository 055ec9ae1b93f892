"""Content hashes and stable uuids of the jobs of a flow.

jobflow gives every job a random uuid. Here the uuid of a job is derived from what it computes: the sha256 of
the canonical JSON of its function, its arguments (a reference counts as the content of the job it refers
to plus the attribute path) and the parts of its JobConfig that change the result. So building twice gives
the same uuids, and an edit changes only the uuids of the jobs it affects and of their descendants.
"""

from __future__ import annotations

import uuid as uuidlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from jobflow import Flow, Job
from jobflow.core.flow import get_flow

from reconciler.execution.launcher import FILE_MARKER, job_json
from reconciler.jobs.job_json import JOB_FIELDS
from reconciler.model.flows import digest, job_uuid

RESULT_CONFIG = ("resolve_references", "on_missing_references", "expose_store")
"""The keys of JobConfig that change what a job returns."""

Files = Mapping[str, tuple[str, ...]]
"""{path of the copy of a repository file: (blob id, file name), and ``x`` if it is executable}"""


class IdentifiedJob:
    """A job with its content hash and final uuid; ``payload`` is its JSON with all uuids replaced."""

    def __init__(self, job: Job, parents: list[str]) -> None:
        self.job = job
        self.parents = parents
        self.raw = job_json(job)
        self.content = ""
        self.uuid = ""
        self.payload: dict[str, Any] = {}
        self.files: list[tuple[str, ...]] = []


def identify(
    made: Flow | Job | list[Job],
    identity: str,
    externals: Mapping[str, str],
    files: Files,
    code: list[str],
) -> list[IdentifiedJob]:
    """Return the jobs of a flow in its own order, with stable identities.

    ``identity`` is the uuid of the flow, ``externals`` maps the uuids of jobs of other flows to their
    content, ``code`` are tree ids that count as content (``on_code_change: recompute``).

    Raises
    ------
    ValueError
        The jobs form a cycle, or refer to a job that is not in any flow.
    """
    flow = get_flow(made, allow_external_references=True)
    only = flow.jobs[0] if len(flow.jobs) == 1 else None
    alone = isinstance(only, Job) and only.uuid not in only.input_uuids  # spares the graph
    in_order = [(only, [])] if alone else flow.iterflow()
    ordered = [IdentifiedJob(job, list(parents)) for job, parents in in_order]
    contents = dict(externals)
    for item in ordered:
        for reference in item.job.input_uuids:
            if reference not in contents:
                raise ValueError(
                    f"job '{item.job.name}' refers to a job ({reference}) that is not in any flow"
                )
            if reference not in item.parents:
                item.parents.append(reference)
        item.content = _content(item.raw, contents, files, code)
        contents[item.job.uuid] = item.content
    position = {uuid: number for number, uuid in enumerate(flow.job_uuids)}
    ordered.sort(key=lambda item: position[item.job.uuid])
    names = _flow_uuids(flow, identity)
    used: Counter[str] = Counter()
    for item in ordered:
        item.uuid = job_uuid(identity, item.content, used[item.content])
        used[item.content] += 1
        names[item.job.uuid] = item.uuid
    for item in ordered:
        named_files: set[tuple[str, ...]] = set()
        item.payload = renamed(item.raw, names, files, named_files)
        item.parents = sorted(names.get(parent, parent) for parent in item.parents)
        item.files = sorted(named_files)
    return ordered


def _content(raw: dict[str, Any], contents: Mapping[str, str], files: Files, code: list[str]) -> str:
    config = raw.get("config") or {}
    facts = {
        "function": raw["function"],
        "args": raw["function_args"],
        "kwargs": raw["function_kwargs"],
        "schema": raw.get("output_schema"),
        "config": {key: config.get(key) for key in RESULT_CONFIG},
        "stores": {key: raw[key] for key in raw if key not in JOB_FIELDS and not key.startswith("@")},
        "code": code,
    }
    return digest(_canonical(facts, contents, files))


def _canonical(value: Any, contents: Mapping[str, str], files: Files) -> Any:
    if isinstance(value, dict):
        if value.get("@class") == "OutputReference" and value.get("uuid") in contents:
            return {"$content": contents[value["uuid"]], "attributes": value.get("attributes", [])}
        return {
            str(key): _canonical(inner, contents, files) for key, inner in value.items() if key != "@version"
        }
    if isinstance(value, list):
        return [_canonical(inner, contents, files) for inner in value]
    if isinstance(value, str) and value in files:
        return {"$blob": files[value][0]}
    if isinstance(value, float) and value != value:
        return {"$float": "nan"}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return {"$float": str(value)}
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return {"$int": str(value)}
    return value


def _flow_uuids(flow: Flow, identity: str, path: str = "") -> dict[str, str]:
    """Return the new uuids of the flow and of the flows in it, which are derived from their place."""
    names = {flow.uuid: identity if not path else str(uuidlib.uuid5(uuidlib.UUID(identity), path))}
    for number, inner in enumerate(flow.jobs):
        if isinstance(inner, Flow):
            names |= _flow_uuids(inner, identity, f"{path}/{number}")
    return names


def renamed(value: Any, names: Mapping[str, str], files: Files, used: set[tuple[str, ...]]) -> Any:
    """Return JSON data with final uuids, and markers for the files of the repository; note those as used."""
    if isinstance(value, dict):
        return {key: renamed(inner, names, files, used) for key, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner, names, files, used) for inner in value]
    if isinstance(value, str):
        if value in files:
            used.add(files[value])
            return f"{FILE_MARKER}{files[value][0]}/{files[value][1]}"
        return names.get(value, value)
    return value
