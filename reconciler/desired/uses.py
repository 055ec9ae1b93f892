"""What the documents of a revision ask of this machine, of its workers and of the user's secrets.

The policy of the user allows or refuses each of these: see :mod:`reconciler.model.policy`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from reconciler.desired.values import iter_directives
from reconciler.diagnostics import Diagnostic
from reconciler.model.connections import Connection, ConnectionOptions, HostKeyPolicy, Secret
from reconciler.model.manifests import Kind, Manifest, ProjectSpec, Prune, WorkerSpec
from reconciler.model.notifications import NotifyRule
from reconciler.model.policy import (
    LOCAL,
    REFUSED,
    SourceRules,
    Use,
    callable_use,
    exec_config_uses,
)


def manifest_uses(manifest: Manifest) -> Iterator[Use]:
    """Yield what a valid document asks for; nothing for a Flow, see :func:`flow_uses`."""
    match manifest.kind:
        case Kind.PROJECT:
            yield from _project_uses(manifest.spec)
        case Kind.WORKER:
            yield from _worker_uses(manifest)
        case Kind.EXEC_CONFIG:
            yield from exec_config_uses(manifest.spec, "/spec")


def refusals(rules: SourceRules | None, manifest: Manifest) -> list[Diagnostic]:
    """Return why the policy refuses a valid document; without a policy nothing is refused."""
    if rules is None:
        return []
    return [refusal(rules, manifest, use) for use in rules.refused(manifest_uses(manifest))]


def refusal(rules: SourceRules, manifest: Manifest, use: Use) -> Diagnostic:
    """Return the diagnostic of a use that the policy does not allow."""
    message = f"the policy does not allow {use.what}"
    return manifest.diagnostic(REFUSED, message, use.pointer, hint=rules.how_to_allow(use))


# The Project ------------------------------------------------------------------------------------------------


def _project_uses(spec: Mapping[str, Any]) -> Iterator[Use]:
    for number, directory in enumerate(spec.get("python_path", [])):
        what = f"code of the repository in '{directory}'"
        yield Use("python_path", directory, what, f"/spec/python_path/{number}")
    yield from environment_uses(spec, "/spec")
    yield from _jobstore_uses(spec.get("jobstore"), "/spec/jobstore")


def environment_uses(spec: Mapping[str, Any], pointer: str) -> Iterator[Use]:
    """Yield the use of ``build.env``: variables can make Python and packages load other code."""
    if spec.get("build", {}).get("env"):
        yield Use("features", "build_env", "variables of the build", f"{pointer}/build/env")


_TARGETS = ("uri", "host", "endpoint_url", "tunnel_server_address", "paths", "path", "bucket", "database")
"""Keys of a store that say where it is, in this order."""


def _jobstore_uses(value: Any, pointer: str, target: str = LOCAL) -> Iterator[Use]:
    """Yield each store of a job store as ``Class@place``, and the secrets that it gets."""
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _jobstore_uses(inner, f"{pointer}/{number}", target)
    if not isinstance(value, Mapping):
        return
    if value.keys() <= {"env", "file"} and len(value) == 1:
        yield _secret_use(Secret(**value), target, pointer)
        return
    kind = value.get("type", value.get("@class"))
    if kind is not None:
        found = next((value[key] for key in _TARGETS if key in value), LOCAL)
        target = _host_of(str(found[0] if isinstance(found, list) and found else found))
        yield Use("jobstores", f"{kind}@{target}", f"the job store {kind} at {target}", pointer)
    for key, inner in value.items():
        yield from _jobstore_uses(inner, f"{pointer}/{key}", target)


def _host_of(place: str) -> str:
    """Return the host of a URL, without credentials; other places stay as they are."""
    if "://" not in place:
        return place
    try:
        return urlsplit(place).hostname or place.partition("://")[2].rpartition("@")[2]
    except ValueError:
        return place.partition("://")[2].rpartition("@")[2]


def guard_uses(prune: str | None, pointer: str, max_prune: float | None = None) -> Iterator[Use]:
    """Yield what a Project or Flow says about the end of flows."""
    if prune is not None and prune != Prune.CANCEL:
        yield Use("prune", prune, f"'prune: {prune}'", f"{pointer}/prune")
    if max_prune is not None:
        yield Use("max_prune", max_prune, f"'max_prune: {max_prune:g}'", f"{pointer}/max_prune")


def notify_uses(rule: NotifyRule, pointer: str) -> Iterator[Use]:
    """Yield what a notify rule asks for: a command, a host with a secret, mail."""
    for name in ("command", "mail", "apprise"):
        if getattr(rule, name) is not None:
            yield Use("features", f"notify_{name}", f"notifications by {name}", f"{pointer}/{name}")
    if rule.webhook is not None:
        host = _host_of(rule.webhook.url)
        yield Use("hosts", host, f"the host '{host}'", f"{pointer}/webhook/url")
        if rule.webhook.secret is not None:
            yield _secret_use(rule.webhook.secret, host, f"{pointer}/webhook/secret")


def restricted(
    rules: SourceRules, manifest: Manifest, project: ProjectSpec
) -> tuple[ProjectSpec, list[Diagnostic]]:
    """Return the Project with the guards of the policy in place of looser ones, and what was refused.

    The policy is stricter in ``prune``, ``max_prune`` and ``notify``; the rest of the Project holds.
    """
    written = manifest.spec
    guards = [*guard_uses(written.get("prune"), "/spec", written.get("max_prune"))]
    refused = rules.refused(guards)
    if project.max_prune > rules.max_prune:
        project = msgspec.structs.replace(project, max_prune=rules.max_prune)
    if project.prune not in rules.prune:
        project = msgspec.structs.replace(project, prune=Prune.CANCEL)
    allowed = []
    for number, rule in enumerate(project.notify):
        wrong = rules.refused(notify_uses(rule, f"/spec/notify/{number}"))
        refused += wrong
        allowed += [] if wrong else [rule]
    project = msgspec.structs.replace(project, notify=allowed)
    return project, [refusal(rules, manifest, use) for use in refused]


# Workers ----------------------------------------------------------------------------------------------------


def _worker_uses(manifest: Manifest) -> Iterator[Use]:
    name, worker = manifest.name or "", msgspec.convert(manifest.spec, WorkerSpec)
    yield Use("workers", name, f"the worker '{name}'", "/metadata/name")
    if worker.connection is None:
        yield Use("hosts", LOCAL, "jobs on this machine", "/spec/type")
    else:
        yield from _connection_uses(worker, worker.host or "", "/spec")
    if worker.transfer is not None:
        yield from _connection_uses(worker.transfer, worker.transfer.host, "/spec/transfer")
    yield from exec_config_uses({"pre_run": worker.pre_run, "post_run": worker.post_run}, "/spec")
    if worker.python is not None:
        yield Use("features", "python", f"the interpreter '{worker.python}'", "/spec/python")


def _connection_uses(options: ConnectionOptions, host: str, pointer: str) -> Iterator[Use]:
    """Yield the host of a login, its gateways, and the secrets and files that it uses."""
    yield Use("hosts", host, f"the host '{host}'", f"{pointer}/host")
    for field in ("password", "passphrase"):
        secret = getattr(options, field)
        if secret is not None:
            yield _secret_use(secret, host, f"{pointer}/{field}")
    named = [("key_filename", path) for path in options.key_files]
    named += [(field, getattr(options, field)) for field in ("ssh_config", "known_hosts", "control_path")]
    for field, path in named:
        if path is not None:
            what = f"the file {path} for a login at '{host}'"
            yield Use("secrets", f"file:{path}", what, f"{pointer}/{field}", host)
    if options.forward_agent:
        what = f"'{host}' to use your SSH agent"
        yield Use("secrets", "agent", what, f"{pointer}/forward_agent", host)
    if options.host_key_policy is not HostKeyPolicy.STRICT:
        what = f"an unknown host key of '{host}'"
        yield Use("features", "accept_new_host_keys", what, f"{pointer}/host_key_policy")
    gateway: Connection | None = options.gateway
    if gateway is not None:
        yield from _connection_uses(gateway, gateway.host, f"{pointer}/gateway")


def _secret_use(secret: Secret, host: str, pointer: str) -> Use:
    value = f"env:{secret.env}" if secret.env is not None else f"file:{secret.file}"
    return Use("secrets", value, f"the secret {secret.spoken} for '{host}'", pointer, host)


# Flows ------------------------------------------------------------------------------------------------------


def flow_uses(spec: Mapping[str, Any]) -> Iterator[Use]:
    """Yield what the spec of a flow asks for; its references to Makers are already replaced."""
    for number, job in enumerate(spec.get("jobs") or []):
        at = f"/spec/jobs/{number}"
        if "function" in job:
            yield callable_use(job["function"], f"{at}/function")
        if "maker" in job:
            yield callable_use(job["maker"]["class"], f"{at}/maker/class", "maker")
    if spec.get("maker") is not None:
        yield callable_use(spec["maker"]["class"], "/spec/maker/class", "maker")
    if spec.get("factory") is not None:
        yield callable_use(spec["factory"]["function"], "/spec/factory/function", "factory")
    for at, directive, value in iter_directives(spec, "/spec"):
        if directive == "$call":
            yield callable_use(str(value), f"{at}/$call")
        elif directive == "$maker":
            yield callable_use(str(value["class"]), f"{at}/$maker/class", "maker")
    yield from environment_uses(spec, "/spec")
    yield from guard_uses(spec.get("prune"), "/spec")
