"""The actual state, as the planner sees it."""

from __future__ import annotations

import msgspec

from reconciler.model.flows import BuiltFlow
from reconciler.model.records import FlowRecord, JobRecord


class ActualState(msgspec.Struct, kw_only=True):
    """What the store holds.

    ``base`` is the revision that was applied last. ``built`` has, by flow name, the built form of each
    desired flow that has been built with exactly these inputs; a flow that is missing must be built first.
    For such a flow ``previous`` has the digests of its jobs as their manifest was when it was applied last.
    ``unseen`` are flows that ``built`` has only for show, while nobody knows their jobs. ``rewritten`` tells
    that the revision does not follow from ``base``: somebody has rewritten history.
    """

    base: str | None = None
    flows: dict[str, FlowRecord] = {}
    jobs: dict[str, list[JobRecord]] = {}
    built: dict[str, BuiltFlow] = {}
    previous: dict[str, dict[str, str]] = {}
    unseen: set[str] = set()
    rewritten: bool = False
