"""Run config: the effective worker, exec_config, resources, priority and retries of a job, and their origin.

For each field the strongest level that sets it wins. Presence decides, never truthiness:
``priority: 0``, ``resources: {}``, ``exec_config: {}`` and ``retries: {limit: 0}`` are values.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from reconciler.diagnostics import did_you_mean
from reconciler.model.manifests import ExecConfigSpec
from reconciler.model.retries import Retries, policy_of
from reconciler.model.settings import Layer, Level, Origin, Resources, Setting

# Override rules: which jobs they match.


class JobFacts(msgspec.Struct, frozen=True, gc=False):
    """Everything that a selector can look at.

    ``function`` is the path of the definition of the callable, ``aliases`` are other paths of it: re-exports,
    and methods that subclasses inherit. ``function`` and ``name`` are None for a flow whose jobs are not
    known: then only rules without job filters match. ``makers`` are the Makers that its entry uses; generated
    jobs have none of their own, and inherit from their generator what rules set by them.
    """

    flow: str
    labels: dict[str, str]
    name: str | None
    function: str | None
    generated: bool = False
    aliases: Sequence[str] = ()
    makers: Sequence[str] = ()


class Rule(msgspec.Struct, frozen=True):
    """An OverrideRule with its selector and the layer (field -> Setting) that it sets."""

    name: str
    flows: list[str]
    labels: dict[str, str]
    name_filter: str | None
    name_glob: str | None
    function_filter: str | None
    dynamic: bool
    layer: Layer
    makers: list[str] = []

    def matches(self, job: JobFacts) -> bool:
        """Return whether every given part of the selector matches the job."""
        return (
            self.matches_name(job.name)
            and self.matches_function(job)
            and self.matches_makers(job)
            and (self.dynamic or not job.generated)
            and self.matches_flow(job.flow, job.labels)
        )

    def matches_name(self, name: str | None) -> bool:
        """Return whether ``name_filter`` (a substring) and ``name_glob`` (the whole name) match, if given."""
        if self.name_filter is None and self.name_glob is None:
            return True
        return (
            name is not None
            and (self.name_filter is None or self.name_filter in name)
            and (self.name_glob is None or fnmatch.fnmatchcase(name, self.name_glob))
        )

    def matches_function(self, job: JobFacts) -> bool:
        """Return whether ``function_filter``, if given, is one of the paths of the job's function."""
        return self.function_filter is None or self.function_filter in (job.function, *job.aliases)

    def matches_makers(self, job: JobFacts) -> bool:
        """Return whether a glob of ``makers``, if given, is the name of a Maker that the job's entry uses."""
        return not self.makers or any(
            fnmatch.fnmatchcase(maker, glob) for maker in job.makers for glob in self.makers
        )

    def matches_flow(self, flow: str, labels: Mapping[str, str]) -> bool:
        """Return whether the selector matches the flow, apart from its jobs."""
        if self.flows and not any(fnmatch.fnmatchcase(flow, pattern) for pattern in self.flows):
            return False
        return not self.labels or all(labels.get(key) == value for key, value in self.labels.items())


# Run config: the effective worker, exec_config, resources, priority and retries of a job; who set them.


FIELDS = ("worker", "exec_config", "resources", "priority", "retries")


LOWEST_PRIORITY, HIGHEST_PRIORITY = -(2**31), 2**31 - 1


def as_priority(value: Any) -> int | None:
    """Return the integer that a value of ``priority`` stands for: ``5``, ``5.0`` and ``"5"`` are 5.

    None if it is not an integer. The bounds are not checked.
    """
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", value):
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    return None


def value_problem(field: str, value: Any) -> str | None:
    """Return why a field of the run config cannot have a value, whatever the revision has; None if it can.

    Manifests have passed their schema; this is for values that Python code sets, and for old records.
    """
    match field:
        case "worker":
            return None if isinstance(value, str) and value else "give the name of a Worker"
        case "exec_config":
            if isinstance(value, dict):
                return _exec_config_problem(value)
            return None if isinstance(value, str) else "give the name of an ExecConfig, or a mapping"
        case "resources":
            return (
                None if isinstance(value, Resources) and isinstance(value.values, dict) else "give a mapping"
            )
        case "priority":
            priority = as_priority(value)
            if priority is None or not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
                return f"give an integer from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}"
    return None


def _exec_config_problem(value: dict[str, Any]) -> str | None:
    known = msgspec.structs.fields(ExecConfigSpec)
    for key in value:
        if key not in {field.name for field in known}:
            guess = did_you_mean(str(key), [field.name for field in known])
            return f"'{key}' is not a key of an exec_config{f': {guess}' if guess else ''}"
    try:
        msgspec.convert(value, ExecConfigSpec)
    except msgspec.ValidationError as error:
        return str(error)
    return None


