"""Flows that got another name: they keep their records, their jobs and their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from reconciler.diagnostics import Diagnostic, Severity
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import digest
from reconciler.plan.interpreter import renamed_flow, renamed_job

_PLACE = "/metadata/previous_names"


def renames(desired: DesiredState, actual: ActualState) -> dict[str, str]:
    """Return which records become those of another flow: old name -> new name."""
    found: dict[str, str] = {}
    for flow in desired.flows.values():
        if flow.name in actual.flows or any(name_problems(desired, flow)):
            continue
        for old in reversed(flow.previous_names):
            record = actual.flows.get(old)
            if record is not None and record.identity == flow.identity and old not in desired.invalid:
                found[old] = flow.name
                break
    return found


def as_renamed(actual: ActualState, names: Mapping[str, str]) -> ActualState:
    """Return the actual state as it will be once the flows have their new names."""
    if not names:
        return actual
    flows = {}
    for name, flow in actual.flows.items():
        flows[names.get(name, name)] = renamed_flow(flow, names[name]) if name in names else flow
    jobs = {}
    for name, found in actual.jobs.items():
        jobs[names.get(name, name)] = (
            [renamed_job(job, names[name]) for job in found] if name in names else found
        )
    previous = {names.get(name, name): preview for name, preview in actual.previous.items()}
    former = {names.get(name, name): build for name, build in actual.former.items()}
    return msgspec.structs.replace(actual, flows=flows, jobs=jobs, previous=previous, former=former)


def likely_renames(desired: DesiredState, actual: ActualState) -> Iterator[Diagnostic]:
    """Yield a hint for each new flow with the content of a removed one: without it all its jobs run again."""
    removed = {
        name: actual.former[name]
        for name, flow in actual.flows.items()
        if name not in desired.flows and name not in desired.invalid and not flow.removed
        if name in actual.former and actual.former[name].form
    }
    contents = {digest([build.form, build.code, build.files]): name for name, build in removed.items()}
    for flow in desired.flows.values():
        old = contents.get(digest([flow.content, flow.code, flow.files]))
        if old is not None and flow.name not in actual.flows and old not in flow.previous_names:
            yield flow.manifest.diagnostic(
                "flow/renamed",
                f"flow '{flow.name}' has the content of flow '{old}', which is removed: its jobs run again",
                "/metadata/name",
                severity=Severity.WARNING,
                hint=f"if this is a rename, keep the results: add `previous_names: [{old}]` to its metadata",
            )


def name_problems(desired: DesiredState, flow: DesiredFlow) -> Iterator[Diagnostic]:
    """Yield an error for each previous name that another flow has now, or also claims.

    The present name of a flow may be among its previous ones: it may have got it back.
    """
    for number, old in enumerate(flow.previous_names):
        others = [
            other.name
            for other in desired.flows.values()
            if other.name != flow.name and (other.name == old or old in other.previous_names)
        ]
        if others:
            yield flow.manifest.diagnostic(
                "flow/previous-name-in-use",
                f"'{old}' cannot be a previous name of flow '{flow.name}': flow '{others[0]}' has it",
                f"{_PLACE}/{number}",
                hint=f"remove '{old}', or rename the other flow",
            )


def lost_identity(flow: DesiredFlow, actual: ActualState) -> Iterator[Diagnostic]:
    """Yield an error if the flow would silently start from nothing, because its first name is missing."""
    names = [flow.name] if flow.name in actual.flows else flow.previous_names
    known = [record.identity for name in names if (record := actual.flows.get(name)) is not None]
    if known and flow.identity not in known:
        yield flow.manifest.diagnostic(
            "flow/lost-identity",
            f"flow '{flow.name}' had another first name; without it all its jobs would run again",
            _PLACE if flow.previous_names else "/metadata/name",
            hint="list all previous names, oldest first; to start from nothing, choose another name",
        )
