"""What ``jobflow.run_locally`` leaves of a flow, and what a World leaves of one, in the same terms."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyEncoder

from reconciler.actual.jobstore import LMDBStore
from reconciler.model.states import JobState
from tests.execution.support import World


def ran_by_jobflow(flow: Flow, directory: Path) -> Counter[str]:
    """Run a flow by jobflow alone; return the facts of its jobs."""
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    directory.mkdir(exist_ok=True)
    return facts(store, run_locally(flow, store=store, log=False, root_dir=directory))


def facts_of(world: World, flow: str) -> Counter[str]:
    """Return the facts of the completed jobs of a flow, read as a notebook reads them."""
    jobs = world.view(lambda view: view.jobs_of(flow))
    path = world.store.path
    store = JobStore(LMDBStore(path), additional_stores={"data": LMDBStore(path, "data")})
    store.connect()
    try:
        return facts(store, {job.uuid for job in jobs if job.state is JobState.COMPLETED})
    finally:
        store.close()


def facts(store: JobStore, uuids: Iterable[str]) -> Counter[str]:
    """Return name, index, metadata, number of hosts and output of the last document of each job.

    Uuids differ from run to run: in outputs each gives way to the name that the job had first.
    """
    first = {uuid: store.query_one({"uuid": uuid}, sort={"index": 1})["name"] for uuid in uuids}
    found = []
    for uuid in first:
        document = store.query_one({"uuid": uuid}, sort={"index": -1})
        output = store.get_output(uuid, load=True, on_missing="pass")
        plain = _without_uuids(json.loads(json.dumps(output, cls=MontyEncoder)), first)
        told = [document["name"], document["index"], document["metadata"], len(document["hosts"]), plain]
        found.append(json.dumps(told, sort_keys=True))
    return Counter(found)


def _without_uuids(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        named = {"uuid": names.get(value["uuid"], "of no result")} if "uuid" in value else {}
        return {key: _without_uuids(inner, names) for key, inner in value.items()} | named
    return [_without_uuids(inner, names) for inner in value] if isinstance(value, list) else value
