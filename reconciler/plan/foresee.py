"""Which jobs of a flow that must be rebuilt will run again, as far as its manifest shows.

Sure only after the build: the code of the repository may make something else of the same manifest.
"""

from __future__ import annotations

import graphlib
from collections.abc import Mapping

from reconciler.model.actual import ActualState
from reconciler.model.desired import DesiredState, PreviewJob


def affected_jobs(desired: DesiredState, actual: ActualState) -> set[str]:
    """Return ``flow/job`` of every job whose content changes, or that of a job it needs.

    Only flows in the ``jobs:`` form that were applied before and must be rebuilt are looked at.
    """
    jobs = {
        f"{name}/{job.key}": (name, job)
        for name in actual.previous
        if name in desired.flows
        for job in desired.flows[name].preview
    }
    graph = {key: [need for need in job.needs if need in jobs] for key, (_, job) in jobs.items()}
    affected: set[str] = set()
    for key in graphlib.TopologicalSorter(graph).static_order():
        name, job = jobs[key]
        if _changed(job, actual.previous[name]) or affected.intersection(job.needs):
            affected.add(key)
    return affected


def _changed(job: PreviewJob, before: Mapping[str, str]) -> bool:
    return before.get(job.key) != job.digest
