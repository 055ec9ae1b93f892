"""Why a job has the run config that it has: for each field the value in effect and those that it beat."""

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

    ``in_effect`` is what the job has (None: no level gives it), ``wanted`` what the revision gives it if that
    is not what it has: a deferred change, or a flow that waits. ``beaten`` are weaker settings, the strongest
    first.
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
    """Return what the record itself tells, where the revision does not have its flow any more."""
    return [Decision(field, record.config.setting(field), None, ()) for field in FIELDS]


class Escalation(msgspec.Struct, frozen=True):
    """What retries made of the resources of a job: the value, and the factor of each key that grew."""

    value: Setting
    factors: dict[str, str]


def escalation(record: JobRecord) -> Escalation | None:
    """Return what retries made of the resources of a job; None if they are as they were given."""
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
    """A generated job may have a value from its generator and from its flow: that is one place, not two."""
    by_place: dict[tuple[str, str, str], Setting] = {}
    for setting in settings:
        origin = setting.origin
        by_place.setdefault((origin.kind, origin.name, origin.pointer), setting)
    return tuple(by_place.values())[1:]


def _layers(configs: FlowConfigs, record: JobRecord, records: Records) -> list[Layer]:
    written = configs.written.get(record.key) if record.generated_by is None else None
    if written is not None:  # the manifest of now; the record has that of its last patch
        said_by_code = {
            field: setting
            for field, setting in record.own.items()
            if "/manager_config/" in setting.origin.pointer
        }
        record = msgspec.structs.replace(record, own=said_by_code | written.own)
    return configs.layers_of_record(record, _generator_config(configs, record, records))


def _generator_config(configs: FlowConfigs, record: JobRecord, records: Records) -> RunConfig | None:
    """Return what the generator of a job has by this revision."""
    generator = records.get(record.generator or "")
    if generator is None:
        return None
    return resolve(_layers(configs, generator, records), configs.defaults, configs.digests)


class Share(msgspec.Struct, frozen=True):
    """What a rule does to one job: ``decides`` these fields; elsewhere it is beaten, field by field."""

    record: JobRecord
    decides: dict[str, Setting]
    beaten_by: dict[str, Setting]


def share_of_rule(rule: Rule, configs: FlowConfigs, record: JobRecord, records: Records) -> Share | None:
    """Return what a rule does to a job; None if it does not match it."""
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
