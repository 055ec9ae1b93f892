"""Where a value of a run config comes from, as data and text: level, file, line, commit, author, date."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from typing import Any

from reconciler.actual.store import Store
from reconciler.cli.context import Context
from reconciler.cli.views.data import Data
from reconciler.errors import InputError
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Kind, RuleSpec
from reconciler.model.records import JobRecord
from reconciler.model.settings import Level, Origin, Setting
from reconciler.plan.checks import worker_defaults
from reconciler.plan.configs import FlowConfigs, content_origin
from reconciler.plan.explain import Decision, decisions, escalation, without_revision

_UNKNOWN_AUTHOR: Data = {"commit": None, "author": None, "time": None, "summary": None}


class Provenance:
    """Finds the origin of values in the revision that was applied last, and their authors in its history."""

    def __init__(self, context: Context, store: Store) -> None:
        from reconciler.loop import Session

        with store.read() as view:
            config = view.applied_config()
        self.revision = config.revision
        self.session = Session(context.source(fetch=False), store, _revision(context, config.commit))
        self.desired: DesiredState = self.session.load().state
        self.authors = self.session.authors()
        self.defaults = worker_defaults(self.desired)

    def configs(self, flow: str) -> FlowConfigs | None:
        """Return the resolver of a flow's run configs; None if the revision does not have the flow."""
        found = self.desired.flows.get(flow)
        if found is None:
            return None
        with self.session.store.read() as view:
            record = view.flow(flow)
            built = view.build(record.build_key) if record is not None else None
        return FlowConfigs(self.desired, found, self.defaults, built)

    def decisions(self, record: JobRecord, records: Iterable[JobRecord]) -> list[Decision]:
        """Return why a job has its run config; ``records`` are all jobs of its flow."""
        configs = self.configs(record.flow) if record.current else None
        if configs is None:
            return without_revision(record)
        return decisions(configs, record, {member.id: member for member in records})

    def of_setting(self, setting: Setting) -> Data:
        """Return value, level, kind, name, order, file, line, commit, author, time, summary of a setting."""
        return {"value": setting.shown} | self.of_origin(setting.origin)

    def of_escalation(self, record: JobRecord, decisions: Iterable[Decision]) -> Data | None:
        """Return the resources of a job as its retries escalated them; None if nothing is escalated.

        ``after`` lists the causes of the failures, ``by`` is the setting that gave the retries.
        """
        grown = escalation(record)
        retries = next((one.in_effect for one in decisions if one.field == "retries"), None)
        if grown is None or retries is None:
            return None
        return {
            "value": grown.value.shown, "factors": grown.factors, "after": record.retry.causes,
            "by": self.of_setting(retries),
        }  # fmt: skip

    def of_content(self, setting: Setting) -> Data:
        """Return the place of the ExecConfig that a setting names, and who changed it last."""
        found = self.of_origin(content_origin(setting))
        return {key: found[key] for key in ("kind", "name", "file", "line", *_UNKNOWN_AUTHOR)}

    def of_origin(self, origin: Origin) -> Data:
        """Return an origin with its place and its author."""
        order = None
        key = f"{origin.kind}/{origin.name}"
        if origin.kind == Kind.OVERRIDE_RULE and key in self.desired.manifests:
            order = self.desired.manifests[key].spec.get("order", RuleSpec(set={}).order)
        manifest, commit = self.desired.manifests.get(key), self._commit_of(key)
        found = self.authors.of(commit, manifest, origin.pointer) if manifest is not None and commit else None
        author = _UNKNOWN_AUTHOR
        if found is not None:
            author = {
                "commit": found.commit, "author": found.author, "time": found.time, "summary": found.summary
            }  # fmt: skip
        return self.desired.provenance(origin) | {"order": order} | author

    def _commit_of(self, key: str) -> str | None:
        """Return the commit that has the document: an older one if its last good version is in force."""
        head = self.desired.revision.commit
        if key not in self.desired.stale:
            return head
        with self.session.store.read() as view:
            good = view.good_manifests().get(key)
        return self.authors.history.last_with(head, good.file, good.parsed) if good is not None else None


def _revision(context: Context, commit: str) -> Any:
    try:
        return context.source(fetch=False).revision(commit)
    except InputError as error:
        raise InputError(
            f"the commit that was applied last, {commit[:12]}, is not in this repository",
            hint="if history was rewritten, run `reconcile --once` first; otherwise give the right --repo",
        ) from error


def place_text(found: Data) -> str:
    """Return ``rules/a.yaml:7``, or that the revision no longer has it."""
    return f"{found['file']}:{found['line']}" if found["file"] else "no longer in the revision"


def person_text(found: Data) -> str:
    """Return commit, day and author on one line; empty if unknown."""
    if not found["commit"]:
        return ""
    day = datetime.datetime.fromtimestamp(found["time"]).astimezone().strftime("%Y-%m-%d")
    return f"{found['commit'][:7]} {day} {found['author']}"


def level_text(found: Data) -> str:
    """Return the level with its name: ``rule urgent (order 100)``, ``flow eos-al``, ``job in flow eos-al``.

    A value inherited from the generator shows the level that gave it to the generator:
    ``generator: flow eos-al``.
    """
    if found["kind"] == Kind.EXEC_CONFIG:
        return f"{found['kind']} {found['name']}"
    order = f" (order {found['order']})" if found.get("order") is not None else ""
    level = found["level"]
    if level == Level.GENERATOR:
        level = f"{level}: {_LEVEL_OF.get(found['kind'], found['kind'])}"
    if found["level"] == Level.JOB:  # the manifest that has it is that of its flow
        level = f"{level} in {_LEVEL_OF.get(found['kind'], found['kind'])}"
    return f"{level} {found['name']}{order}"


_LEVEL_OF = {
    Kind.OVERRIDE_RULE: Level.RULE,
    Kind.FLOW: Level.FLOW,
    Kind.PROJECT: Level.PROJECT,
    Kind.WORKER: Level.WORKER,
}


def value_text(value: Any) -> str:
    """Return a value as a user would write it in a manifest."""
    if value is None:
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value)
