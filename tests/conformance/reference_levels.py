"""Who wins, once more: section 5 of the design, read off the plain YAML. Knows nothing of the product.

A manifest is the dict that its YAML gives; a job is what a selector sees of it and what it says itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Values = dict[str, Any]
Files = Mapping[str, list[dict[str, Any]]]
KEYS = ("worker", "exec_config", "resources", "priority", "retries")


@dataclass(frozen=True)
class ReferenceJob:
    """A job. ``functions`` are the paths its callable is known by; ``generator`` made it, if any job did."""

    flow: str
    name: str
    functions: tuple[str, ...]
    own: Mapping[str, Any]
    generator: ReferenceJob | None = None
    inherits: bool = True


def effective(files: Files, job: ReferenceJob) -> Values:
    """The five values of a job; None where no level gives one, but priority 0."""
    found = chosen(files, job)
    default = given(named(files, "Worker", found["worker"])["spec"])
    if "resources" in default:
        found = {"resources": default["resources"]} | found
    return dict.fromkeys(KEYS) | {"priority": 0} | found


def chosen(files: Files, job: ReferenceJob) -> Values:
    """What the levels above the worker's default give: key by key, the strongest first."""
    generator = chosen(files, job.generator) if job.generator is not None and job.inherits else {}
    flow = given(named(files, "Flow", job.flow)["spec"])
    project = next(one for documents in files.values() for one in documents if one["kind"] == "Project")
    found: Values = {}
    for level in [*rules(files, job), given(job.own), generator, flow, given(project["spec"]["defaults"])]:
        found = level | found
    return found


def rules(files: Files, job: ReferenceJob) -> Iterator[Values]:
    """The rules that match, strongest first: highest order, then last file, then last in its file."""
    found = [(one["spec"].get("order", 100), file, position, one["spec"])
             for file, documents in files.items()
             for position, one in enumerate(documents) if one["kind"] == "OverrideRule"]  # fmt: skip
    labels = named(files, "Flow", job.flow)["metadata"].get("labels", {})
    for *_, rule in sorted(found, key=lambda entry: entry[:3], reverse=True):
        if (
            any(fnmatchcase(job.flow, glob) for glob in rule.get("flows") or ["*"])
            and rule.get("labels", {}).items() <= labels.items()
            and rule.get("name_filter", "") in job.name
            and fnmatchcase(job.name, rule.get("name_glob", "*"))
            and rule.get("function_filter", job.functions[0]) in job.functions
            and (rule.get("dynamic", True) or job.generator is None)
        ):
            yield given(rule["set"])


def given(spec: Mapping[str, Any]) -> Values:
    """What one level gives: presence decides. The two forms of resources are one key."""
    values = {key: spec[key] for key in KEYS if key in spec}
    return values | ({"resources": {"qresources": spec["qresources"]}} if "qresources" in spec else {})


def named(files: Files, kind: str, name: str) -> dict[str, Any]:
    """The manifest with an identity."""
    return next(one for documents in files.values() for one in documents
                if (one["kind"], one["metadata"]["name"]) == (kind, name))  # fmt: skip
