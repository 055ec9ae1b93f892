"""Is what a run config asks for possible? Checked when planning, not when the job fails.

Every check returns diagnostics that name the line that chose the value; where two values do not fit
together, both lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.diagnostics import Diagnostic, did_you_mean
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.manifests import Kind, WorkerSpec
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Layer, Level, Origin, Resources, Setting
from reconciler.plan.resources import at_origin, check_resources, check_words

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
    """Check what holds for the revision as a whole: every name and keyword that is given, every worker."""
    return unique([*_check_layers(desired), *_check_workers(desired)])


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


def _check_layers(desired: DesiredState) -> Iterator[Diagnostic]:
    """Whatever it matches, also if that is only a job that will be generated one day."""
    for layer in _layers(desired):
        for field in ("worker", "exec_config"):
            if field in layer:
                yield from check_name(desired, field, layer[field])
        if "resources" in layer:
            yield from check_words(desired, layer["resources"])


def _layers(desired: DesiredState) -> Iterator[Layer]:
    yield desired.project_layer
    yield from (rule.layer for rule in desired.rules)
    for flow in desired.flows.values():
        yield flow.layer
        yield from (job.own for job in flow.preview if job.own)


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


def unique(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return the diagnostics without repetitions, by place: many jobs share one wrong line.

    Of an unknown keyword the first is kept, since every scheduler has something to say about it.
    """
    seen: dict[tuple[object, ...], Diagnostic] = {}
    for diagnostic in diagnostics:
        message = "" if diagnostic.code == "resources/unknown-keyword" else diagnostic.message
        seen.setdefault((diagnostic.code, diagnostic.location, message), diagnostic)
    return sorted(seen.values(), key=Diagnostic.sort_key)
