"""Which rule to write so that the jobs of a selector get a value that no later rule beats. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from reconciler.errors import InputError
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.manifests import API_VERSION, Kind
from reconciler.model.run_config import JobFacts, Rule, RunConfig
from reconciler.model.settings import Resources
from reconciler.plan.checks import worker_defaults
from reconciler.plan.configs import FlowConfigs

DEFAULT_ORDER = 100
_LONGEST_NAME = 100
_NO_NAME = re.compile(r"[^A-Za-z0-9]+")


class Selector(msgspec.Struct, frozen=True):
    """The jobs that a user selects; every part that is given must match."""

    flows: list[str] = []
    labels: dict[str, str] = {}
    name_glob: str | None = None
    function_filter: str | None = None

    @property
    def spec(self) -> dict[str, Any]:
        """The parts that are given, as an OverrideRule's spec has them."""
        return {key: value for key, value in msgspec.to_builtins(self).items() if value}

    def as_rule(self) -> Rule:
        """Return a rule that selects these jobs and sets nothing."""
        return Rule("", self.flows, self.labels, None, self.name_glob, self.function_filter, True, {})

    def is_of(self, rule: Rule) -> bool:
        """Whether a rule has just this selector."""
        mine, other = self.as_rule(), msgspec.structs.replace(rule, name="", layer={})
        return msgspec.structs.replace(other, flows=sorted(rule.flows)) == mine

    def __str__(self) -> str:
        flows = ", ".join(self.flows) or "*"
        text = f"{flows}/{self.name_glob}" if self.name_glob else flows
        parts = [f"{key}={value}" for key, value in sorted(self.labels.items())]
        parts += [self.function_filter] if self.function_filter else []
        return f"{text} ({', '.join(parts)})" if parts else text


class WantedValue(msgspec.Struct, frozen=True):
    """A value to set. ``key`` is that of ``spec.set``: resources come in two forms of one field."""

    key: str
    value: Any

    @property
    def field(self) -> str:
        """The field of the run config."""
        return "resources" if self.key == "qresources" else self.key

    @property
    def other_key(self) -> str | None:
        """The key that may not stand beside this one."""
        return {"resources": "qresources", "qresources": "resources"}.get(self.key)

    def is_in(self, config: RunConfig) -> bool:
        """Whether a run config has the value."""
        value = Resources(self.value, self.key == "qresources") if self.field == "resources" else self.value
        return bool(config.value(self.field) == value)


class Selection(msgspec.Struct, frozen=True):
    """The jobs that a selector finds (``flow/job``), and the flows whose jobs only their code knows."""

    jobs: list[tuple[str, JobFacts, RunConfig]]
    unknown: list[DesiredFlow]

    def touched_by(self, rule: Rule) -> bool:
        """Whether a rule matches one of these jobs, or may match one that is not known."""
        return any(rule.matches(facts) for _, facts, _ in self.jobs) or any(
            rule.matches_flow(flow.name, flow.labels) for flow in self.unknown
        )

    def without(self, wanted: WantedValue, rule: str | None = None) -> list[str]:
        """Return the jobs that do not have the value, or have it from another place than the rule."""
        return [
            key for key, _, config in self.jobs
            if not wanted.is_in(config) or (rule is not None and not _is_from(config, wanted.field, rule))
        ]  # fmt: skip


def _is_from(config: RunConfig, field: str, rule: str) -> bool:
    setting = config.setting(field)
    return setting is not None and (setting.origin.kind, setting.origin.name) == (Kind.OVERRIDE_RULE, rule)


def parse_selector(text: str, labels: Mapping[str, str], function: str | None) -> Selector:
    """Return the selector of ``FLOWGLOB`` or ``FLOWGLOB/JOBGLOB``; ``*`` alone is left out.

    Raises
    ------
    InputError
        A part of it is empty.
    """
    flow, slash, job = text.partition("/")
    if not flow or (slash and not job):
        raise InputError(
            f"'{text}' selects nothing: a part of it is empty",
            hint="write FLOWGLOB or FLOWGLOB/JOBGLOB, such as '*/relax*'",
        )
    return Selector(
        [flow] if flow != "*" else [], dict(labels), job if job not in ("", "*") else None, function
    )


# jobs -------------------------------------------------------------------------------------------------


def select(selector: Selector, desired: DesiredState, actual: ActualState) -> Selection:
    """Return the jobs that a selector finds, with the run config that the desired state gives them."""
    rule, defaults = selector.as_rule(), worker_defaults(desired)
    jobs: list[tuple[str, JobFacts, RunConfig]] = []
    unknown: list[DesiredFlow] = []
    for name in sorted(desired.flows):
        flow = desired.flows[name]
        if rule.matches_flow(name, flow.labels):
            found = _jobs_of(FlowConfigs(desired, flow, defaults, actual.built.get(name)), actual)
            jobs += [(f"{name}/{key}", facts, config) for key, facts, config in found if rule.matches(facts)]
            unknown += [flow] if not flow.preview and name not in actual.built else []
    return Selection(jobs, unknown)


