"""What a job refers to, in the words of its manifest, for the error of a reference that leads nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from reconciler import __version__
from reconciler.actual.view import View
from reconciler.desired.schemas import reader_version
from reconciler.desired.values import iter_directives, parse_output_reference
from reconciler.jobs.job_json import JobResult, UnresolvedReference
from reconciler.model.manifests import Document, Kind, Manifest
from reconciler.model.records import JobRecord


def with_reference(view: View, job: JobRecord, result: JobResult) -> JobResult:
    """Return a result whose error names the reference that leads nowhere, if that is why the job failed.

    The last line of the error becomes, for example: ``$output: a.foo.bar (flows/t.yaml:36): the output of
    t7/a is an int and has no 'foo'``.
    """
    error = result.error
    if error is None or error.reference is None:
        return result
    reference = error.reference
    generations = view.generations(reference.uuid)
    target = generations[-1] if generations else None
    name = reference.uuid if target is None else target.key if target.flow == job.flow else target.path
    steps = [f".{step}" if kind == "a" else f"[{step!r}]" for kind, step in reference.attributes]
    place = _place(view, job, target, reference)
    before, missing = "".join(steps[: reference.missing]), reference.attributes[reference.missing][1]
    owner = f"the output of {target.path if target is not None else name}"
    article = "an" if reference.found[:1] in "aeiou" else "a"
    inner = before.removeprefix(".")
    found = "None" if reference.found == "NoneType" else f"{article} {reference.found}"
    line = (
        f"$output: {name}{''.join(steps)}{f' ({place})' if place else ''}: "
        f"{f'{inner} in ' if inner else ''}{owner} is {found} and has no {missing!r}"
    )
    error = msgspec.structs.replace(error, traceback=f"{error.traceback}\n{line}")
    return msgspec.structs.replace(result, error=error)


def _place(view: View, job: JobRecord, target: JobRecord | None, reference: UnresolvedReference) -> str:
    """Return file and line of the reference; only the file if code of a factory or maker has made it."""
    good = view.good_manifests().get(f"{Kind.FLOW}/{job.flow}")
    if good is None:
        return ""
    parsed = view.parsed(f"{good.parsed}:{__version__}:{reader_version()}")
    document = parsed.documents[good.position] if parsed and good.position < len(parsed.documents) else None
    if document is None or target is None:
        return good.file
    for pointer, value in _references(document, job.key.partition("@")[0].partition("/")[0]):
        try:
            flow, name, attributes = parse_output_reference(value)
        except ValueError:
            continue
        wanted = [(kind, step) for kind, step in reference.attributes]
        if (flow or job.flow, name) == (target.flow, target.key) and [*map(tuple, attributes)] == wanted:
            location = Manifest(good.file, document).location(pointer)
            return f"{good.file}:{location.line}" if location is not None else good.file
    return good.file


def _references(document: Document, key: str) -> Iterator[tuple[str, Any]]:
    """Yield (pointer, value) of each ``$output`` among the arguments of an entry of ``jobs``."""
    spec: Any = document.content.get("spec")
    jobs = spec.get("jobs") if isinstance(spec, dict) else None
    for number, job in enumerate(jobs if isinstance(jobs, list) else []):
        if isinstance(job, dict) and job.get("id") == key:
            for name in ("args", "kwargs", "maker"):
                for pointer, kind, value in iter_directives(job.get(name), f"/spec/jobs/{number}/{name}"):
                    if kind == "$output":
                        yield f"{pointer}/$output", value
