"""Is what a run config asks for possible? Checked when planning, not when the job fails.

Every check returns diagnostics that name the line that chose the value; where two values do not fit
together, both lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from reconciler.diagnostics import Diagnostic, Related, did_you_mean
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.manifests import Kind, WorkerSpec
from reconciler.model.rules import JobFacts
from reconciler.model.run_config import RunConfig, layers_for, resolve
from reconciler.model.schedulers import KEYWORDS, QRESOURCES_FIELDS, RESERVED, unsafe_values
from reconciler.model.settings import Layer, Level, Origin, Resources, Setting

SUPPORTED_SCHEDULERS = frozenset({"shell"})
"""What this version can run; the schema already knows the others."""


def worker_defaults(desired: DesiredState) -> dict[str, Setting]:
    """Return the weakest level: the default resources of each worker that has some."""
    found = {name: worker_default(name, spec) for name, spec in desired.workers.items()}
    return {name: setting for name, setting in found.items() if setting is not None}


def worker_default(name: str, spec: WorkerSpec) -> Setting | None:
    """Return the default resources of one worker."""
    for field, generic in (("resources", False), ("qresources", True)):
        values = getattr(spec, field)
        if isinstance(values, dict):
            origin = Origin(Level.WORKER, Kind.WORKER, name, f"/spec/{field}")
            return Setting(Resources(values, generic), origin)
    return None


def check_desired(desired: DesiredState) -> list[Diagnostic]:
    """Check what holds for the revision as a whole: every name that is given, every worker."""
    return unique([*_check_layers(desired), *_check_workers(desired)])


def check_preview(desired: DesiredState, flow: DesiredFlow) -> list[Diagnostic]:
    """Check the jobs of a flow as far as the manifest shows them; for other forms the flow as a whole."""
    defaults = worker_defaults(desired)
    known: list[tuple[str | None, str | None, Layer]]
    known = [(job.name, job.function, job.own) for job in flow.preview] or [(None, None, {})]
    found: list[Diagnostic] = []
    for name, function, own in known:
        facts = JobFacts(flow.name, flow.labels, name, function)
        layers = layers_for(
            facts, rules=desired.rules, own=own, generator={}, flow=flow.layer, project=desired.project_layer
        )
        found += check_config(desired, flow, resolve(layers, defaults))
    return unique(found)


def check_config(desired: DesiredState, flow: DesiredFlow, config: RunConfig) -> list[Diagnostic]:
    """Check one effective run config: names, support, scheduler keywords, shell worker with resources."""
    if config.worker is None:
        return [_no_worker(flow)]
    found = [*check_name(desired, "worker", config.worker)]
    if config.exec_config is not None:
        found += check_name(desired, "exec_config", config.exec_config)
    spec = desired.workers.get(config.worker_name)
    if spec is not None:
        found += _unsupported(desired, config.worker_name, spec)
        if config.resources is not None:
            found += check_resources(desired, spec.scheduler_type, config.resources, config.worker)
    return found


def _no_worker(flow: DesiredFlow) -> Diagnostic:
    return flow.manifest.diagnostic(
        "run-config/no-worker",
        f"flow '{flow.name}' has no worker: no rule, no job, not the flow and not the project gives one",
        "/metadata/name",
        hint="set spec.worker in the flow, or spec.defaults.worker in the Project",
    )


def check_name(desired: DesiredState, field: str, setting: Setting) -> Iterator[Diagnostic]:
    """Check that the worker or exec_config that a setting names exists."""
    if not isinstance(setting.value, str):
        return
    known: Iterable[str] = desired.workers if field == "worker" else desired.exec_configs
    if setting.value in known:
        return
    kind = Kind.WORKER if field == "worker" else Kind.EXEC_CONFIG
    hint = did_you_mean(setting.value, known) or f"there is no {kind} in this revision; add one"
    yield at_origin(
        desired,
        setting.origin,
        f"reference/unknown-{field.replace('_', '-')}",
        f"there is no {kind} named '{setting.value}'",
        hint=hint,
    )


def at_origin(desired: DesiredState, origin: Origin, code: str, message: str, **rest: Any) -> Diagnostic:
    """Return a diagnostic that points at the value of an origin."""
    manifest = desired.manifests.get(f"{origin.kind}/{origin.name}")
    if manifest is None:
        return Diagnostic(code=code, message=message, **rest)
    return manifest.diagnostic(code, message, origin.pointer, **rest)


def _check_layers(desired: DesiredState) -> Iterator[Diagnostic]:
    layers = [desired.project_layer, *(rule.layer for rule in desired.rules)]
    layers += [flow.layer for flow in desired.flows.values()]
    layers += [job.own for flow in desired.flows.values() for job in flow.preview]
    for layer in layers:
        for field in ("worker", "exec_config"):
            if field in layer:
                yield from check_name(desired, field, layer[field])


def _check_workers(desired: DesiredState) -> Iterator[Diagnostic]:
    for name, spec in desired.workers.items():
        yield from _unsupported(desired, name, spec)
        default = worker_default(name, spec)
        if default is not None:
            yield from check_resources(desired, spec.scheduler_type, default, None)


def _unsupported(desired: DesiredState, name: str, spec: WorkerSpec) -> Iterator[Diagnostic]:
    manifest = desired.manifests.get(f"{Kind.WORKER}/{name}")
    if manifest is None:
        return
    if spec.type != "local":
        yield manifest.diagnostic(
            "worker/unsupported-type",
            f"worker '{name}' is {spec.type}; this version runs jobs on this machine only",
            "/spec/type",
            hint="use type: local",
        )
    if spec.scheduler_type not in SUPPORTED_SCHEDULERS:
        yield manifest.diagnostic(
            "worker/unsupported-scheduler",
            f"worker '{name}' uses {spec.scheduler_type}; this version runs jobs in a plain shell only",
            "/spec/scheduler_type",
            hint="use scheduler_type: shell",
        )


def check_resources(
    desired: DesiredState, scheduler: str, setting: Setting, worker: Setting | None
) -> Iterator[Diagnostic]:
    """Check resources against what the scheduler of the worker understands.

    ``worker`` is the setting that chose the worker, so that a conflict can name both lines.
    """
    resources = setting.value
    assert isinstance(resources, Resources)
    yield from _check_values(desired, setting, resources)
    if scheduler == "shell":
        yield from _check_shell(desired, setting, resources, worker)
    elif resources.generic:
        yield from _check_fields(desired, setting, resources.values, QRESOURCES_FIELDS, "QResources field")
        yield from _check_placement(desired, setting, resources.values)
    else:
        yield from _check_fields(
            desired, setting, resources.values, KEYWORDS[scheduler], f"{scheduler} keyword"
        )


def _check_values(desired: DesiredState, setting: Setting, resources: Resources) -> Iterator[Diagnostic]:
    for pointer, reason in unsafe_values(resources.values):
        origin = _below(setting.origin, pointer)
        yield at_origin(
            desired, origin, "resources/unsafe-value", f"the value of '{pointer[1:]}' {reason}",
            hint="give one plain value on one line",
        )  # fmt: skip
    for key in sorted(RESERVED & resources.values.keys()):
        yield _at_key(
            desired, setting, key, "resources/reserved",
            f"'{key}' is set by reconciler for every job: it finds a job again by its name and its files",
            hint=f"remove '{key}'",
        )  # fmt: skip


def _check_shell(
    desired: DesiredState, setting: Setting, resources: Resources, worker: Setting | None
) -> Iterator[Diagnostic]:
    asked = [key for key in resources.values if key not in KEYWORDS["shell"]]
    if not asked:
        return
    known_somewhere = frozenset[str]().union(*KEYWORDS.values(), QRESOURCES_FIELDS)
    unknown = [key for key in asked if key not in known_somewhere]
    if unknown:
        yield from _check_fields(
            desired, setting, dict.fromkeys(unknown), known_somewhere, "scheduler keyword"
        )
        return
    yield _shell_conflict(desired, setting, asked, worker)


def _shell_conflict(
    desired: DesiredState, setting: Setting, asked: list[str], worker: Setting | None
) -> Diagnostic:
    related: tuple[Related, ...] = ()
    name = setting.origin.name
    if worker is not None:
        name = str(worker.value)
        chosen = desired.locate(worker.origin)
        if chosen is not None:
            related = (Related(chosen, f"the shell worker '{name}' is chosen here"),)
    return at_origin(
        desired,
        setting.origin,
        "resources/shell-worker",
        f"worker '{name}' runs jobs in a plain shell, which cannot give {', '.join(sorted(asked))}",
        related=related,
        hint="set `resources: {}` for these jobs, or give them a worker with a scheduler",
    )


def _check_fields(
    desired: DesiredState, setting: Setting, values: dict[str, Any], known: frozenset[str], what: str
) -> Iterator[Diagnostic]:
    for key in values:
        if key not in known:
            yield _at_key(
                desired, setting, key, "resources/unknown-keyword", f"'{key}' is no {what}",
                hint=did_you_mean(key, known) or "known: " + ", ".join(sorted(known)),
            )  # fmt: skip


def _check_placement(desired: DesiredState, setting: Setting, values: dict[str, Any]) -> Iterator[Diagnostic]:
    """Qtoolkit takes QResources with `processes`, or with `nodes` and `processes_per_node`, or empty ones."""
    if not values or "process_placement" in values:
        return
    given = {key for key in ("processes", "nodes", "processes_per_node") if values.get(key)}
    if given not in ({"processes"}, {"nodes", "processes_per_node"}):
        yield at_origin(
            desired, setting.origin, "resources/placement",
            "qresources need either `processes`, or `nodes` together with `processes_per_node`",
            hint="or leave qresources empty: {}",
        )  # fmt: skip


def _at_key(
    desired: DesiredState, setting: Setting, key: str, code: str, message: str, **rest: Any
) -> Diagnostic:
    origin = _below(setting.origin, f"/{key}")
    manifest = desired.manifests.get(f"{origin.kind}/{origin.name}")
    if manifest is None:
        return Diagnostic(code=code, message=message, **rest)
    return manifest.diagnostic(code, message, origin.pointer, key=True, **rest)


def _below(origin: Origin, pointer: str) -> Origin:
    return Origin(origin.level, origin.kind, origin.name, origin.pointer + pointer)


def unique(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return the diagnostics without repetitions: many jobs share one wrong line."""
    seen: dict[tuple[object, ...], Diagnostic] = {}
    for diagnostic in diagnostics:
        seen.setdefault((diagnostic.code, diagnostic.location, diagnostic.message), diagnostic)
    return sorted(seen.values(), key=Diagnostic.sort_key)
