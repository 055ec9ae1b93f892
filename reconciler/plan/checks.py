"""Checks of run configs and workers, made when planning so that no job has to fail first.

Every diagnostic names the line that set the value; where two values do not fit together, both lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.diagnostics import Diagnostic, did_you_mean
from reconciler.model.connections import CONNECTION_FIELDS, Connection
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.manifests import Kind, Manifest, WorkerSpec
from reconciler.model.run_config import FIELDS, RunConfig, value_problem
from reconciler.model.schedulers import SCHEDULERS
from reconciler.model.settings import Layer, Level, Origin, Resources, Setting
from reconciler.plan.policy import refused_config, refused_settings
from reconciler.plan.resources import at_origin, check_in_batch, check_resources, check_words
from reconciler.plan.retries import check_policy, check_retries


def worker_defaults(desired: DesiredState) -> dict[str, Setting]:
    """Return the weakest level of a run config: the default resources of each worker that has some.

    Those of a batch worker are for its allocations.
    """
    found = {name: worker_default(name, spec) for name, spec in desired.workers.items() if spec.batch is None}
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
    """Check the revision as a whole: every name and keyword that occurs in it, and every worker."""
    return unique([*_check_layers(desired), *_check_workers(desired)])


def check_config(desired: DesiredState, flow: DesiredFlow, config: RunConfig) -> list[Diagnostic]:
    """Check one effective run config: names, scheduler keywords, shell worker with resources, retries."""
    if config.worker is None:
        return [_no_worker(flow)]
    impossible = [*_impossible_values(desired, config)]
    if impossible:
        return impossible
    found = [*check_name(desired, "worker", config.worker)]
    if config.exec_config is not None:
        found += check_name(desired, "exec_config", config.exec_config)
    spec = desired.workers.get(config.worker_name)
    if spec is not None:
        found += check_worker(desired, config.worker_name, spec)
        if config.resources is not None:
            found += check_resources(desired, spec.scheduler_type, config.resources, config.worker)
            if spec.batch is not None:
                found += check_in_batch(desired, config.worker_name, spec, config.resources)
        found += check_retries(desired, spec.scheduler_type, config)
    found += refused_config(desired, config)
    return found


def _no_worker(flow: DesiredFlow) -> Diagnostic:
    return flow.manifest.diagnostic(
        "run-config/no-worker",
        f"flow '{flow.name}' has no worker: neither a rule, a job, the flow nor the project sets one",
        "/metadata/name",
        hint="set spec.worker in the flow, or spec.defaults.worker in the Project",
    )


def _impossible_values(desired: DesiredState, config: RunConfig) -> Iterator[Diagnostic]:
    """Check what no schema has checked: values that Python code sets."""
    for field in FIELDS:
        setting = config.setting(field)
        problem = value_problem(field, setting.value) if setting is not None else None
        if setting is not None and problem is not None:
            shown = repr(setting.shown)
            message = f"{field} cannot be {shown if len(shown) <= 80 else f'{shown[:77]}...'}"
            yield at_origin(desired, setting.origin, "run-config/invalid", message, hint=problem)


def check_name(desired: DesiredState, field: str, setting: Setting) -> Iterator[Diagnostic]:
    """Check that the worker or exec_config that a setting names exists."""
    if not isinstance(setting.value, str):
        return
    known: Iterable[str] = desired.workers if field == "worker" else desired.exec_configs
    if setting.value in known:
        return
    kind = Kind.WORKER if field == "worker" else Kind.EXEC_CONFIG
    message = f"there is no {kind} named '{setting.value}'"
    hint = did_you_mean(setting.value, known) or f"there is no {kind} in this revision; add one"
    if (reason := desired.unusable.get(f"{kind}/{setting.value}")) is not None:
        message, hint = f"{kind} '{setting.value}' cannot be used: {reason}", "correct that document first"
    elif (reason := desired.unusable.get(f"{kind}/")) is not None:
        hint = f"it may be defined in a file that has errors: {reason}"
    yield at_origin(
        desired, setting.origin, f"reference/unknown-{field.replace('_', '-')}", message, hint=hint
    )


def _check_layers(desired: DesiredState) -> Iterator[Diagnostic]:
    """Check every level, also a rule that matches only jobs that are yet to be generated."""
    for layer in _layers(desired):
        for field in ("worker", "exec_config"):
            if field in layer:
                yield from check_name(desired, field, layer[field])
        if "resources" in layer:
            yield from check_words(desired, layer["resources"])
        if "retries" in layer:
            yield from check_policy(desired, layer["retries"])
        yield from refused_settings(desired, layer)


def _layers(desired: DesiredState) -> Iterator[Layer]:
    yield desired.project_layer
    yield from (rule.layer for rule in desired.rules)
    for flow in desired.flows.values():
        yield flow.layer
        yield from (job.own for job in (flow.entries or flow.preview) if job.own)


def _check_workers(desired: DesiredState) -> Iterator[Diagnostic]:
    for name, spec in desired.workers.items():
        yield from check_worker(desired, name, spec)
        default = worker_default(name, spec)
        if default is not None:
            yield from check_resources(desired, spec.scheduler_type, default, None)


def check_worker(desired: DesiredState, name: str, spec: WorkerSpec) -> Iterator[Diagnostic]:
    """Check that a remote worker has a host, that a local one has no connection, and its work_dir."""
    manifest = desired.manifests.get(f"{Kind.WORKER}/{name}")
    if manifest is None:
        return
    if spec.type == "local":
        yield from _local_with_connection(manifest, name)
    elif spec.host is None:
        yield manifest.diagnostic(
            "worker/no-host",
            f"worker '{name}' is remote but has no host",
            "/spec/type",
            hint="add 'host: login.example.org', or use type: local",
        )
    if spec.batch is not None and spec.max_jobs is None:
        yield manifest.diagnostic(
            "worker/batch-without-limit",
            f"batch worker '{name}' has no max_jobs, so nothing limits the number of its allocations",
            "/spec/batch",
            key=True,
            hint="add 'max_jobs: 1' to have one allocation at a time, or the number that your site allows",
        )
    yield from _masters_on_the_way(manifest, spec)
    scheduler = SCHEDULERS[spec.scheduler_type]
    odd = sorted(set(scheduler.unsafe_in_paths) & set(spec.work_dir))
    if odd:
        yield manifest.diagnostic(
            "worker/work-dir",
            f"{scheduler.title} reads '{odd[0]}' in the directory of a job as the beginning of a pattern",
            "/spec/work_dir",
            hint=f"use a work_dir without '{odd[0]}'",
        )


def _local_with_connection(manifest: Manifest, name: str) -> Iterator[Diagnostic]:
    for field in (*CONNECTION_FIELDS, "transfer"):
        if field in manifest.spec:
            yield manifest.diagnostic(
                "worker/local-connection",
                f"worker '{name}' is local and has no connection: '{field}' has no meaning here",
                f"/spec/{field}",
                key=True,
                hint=f"use type: remote, or remove '{field}'",
            )


def _masters_on_the_way(manifest: Manifest, spec: WorkerSpec) -> Iterator[Diagnostic]:
    """Check that gateways and master connections are not mixed: a master is the user's own connection."""
    ways = (("", spec), ("/transfer", spec.transfer))
    for start, way in ways:
        if way is None or way.gateway is None:
            continue
        gateway: Connection | None = way.gateway
        if way.control_path is not None:
            yield _wrong_master(
                manifest, f"/spec{start}/gateway", "'gateway' and 'control_path' exclude each other"
            )
            continue
        pointer = f"/spec{start}/gateway"
        while gateway is not None:
            if gateway.control_path is not None:
                yield _wrong_master(manifest, f"{pointer}/control_path", "a gateway has no 'control_path'")
            gateway, pointer = gateway.gateway, f"{pointer}/gateway"


def _wrong_master(manifest: Manifest, pointer: str, message: str) -> Diagnostic:
    hint = "open the master connection over the gateway (ssh -J), and give the worker its control_path only"
    return manifest.diagnostic("worker/control-path", message, pointer, key=True, hint=hint)


def unique(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return each diagnostic once, by place: many jobs share one wrong line.

    An unknown keyword is reported once for a place, although each scheduler may report it.
    """
    seen: dict[tuple[object, ...], Diagnostic] = {}
    for diagnostic in diagnostics:
        message = "" if diagnostic.code.endswith("/unknown-keyword") else diagnostic.message
        seen.setdefault((diagnostic.code, diagnostic.location, message), diagnostic)
    return sorted(seen.values(), key=Diagnostic.sort_key)
