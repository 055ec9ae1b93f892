"""Why a job has its run config: for each field the value in effect, and the weaker values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from reconciler.model.manifests import Kind
from reconciler.model.records import JobRecord
from reconciler.model.run_config import FIELDS, Rule, RunConfig, resolve
from reconciler.model.settings import Layer, Level, Setting
from reconciler.plan.configs import FlowConfigs

Records = Mapping[str, JobRecord]


class Decision(msgspec.Struct, frozen=True):
    """One field of a job's run config.

    ``in_effect`` is the setting that the job has, None if no level sets the field. ``wanted`` is the setting
    of the revision if that differs: a deferred change, or a flow that waits. ``beaten`` are weaker settings,
    the strongest first.
    """

    field: str
    in_effect: Setting | None
    wanted: Setting | None
    beaten: tuple[Setting, ...]


def decisions(configs: FlowConfigs, record: JobRecord, records: Records) -> list[Decision]:
    """Explain every field of a job; ``records`` are all jobs of its flow by their ids."""
    layers = _layers(configs, record, records)
    return [_decide(configs, record, field, layers) for field in FIELDS]


def without_revision(record: JobRecord) -> list[Decision]:
    """Return the decisions that the record itself has: for a flow that the revision no longer has."""
    return [Decision(field, record.config.setting(field), None, ()) for field in FIELDS]


class Escalation(msgspec.Struct, frozen=True):
    """The resources of a job as retries escalated them, and the factor of each key that grew."""

    value: Setting
    factors: dict[str, str]


def escalation(record: JobRecord) -> Escalation | None:
    """Return how retries escalated the resources of a job; None if they did not."""
    setting, policy = record.config.resources, record.config.policy
    base, asked = record.config.resources_value, record.asked
    if setting is None or policy is None or base is None or asked is None or asked == base:
        return None
    factors = {
        key: factor
        for key, factor in policy.factors(base).items()
        if base.values.get(key) != asked.values.get(key)
    }
    return Escalation(Setting(asked, setting.origin), factors)


def _decide(configs: FlowConfigs, record: JobRecord, field: str, layers: Sequence[Layer]) -> Decision:
    settings = [layer[field] for layer in layers if field in layer]
    worker = next((layer["worker"] for layer in layers if "worker" in layer), None)
    if field == "resources" and worker is not None and str(worker.value) in configs.defaults:
        settings.append(configs.defaults[str(worker.value)])
    first = settings[0] if settings else None
    has = record.config.setting(field)
    if (first.value if first else None) == (has.value if has else None):
        return Decision(field, first, None, _beaten(settings))
    return Decision(field, has, first, ())


def _beaten(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """Return the weaker settings; one that a generated job has from generator and flow counts once."""
    by_place: dict[tuple[str, str, str], Setting] = {}
    for setting in settings:
        origin = setting.origin
        by_place.setdefault((origin.kind, origin.name, origin.pointer), setting)
    return tuple(by_place.values())[1:]


def _layers(configs: FlowConfigs, record: JobRecord, records: Records) -> list[Layer]:
    written = configs.written(record.key) if record.generated_by is None else None
    if written is not None:  # the manifest as it is now; the record has the one of its last patch
        by_code = {
            field: setting
            for field, setting in record.own.items()
            if "/manager_config/" in setting.origin.pointer
        }
        record = msgspec.structs.replace(record, own=by_code | written.own)
    return configs.layers_of_record(record, _generator_config(configs, record, records))


def _generator_config(configs: FlowConfigs, record: JobRecord, records: Records) -> RunConfig | None:
    """Return the run config that the generator of a job has by this revision."""
    generator = records.get(record.generator or "")
    if generator is None:
        return None
    return resolve(_layers(configs, generator, records), configs.defaults, configs.digests)


class Share(msgspec.Struct, frozen=True):
    """What a rule does to one job: the fields that it decides, and those where a stronger setting wins."""

    record: JobRecord
    decides: dict[str, Setting]
    beaten_by: dict[str, Setting]


def share_of_rule(rule: Rule, configs: FlowConfigs, record: JobRecord, records: Records) -> Share | None:
    """Return what a rule does to a job; None if the rule does not match."""
    generated = record.generated_by is not None
    facts = configs.facts(record.key, record.name, record.function, generated=generated)
    if not rule.matches(facts):
        return None
    decides: dict[str, Setting] = {}
    beaten_by: dict[str, Setting] = {}
    for decision in decisions(configs, record, records):
        winner = decision.wanted or decision.in_effect
        if decision.field not in rule.layer or winner is None:
            continue
        origin = winner.origin
        own = (origin.level, origin.kind, origin.name) == (Level.RULE, Kind.OVERRIDE_RULE, rule.name)
        (decides if own else beaten_by)[decision.field] = winner
    return Share(record, decides, beaten_by)
