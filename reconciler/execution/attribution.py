"""Writes into a plan who made each run config change, so that the events of its jobs can tell for ever."""

from __future__ import annotations

import msgspec

from reconciler.desired.causes import Causes
from reconciler.model.actions import Action, Plan
from reconciler.model.records import Change
from reconciler.model.run_config import FIELDS, RunConfig
from reconciler.model.settings import Origin
from reconciler.plan.configs import content_origin


def attributed(plan: Plan, causes: Causes) -> Plan:
    """Return the plan with commit, author and time in the changes of jobs that exist."""
    actions = tuple(_attributed(action, causes) for action in plan.actions)
    return msgspec.structs.replace(plan, actions=actions)


def has_cause(action: Action) -> bool:
    """Whether an action changes a job that exists, so that somebody made it change."""
    return action.record is not None and action.wanted is not None and bool(action.changes)


def _attributed(action: Action, causes: Causes) -> Action:
    if not has_cause(action):
        return action
    assert action.record is not None and action.wanted is not None
    old, new = action.record.config, action.wanted.config
    changes = tuple(_with_cause(change, causes, old, new) for change in action.changes)
    return msgspec.structs.replace(action, changes=changes)


def _with_cause(change: Change, causes: Causes, old: RunConfig, new: RunConfig) -> Change:
    if change.field not in FIELDS:
        return change
    found = causes.of(*_origins(change.field, old, new))
    if found is None:
        return change
    return msgspec.structs.replace(change, commit=found.commit, author=found.author, time=found.time)


def _origins(field: str, old: RunConfig, new: RunConfig) -> tuple[Origin | None, Origin | None]:
    """Return where the value came from before and now; the content of an ExecConfig has its own place."""
    before, after = old.setting(field), new.setting(field)
    if field == "exec_config" and after is not None and old.value(field) == new.value(field):
        place = content_origin(after)
        return place, place
    return before.origin if before is not None else None, after.origin if after is not None else None
