"""What changed in the content of a flow since it was built last, for people. Pure.

The build key says that something changed; the parts of the former build say what: manifest, code, files, or
the jobs of other flows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow, digest
from reconciler.model.manifests import JOB_BY_ID, Kind, OnCodeChange
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Change, JobRecord
from reconciler.model.settings import Level, Origin
from reconciler.model.states import BROKEN, JobState

_MOST_CHANGES = 20
"""Changed values that are shown of one job or flow."""

_LONGEST_VALUE = 200
"""Characters of a value that are shown."""


class FlowChanges:
    """The difference between a flow and its former build; ``former`` is None if that is not known."""

    def __init__(
        self, desired: DesiredState, flow: DesiredFlow, former: BuiltFlow | None, built: BuiltFlow | None
    ) -> None:
        self.desired = desired
        self.flow = flow
        # Builds of earlier versions of this program do not have their parts.
        self.former = former if former is not None and former.form else None
        self.built = built

    def causes(self) -> list[Reason]:
        """Return why the flow has another build key."""
        former, flow = self.former, self.flow
        if former is None:
            return [Reason(ReasonCode.BUILD_CHANGED)]
        found = []
        if digest(flow.content) != digest(former.form):
            edited = [
                name for name in flow.makers if former.makers.get(name, "") not in ("", flow.makers[name])
            ]
            found.append(
                Reason(ReasonCode.MAKER_CHANGED, {"makers": some(edited)})
                if edited
                else Reason(ReasonCode.FLOW_CHANGED)
            )
        if flow.code != former.code:
            trees = ", ".join(tree[:7] for tree in flow.code if tree not in former.code)
            found.append(Reason(ReasonCode.CODE_CHANGED, {"code": trees or "less code"}))
        files = sorted({one[0] for one in {*flow.files} ^ {*map(tuple, former.files)}})
        if files and not (found and found[0].code in (ReasonCode.FLOW_CHANGED, ReasonCode.MAKER_CHANGED)):
            found.append(Reason(ReasonCode.FILES_CHANGED, {"files": some(files)}))
        if not found and flow.externals:
            now = self.built.externals if self.built is not None else {}
            changed = {one for one in flow.externals if now.get(one) != former.externals.get(one)}
            flows = sorted({one.partition("/")[0] for one in changed})
            if flows:
                found.append(Reason(ReasonCode.UPSTREAM_CHANGED, {"flows": some(flows)}))
        return found or [Reason(ReasonCode.BUILD_CHANGED)]

    def only(self, *codes: ReasonCode) -> bool:
        """Return whether the flow changed for no other cause than these."""
        return {cause.code for cause in self.causes()} <= set(codes)

    def of_flow(self) -> tuple[Change, ...]:
        """Return the changed values of a maker, factory or file; those of ``jobs`` belong to their jobs."""
        form = self.flow.spec.form
        if self.former is None or form == "jobs":
            return ()
        return self._diff(self.former.form.get(form), self.flow.content.get(form), form, f"/spec/{form}")

    def of_job(self, key: str) -> tuple[Change, ...]:
        """Return the changed values of a job of the ``jobs`` form: ``args[0]: 26 -> 41``."""
        before, after = _job(self.former.form if self.former else {}, key), _job(self.flow.content, key)
        if before is None or after is None:
            return ()
        return self._diff(before, after, "", f"{JOB_BY_ID}{key.partition('/')[0]}")

    def why_replaced(self, key: str) -> Reason:
        """Return why the content of a job changed."""
        former = self.former
        if (
            former is not None
            and _job(former.form, key) is not None
            and self.only(ReasonCode.FLOW_CHANGED, ReasonCode.MAKER_CHANGED, ReasonCode.UPSTREAM_CHANGED)
        ):
            own = bool(self.of_job(key))
            return Reason(ReasonCode.OWN_CONTENT_CHANGED if own else ReasonCode.NEEDED_JOB_CHANGED)
        return Reason(ReasonCode.CONTENT_CHANGED)

    def code_notes(self, records: Sequence[JobRecord], replaced: Sequence[str]) -> list[Reason]:
        """Return what new code leaves as it is: results of older code, and jobs that failed with it.

        ``replaced`` are the keys of jobs that run again anyway.
        """
        if not any(cause.code is ReasonCode.CODE_CHANGED for cause in self.causes()):
            return []
        present = set(self.flow.code)
        stay = [
            one for one in records if one.current and one.key not in replaced and not present <= {*one.code}
        ]
        kept = sum(one.state is JobState.COMPLETED for one in stay)
        failed = [one for one in stay if one.state in BROKEN]
        found = []
        if kept:
            count = f"{kept} result" if kept == 1 else f"{kept} results"
            found.append(
                Reason(ReasonCode.OLD_RESULTS_KEPT, {"count": count, "policy": self.flow.on_code_change})
            )
        if failed and self.flow.on_code_change is not OnCodeChange.RETRY_FAILED:
            target = (
                failed[0].path if len(failed) == 1 else f"{self.flow.name} state:{','.join(sorted(BROKEN))}"
            )
            jobs = some([job.key for job in failed])
            command = f"`reconcile retry {target}`"
            found.append(Reason(ReasonCode.FAILED_WITH_OLD_CODE, {"jobs": jobs, "command": command}))
        return found

    def _diff(self, old: Any, new: Any, label: str, pointer: str) -> tuple[Change, ...]:
        changes = []
        for name, at, before, after in _differences(old, new, label, pointer):
            origin = Origin(Level.FLOW if label else Level.JOB, Kind.FLOW, self.flow.name, at)
            changes.append(Change(name, _short(before), _short(after), self.desired.provenance(origin)))
            if len(changes) == _MOST_CHANGES:
                break
        return tuple(changes)


def _job(form: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Return the entry of the ``jobs`` form that a job comes from: ``chain`` also makes ``chain/relax``."""
    jobs = form.get("jobs") or ()
    return next((job for job in jobs if job.get("id") == key.partition("/")[0]), None)


def _differences(old: Any, new: Any, label: str, pointer: str) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield (label, JSON pointer, old, new) of each value that differs; lists of other length as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            name = f"{label}.{key}" if label else str(key)
            step = str(key).replace("~", "~0").replace("/", "~1")
            yield from _differences(old.get(key), new.get(key), name, f"{pointer}/{step}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{label}[{number}]", f"{pointer}/{number}")
    elif digest(old) != digest(new):
        yield label, pointer, old, new


def _short(value: Any) -> Any:
    """Return a value as it is, or the beginning of its text if that is long."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return value if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def some(names: Sequence[str]) -> str:
    """Return ``a, b, c and 2 more``."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
