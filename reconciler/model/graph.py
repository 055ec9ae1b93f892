"""Jobs as a graph: whose output each takes, and which of them others generated. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from reconciler.model.flows import job_id
from reconciler.model.records import JobRecord

T = TypeVar("T", bound=Hashable)


def walk(starts: Iterable[T], following: Callable[[T], Iterable[T]]) -> Iterator[T]:
    """Yield ``starts`` and everything that follows from them, each once, nearest first; cycles do no harm.

    With ``{"a": ["b", "c"], "b": ["a", "d"]}``, ``walk(["a"], ...)`` yields ``a b c d``.
    """
    level = list(dict.fromkeys(starts))
    seen = set(level)
    while level:
        yield from level
        found = dict.fromkeys(other for one in level for other in following(one) if other not in seen)
        seen |= found.keys()
        level = list(found)


def generated_by(jobs: Sequence[JobRecord], generators: Collection[str]) -> list[JobRecord]:
    """Return the current ones of ``jobs`` that some jobs generated, directly or not.

    ``generators`` are ids, ``<uuid>_<index>``.
    """
    children: dict[str, list[JobRecord]] = {}
    for job in jobs:
        if job.current and job.generator is not None:
            children.setdefault(job.generator, []).append(job)
    below = set(walk(generators, lambda one: (child.id for child in children.get(one, ()))))
    return [job for job in jobs if job.current and job.generator in below]


class EdgeKind(StrEnum):
    """Why one job comes after another."""

    DATA = "data"
    """It takes the output of the other, or waits for it."""

    GENERATED = "generated"
    """The other one generated it."""

    GENERATION = "generation"
    """It is the next index of the same job, which replaced itself."""


class Edge(msgspec.Struct, frozen=True, gc=False):
    """An arrow from one job to another, both by ``<uuid>_<index>``."""

    source: str
    target: str
    kind: EdgeKind


class Graph(msgspec.Struct, frozen=True):
    """The jobs of a flow and those of other flows that they need, oldest first, and the arrows."""

    flow: str
    jobs: tuple[JobRecord, ...]
    edges: tuple[Edge, ...]


def flow_graph(
    flow: str, members: Sequence[JobRecord], others: Sequence[JobRecord] = (), *, history: bool = False
) -> Graph:
    """Return the graph of a flow.

    ``members`` are all its jobs, ``others`` those of other flows that it may need. ``history`` includes
    superseded jobs. An arrow from a job that is not shown is left out.
    """
    shown = [job for job in members if history or job.current]
    generations: dict[str, list[int]] = {}
    for job in sorted([*others, *shown], key=lambda job: job.index):
        generations.setdefault(job.uuid, []).append(job.index)
    edges = tuple(dict.fromkeys(edge for job in shown for edge in _edges(job, generations)))
    used = {edge.source for edge in edges}
    return Graph(flow, (*(job for job in others if job.id in used), *shown), edges)


def missing_parents(members: Sequence[JobRecord], *, history: bool = False) -> set[str]:
    """Return the uuids that jobs of a flow need, and that are not in it."""
    needed = {parent for job in members if history or job.current for parent in job.parents}
    return needed - {job.uuid for job in members}


def _edges(job: JobRecord, generations: Mapping[str, list[int]]) -> Iterator[Edge]:
    for parent in job.parents:
        # A reference gives the output of the highest index; one of the same uuid has the index before.
        before = [i for i in generations.get(parent, ()) if parent != job.uuid or i < job.index]
        if before:
            yield Edge(job_id(parent, before[-1]), job.id, EdgeKind.DATA)
    by = job.generated_by
    if by is not None and by.index in generations.get(by.uuid, ()):
        itself = by.uuid == job.uuid
        yield Edge(job_id(by.uuid, by.index), job.id, EdgeKind.GENERATION if itself else EdgeKind.GENERATED)


class Branch(msgspec.Struct, gc=False):
    """One job of a tree, with the jobs that it generated below it."""

    job: JobRecord
    below: list[Branch] = []


def job_tree(members: Sequence[JobRecord]) -> list[Branch]:
    """Return the current jobs of a flow as trees, oldest first: below each what it generated.

    The generations of a job that replaced itself stand side by side below the first one, however many there
    are; what one of them generated is below that one.
    """
    branches = {job.id: Branch(job) for job in members if job.current}
    first: dict[str, Branch] = {}
    for branch in branches.values():
        known = first.setdefault(branch.job.uuid, branch)
        if branch.job.index < known.job.index:
            first[branch.job.uuid] = branch
    roots: list[Branch] = []
    for branch in branches.values():
        above = first[branch.job.uuid]
        if above is branch:
            above = branches.get(branch.job.generator or "", branch)
        (roots if above is branch else above.below).append(branch)
    return roots
