"""What run configs ask for, and whether the policy of the user allows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.diagnostics import Diagnostic
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import WorkerSpec
from reconciler.model.policy import REFUSED, SourceRules, Use, exec_config_uses
from reconciler.model.run_config import RunConfig
from reconciler.model.schedulers import SCHEDULERS
from reconciler.model.schedulers.base import VERBATIM
from reconciler.model.settings import Layer, Resources, Setting
from reconciler.plan.resources import at_origin, inside


def layer_uses(layer: Mapping[str, Setting]) -> Iterator[tuple[Setting, Use]]:
    """Yield what one level of the run config asks for: an inline exec_config, lines in the header.

    The pointer of each use is below that of its setting.
    """
    exec_config = layer.get("exec_config")
    if exec_config is not None and isinstance(exec_config.value, dict) and exec_config.value:
        yield exec_config, Use("features", "inline_exec_config", "an inline exec_config")
        for use in exec_config_uses(exec_config.value, ""):
            yield exec_config, use
    resources = layer.get("resources")
    if resources is not None and isinstance(resources.value, Resources):
        values: dict[str, Any] = resources.value.values
        for below, words in (("", values), ("/scheduler_kwargs", values.get("scheduler_kwargs"))):
            if isinstance(words, dict) and VERBATIM in words:
                what = f"'{VERBATIM}' (lines of the header as they are)"
                yield resources, Use("features", VERBATIM, what, f"{below}/{VERBATIM}")


def request_uses(config: RunConfig, worker: WorkerSpec) -> Iterator[Use]:
    """Yield how much a job asks of its scheduler; for a batch worker, what an allocation asks for.

    A value of None means that the request does not say it.
    """
    scheduler = SCHEDULERS[worker.scheduler_type]
    if not scheduler.is_batch:
        return
    resources = config.resources_value
    if worker.batch is not None:
        given = worker.resources if isinstance(worker.resources, dict) else worker.qresources
        resources = Resources(given, given is worker.qresources) if isinstance(given, dict) else None
    request = scheduler.request_of(resources)
    hours = None if request.seconds is None else request.seconds / 3600
    for key, value, unit in (
        ("cores", request.cores, "cores"),
        ("gpus", request.gpus, "GPUs"),
        ("hours", hours, "hours"),
        ("core_hours", request.core_hours, "core-hours"),
    ):
        what = f"a job with {value:g} {unit}" if value is not None else f"a job that does not say its {unit}"
        yield Use(f"limits.{key}", value, what)


def refused_settings(desired: DesiredState, layer: Mapping[str, Setting]) -> Iterator[Diagnostic]:
    """Yield why the policy refuses the words of one level."""
    rules = desired.policy
    if rules is not None:
        for setting, use in layer_uses(layer):
            if not rules.allows(use):
                yield _refusal(desired, rules, setting, use)


def refused_config(desired: DesiredState, config: RunConfig) -> Iterator[Diagnostic]:
    """Yield why the policy refuses an effective run config."""
    rules, worker = desired.policy, desired.workers.get(config.worker_name)
    if rules is None:
        return
    yield from refused_settings(desired, layer_of_config(config))
    setting = config.resources or config.worker
    if worker is not None and setting is not None:
        for use in request_uses(config, worker):
            if not rules.allows(use):
                yield _refusal(desired, rules, setting, use)


def _refusal(desired: DesiredState, rules: SourceRules, setting: Setting, use: Use) -> Diagnostic:
    origin = inside(setting, use.pointer) if use.pointer else setting.origin
    message = f"the policy does not allow {use.what}"
    return at_origin(desired, origin, REFUSED, message, hint=rules.how_to_allow(use))


def layer_of_config(config: RunConfig) -> Layer:
    """Return the settings of a run config whose words the policy looks at."""
    found = (("exec_config", config.exec_config), ("resources", config.resources))
    return {field: setting for field, setting in found if setting is not None}
