"""What no schema can say of a flow: ids are unique, references lead somewhere and never in a circle."""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from reconciler.desired.values import check_arguments, iter_directives, parse_output_reference
from reconciler.desired.yaml.places import related
from reconciler.diagnostics import Diagnostic, did_you_mean
from reconciler.model.manifests import Manifest

_MAX_CYCLES = 10


class _Reference(NamedTuple):
    """``user`` (None for a maker or factory) takes the output of ``job``; written at ``pointer``."""

    user: str | None
    job: str
    pointer: str


def check_flow(manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield what is wrong with a flow beyond its schema. Takes documents that break the schema too."""
    spec = manifest.spec
    if not isinstance(spec, Mapping):
        return
    ids = dict(_first_ids(spec))
    yield from _duplicate_ids(manifest, spec, ids)
    for pointer, holder in _holders(spec):
        yield from check_arguments(manifest, holder, pointer)
    references = list(_references(manifest, spec))
    yield from _unknown_jobs(manifest, ids, references)
    yield from _cycles(manifest, references)


def _jobs(spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (pointer, job) of the jobs that are mappings."""
    jobs = spec.get("jobs")
    for index, job in enumerate(jobs if isinstance(jobs, list) else []):
        if isinstance(job, Mapping):
            yield f"/spec/jobs/{index}", job


def _holders(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (pointer, mapping) of everything in a flow that may have args and kwargs."""
    yield from _jobs(spec)
    for name in ("maker", "factory"):
        holder = spec.get(name)
        if isinstance(holder, Mapping):
            yield f"/spec/{name}", holder
            if name == "maker":
                yield "/spec/maker/make", holder.get("make")


def _first_ids(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (id, pointer of the first job that has it), the last job first so that a dict keeps the first."""
    for pointer, job in reversed(list(_jobs(spec))):
        if isinstance(job.get("id"), str):
            yield job["id"], f"{pointer}/id"


def _duplicate_ids(
    manifest: Manifest, spec: Mapping[str, Any], ids: Mapping[str, str]
) -> Iterator[Diagnostic]:
    for pointer, job in _jobs(spec):
        name = job.get("id")
        if isinstance(name, str) and ids[name] != f"{pointer}/id":
            yield manifest.diagnostic(
                "flow/duplicate-job-id",
                f"two jobs of this flow have the id '{name}'",
                f"{pointer}/id",
                hint="give each job an id of its own; jobs may share a 'name'",
                related=(related(manifest, ids[name], f"'{name}' is given here before"),),
            )


def _references(manifest: Manifest, spec: Mapping[str, Any]) -> Iterator[_Reference]:
    """Yield the readable references to jobs of the same flow."""
    for pointer, holder in _holders(spec):
        user = holder.get("id") if isinstance(holder, Mapping) and pointer.startswith("/spec/jobs/") else None
        for name in ("args", "kwargs"):
            arguments = holder.get(name) if isinstance(holder, Mapping) else None
            for at, directive, value in iter_directives(arguments, f"{pointer}/{name}"):
                job = _local_job(manifest, value) if directive == "$output" else None
                if job is not None:
                    yield _Reference(user if isinstance(user, str) else None, job, f"{at}/$output")


def _local_job(manifest: Manifest, text: Any) -> str | None:
    if not isinstance(text, str):
        return None
    try:
        flow, job, _ = parse_output_reference(text)
    except ValueError:
        return None  # check_arguments reports it
    return job if flow in (None, manifest.name) else None


def _unknown_jobs(
    manifest: Manifest, ids: Mapping[str, str], references: list[_Reference]
) -> Iterator[Diagnostic]:
    for reference in references:
        if reference.job not in ids:
            hint = did_you_mean(reference.job, ids)
            message = f"this flow has no job with the id '{reference.job}'"
            if not ids:
                message = f"'{reference.job}' is no job: this flow does not list jobs with ids"
                hint = "a job of another flow is written 'flow/job'"
            yield manifest.diagnostic("flow/unknown-job", message, reference.pointer, hint=hint)


def _cycles(manifest: Manifest, references: list[_Reference]) -> Iterator[Diagnostic]:
    """Yield one diagnostic a cycle; each found one is cut open to find the next."""
    needs: dict[str, dict[str, str]] = {}
    for reference in references:
        if reference.user is not None:
            needs.setdefault(reference.user, {}).setdefault(reference.job, reference.pointer)
    for _ in range(_MAX_CYCLES):
        chain = _find_cycle(needs)
        if chain is None:
            return
        yield _cycle(manifest, chain, needs)
        del needs[chain[0]][chain[1]]


def _find_cycle(needs: Mapping[str, Mapping[str, str]]) -> list[str] | None:
    """Return jobs of which each needs the next one, the first again at the end; None if there are none."""
    try:
        graphlib.TopologicalSorter({user: list(jobs) for user, jobs in needs.items()}).prepare()
    except graphlib.CycleError as error:
        chain: list[str] = error.args[1]
        return _from_smallest(chain[::-1])
    return None


def _from_smallest(chain: list[str]) -> list[str]:
    """Turn a cycle so that it begins with its smallest name: the same cycle always reads the same."""
    at = chain.index(min(chain))
    return [*chain[at:-1], *chain[: at + 1]] if at else chain


def _cycle(manifest: Manifest, chain: list[str], needs: Mapping[str, Mapping[str, str]]) -> Diagnostic:
    steps = list(itertools.pairwise(chain))
    shown = chain if len(chain) <= 9 else [*chain[:4], "...", *chain[-4:]]
    message = f"these jobs wait for each other: {' -> '.join(shown)} (each needs the output of the next)"
    if len(steps) == 1:
        message = f"the job '{chain[0]}' needs its own output"
    first = manifest.diagnostic("flow/cycle", message, needs[chain[0]][chain[1]])
    notes = tuple(
        related(manifest, needs[user][job], f"'{user}' needs '{job}' here") for user, job in steps[1:9]
    )
    return msgspec.structs.replace(first, related=notes)