class RunConfig(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The five settings of one job; None where no level gives the field.

    ``exec_config`` is the name of an ExecConfig or an inline one (a dict; ``{}`` is explicitly none).
    ``commands`` is the digest of the ExecConfig that the name stands for: a name stays when its content is
    edited, and then the job must be patched all the same.
    """

    worker: Setting | None = None
    exec_config: Setting | None = None
    resources: Setting | None = None
    priority: Setting | None = None
    commands: str | None = None
    retries: Setting | None = None

    def setting(self, field: str) -> Setting | None:
        """Return the setting of one of :data:`FIELDS`."""
        found: Setting | None = getattr(self, field)
        return found

    def value(self, field: str) -> Any:
        """Return the plain value of one of :data:`FIELDS`, with the default of an absent one."""
        setting = self.setting(field)
        if setting is not None:
            return setting.value
        return 0 if field == "priority" else None

    @property
    def worker_name(self) -> str:
        """The name of the worker; empty when no level sets one."""
        return str(self.worker.value) if self.worker is not None else ""

    @property
    def priority_value(self) -> int:
        """The priority; 0 when no level sets one, and within its bounds whatever an old record holds."""
        priority = as_priority(self.priority.value) if self.priority is not None else 0
        return max(LOWEST_PRIORITY, min(HIGHEST_PRIORITY, priority or 0))

    @property
    def resources_value(self) -> Resources | None:
        """The resources; None when no level sets any."""
        value = self.resources.value if self.resources is not None else None
        return value if isinstance(value, Resources) else None

    @property
    def policy(self) -> Retries | None:
        """The automatic retries; None when no level gives any, or what Python code gave are none."""
        try:
            return policy_of(self.value("retries"))
        except msgspec.ValidationError:
            return None

    def same_values(self, other: RunConfig) -> bool:
        """Whether all values are equal, wherever they came from."""
        return self.commands == other.commands and all(
            self.value(field) == other.value(field) for field in FIELDS
        )

    def shown(self, field: str) -> Any:
        """Return one of :data:`FIELDS` as plain data; None where no level gives it."""
        setting = self.setting(field)
        return setting.shown if setting is not None else None

    @property
    def content_shown(self) -> str:
        """The exec_config with the digest of its content, as ``vasp@1a2b3c4``."""
        return f"{self.value('exec_config')}@{(self.commands or '?')[:7]}"


def layer_of(values: Mapping[str, Any], origin: Origin, pointer: str) -> Layer:
    """Return the layer that the keys of ``values`` give; other keys than run config keys are passed over.

    ``pointer`` is where ``values`` stands in the manifest of ``origin``.
    """
    layer: Layer = {}
    for key in ("worker", "exec_config", "priority", "retries", "resources", "qresources"):
        if key in values:
            value, at = values[key], Origin(origin.level, origin.kind, origin.name, f"{pointer}/{key}")
            if key == "priority":
                value = value if (priority := as_priority(value)) is None else priority
            if key in ("resources", "qresources"):
                value = Resources(value, key == "qresources") if isinstance(value, dict) else str(value)
            elif not isinstance(value, str | int | dict) or (isinstance(value, int) and abs(value) >= 2**63):
                value = str(
                    value
                )  # invalid, and the checks report it; a record could not hold the value itself
            layer["resources" if key == "qresources" else key] = Setting(value, at)
    return layer


def inherited(generator: RunConfig) -> Layer:
    """Return the layer that a generated job gets from its generator's current effective values."""
    return {
        field: Setting(setting.value, Origin(Level.GENERATOR, *_identity(setting.origin)))
        for field in FIELDS
        if (setting := generator.setting(field)) is not None and setting.origin.level is not Level.WORKER
    }


def _identity(origin: Origin) -> tuple[str, str, str]:
    return origin.kind, origin.name, origin.pointer


def layers_for(
    facts: JobFacts, *, rules: Sequence[Rule], own: Layer, generator: Layer, flow: Layer, project: Layer
) -> list[Layer]:
    """Return what every level says of a job, strongest first. ``rules`` are in their order: later wins."""
    matching: Iterable[Layer] = (rule.layer for rule in reversed(rules) if rule.matches(facts))
    return [*matching, own, generator, flow, project]


def resolve(
    layers: Sequence[Layer], worker_defaults: Mapping[str, Setting], commands: Mapping[str, str]
) -> RunConfig:
    """Return the effective run config: per field the first layer that has it.

    ``worker_defaults`` maps a worker's name to its default resources, the weakest level of that field;
    ``commands`` the name of each ExecConfig to its digest. Resources and retries are replaced, never merged.
    """
    chosen: dict[str, Setting] = {}
    for layer in layers:
        for field, setting in layer.items():
            chosen.setdefault(field, setting)
    if "resources" not in chosen and "worker" in chosen:
        default = worker_defaults.get(str(chosen["worker"].value))
        if default is not None:
            chosen["resources"] = default
    exec_config = chosen["exec_config"].value if "exec_config" in chosen else None
    return RunConfig(**chosen, commands=commands.get(exec_config) if isinstance(exec_config, str) else None)
