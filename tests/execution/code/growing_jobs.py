"""Jobs that ask for the jobs that their argument describes, and log their names. Runs on workers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import simple_jobs
from jobflow import Flow, Job, JobOrder, Response, job

Tree = dict[str, Any]


@job
def grow(log: str, tree: Tree, after: Any = None) -> Response[str]:
    """Append the name, wait for the file ``gate``, fail or ask for what the tree says below its kinds."""
    simple_jobs.append(log, tree["name"])
    while tree.get("gate") and not Path(tree["gate"]).exists():
        time.sleep(0.01)
    if tree.get("fails"):
        raise ValueError(tree["name"])
    asked: dict[str, Any] = {
        kind: Flow([named(log, one) for one in tree[kind]]) for kind in ("detour", "addition") if kind in tree
    }
    if "replace" in tree:
        asked["replace"] = named(log, tree["replace"])
    if "stop" in tree:
        asked[tree["stop"]] = True
    return Response(output=tree["name"], **asked)


def named(log: str, tree: Tree, *after: Any) -> Job:
    """Return the job of a tree, by its name."""
    made: Job = grow(log, tree, *after)
    made.name = tree["name"]
    return made


def in_order(log: str, *trees: Tree) -> Flow:
    """Return jobs that run one after the other, though none takes the output of another."""
    return Flow([named(log, tree) for tree in trees], order=JobOrder.LINEAR)


@job
def many(count: int) -> Response[int]:
    """Ask for many jobs at once, for which whoever needs this one has to wait."""
    return Response(output=count, detour=Flow([simple_jobs.give(number) for number in range(count)]))