def _jobs_of(configs: FlowConfigs, actual: ActualState) -> Iterator[tuple[str, JobFacts, RunConfig]]:
    """Yield the jobs as built or else as written, and those that exist already."""
    built = actual.built.get(configs.flow.name)
    if built is not None:
        for job in built.jobs:
            yield job.key, configs.facts(job.key, job.name, job.function), configs.of_built(job)[1]
    else:
        for shown in configs.flow.preview:
            facts = configs.facts(shown.key, shown.name, shown.function)
            yield shown.key, facts, configs.of_preview(shown)
    for record in actual.jobs.get(configs.flow.name, []):
        if record.current:
            generated = record.generated_by is not None
            facts = configs.facts(record.key, record.name, record.function, generated=generated)
            yield record.key, facts, configs.of_record(record)


def ids_that_match(selector: Selector, desired: DesiredState, actual: ActualState) -> dict[str, str]:
    """Return, by ``flow/job``, the names of jobs whose id is what the selector says of their name."""
    any_name = msgspec.structs.replace(selector, name_glob=None)
    return {
        key: facts.name or ""
        for key, facts, _ in select(any_name, desired, actual).jobs
        if selector.as_rule().matches_name(key.partition("/")[2])
    }


# rules ------------------------------------------------------------------------------------------------


def alike(selector: Selector, desired: DesiredState, wanted: WantedValue) -> list[Rule]:
    """Return the rules with just this selector, the most fit for an edit first.

    One that sets the field already comes before one that does not, and a later one before an earlier one.
    """
    found = [
        rule for rule in reversed(desired.rules)
        if selector.is_of(rule) and f"{Kind.OVERRIDE_RULE}/{rule.name}" not in desired.stale
    ]  # fmt: skip
    return sorted(found, key=lambda rule: wanted.field not in rule.layer)


def is_beaten(rule: Rule, desired: DesiredState, wanted: WantedValue, selection: Selection) -> bool:
    """Whether a later rule sets the field for one of the jobs."""
    later = desired.rules[[other.name for other in desired.rules].index(rule.name) + 1 :]
    return any(wanted.field in other.layer and selection.touched_by(other) for other in later)


def order_of_new(desired: DesiredState, wanted: WantedValue, selection: Selection, file: str) -> int:
    """Return the order with which a new last document of ``file`` beats all rules that set the field."""
    places = [
        (_order(desired, rule), desired.manifests[f"{Kind.OVERRIDE_RULE}/{rule.name}"].file)
        for rule in desired.rules
        if wanted.field in rule.layer and selection.touched_by(rule)
    ]
    highest, last_file = max(places, default=(DEFAULT_ORDER, ""))
    if highest < DEFAULT_ORDER:
        return DEFAULT_ORDER
    return highest if last_file <= file else highest + 1


def _order(desired: DesiredState, rule: Rule) -> int:
    order: int = desired.manifests[f"{Kind.OVERRIDE_RULE}/{rule.name}"].spec.get("order", DEFAULT_ORDER)
    return order


def new_rule(selector: Selector, wanted: WantedValue, order: int, taken: Collection[str]) -> dict[str, Any]:
    """Return the manifest of a rule that sets the value."""
    return {
        "apiVersion": API_VERSION,
        "kind": str(Kind.OVERRIDE_RULE),
        "metadata": {"name": _name(selector, taken)},
        "spec": {"order": order, **selector.spec, "set": {wanted.key: wanted.value}},
    }


def _name(selector: Selector, taken: Collection[str]) -> str:
    """Return ``set-eos-relax`` for ``eos-*/relax*``: the rule may get more fields later."""
    function = (selector.function_filter or "").rpartition(".")[2]
    parts: Iterable[str] = (
        "set",
        *selector.flows,
        *selector.labels.values(),
        selector.name_glob or "",
        function,
    )
    words = [word for part in parts for word in _NO_NAME.split(part) if word]
    name = "-".join(words if len(words) > 1 else ["set", "all"])[: _LONGEST_NAME - 5].rstrip("-")
    return name if name not in taken else _numbered(name, taken)


def _numbered(name: str, taken: Collection[str]) -> str:
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def folder_of_rules(directories: Sequence[str], rule_files: Iterable[str]) -> str:
    """Return the manifest directory where a new rule belongs.

    The first with "rule" in its last name; else that of the first rule there is; else the first of all.
    """
    folders = [directory.strip("/") for directory in directories]
    named = [folder for folder in folders if "rule" in folder.rpartition("/")[2].lower()]
    used = [folder for file in rule_files for folder in folders if file.startswith(f"{folder}/")]
    return [*named, *used, *folders][0]
