"""The project file of jobflow-remote as manifests, with a comment for each field without a counterpart.

The fields are those of ``jobflow_remote.config.base`` in jobflow-remote 1.0.1. Secrets are never copied: a
manifest says where reconciler finds them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.desired.values import is_name
from reconciler.desired.yaml.writer import dump
from reconciler.model.manifests import Kind
from reconciler.model.schedulers import SCHEDULERS
from reconciler.model.schedulers.generic import QRESOURCES_FIELDS

_SECRET = re.compile(
    r"passw|passphrase|secret|token|credential|access_key|private_key|api_?key", re.IGNORECASE
)
_IN_URI = re.compile(r"//[^/@\s]*:[^/@\s]*@")
_NO_COUNTERPART = "it has no counterpart"

_WORKER = {
    "execution_cmd": "jobs run in the Python that `python` names; start a container in `pre_run`",
    "delay_download": "a result counts when it is complete, so no delay is needed",
}
_SSH = {
    "connect_kwargs": "write what you need into an ssh_config, which `ssh_config` can name",
    "inline_ssh_env": "set variables with an ExecConfig",
    "shell_cmd": "the shell is always bash",
    "interactive_login": "log in with OpenSSH yourself, and name its socket in `control_path`",
}
_BATCH = {
    "jobs_handle_dir": "reconciler keeps its tickets in the work_dir",
    "work_dir": "reconciler keeps allocations in the work_dir of the worker",
    "sleep_time": "agents watch the tickets, so no pause is needed",
}
_PROJECT = {
    "base_dir": "the state is in ~/.local/state/reconciler, or where --state-dir says",
    "tmp_dir": "no temporary files are kept",
    "log_dir": "`reconcile watch --log-file FILE`, or the journal of systemd",
    "daemon_dir": "the daemon is one process, which systemd can keep",
    "log_level": "the option -v prints more, -q less",
    "runner": "a worker has `poll_interval`, the run config `retries`; the daemon needs no other options",
    "queue": "there is no queue database: jobs come from git, and their records are in the state",
    "remote_jobstore": "results travel with the connection to the worker",
    "optional_jobstores": "there is one JobStore, with additional stores",
    "metadata": "set labels in the metadata of flows",
}


class Translation:
    """The manifests for a project, by path, and what to look at by hand.

    ``environment`` are the variables that must have the secrets when reconciler runs.
    """

    def __init__(self, project: Mapping[str, Any]) -> None:
        self.documents: dict[str, str] = {}
        self.environment: dict[str, str] = {}
        self.remarks: list[str] = []
        workers, configs = (_mappings(project.get(key)) for key in ("workers", "exec_config"))
        names = {name: self._name(name, "worker") for name in workers}
        for name, fields in workers.items():
            lines = list(self._worker(fields, names[name]))
            self._add(f"workers/{names[name]}.yaml", Kind.WORKER, names[name], lines)
        for name, fields in configs.items():
            known = self._name(name, "exec_config")
            self._add(f"exec_configs/{known}.yaml", Kind.EXEC_CONFIG, known, list(self._exec_config(fields)))
        lines = list(self._project(project, list(names.values())))
        name = self._name(str(project.get("name") or "project"), "project")
        self._add("reconciler.yaml", Kind.PROJECT, name, lines)

    def _add(self, path: str, kind: Kind, name: str, spec: list[str]) -> None:
        head = ["apiVersion: reconciler/v1", f"kind: {kind}", f"metadata: {{name: {dump(name).strip()}}}"]
        written = any(not line.lstrip().startswith("#") for line in spec)
        body = ["spec:", *(f"  {line}".rstrip() for line in spec)] if written else [
            *(f"# {line.lstrip('# ')}" for line in spec), "spec: {}",
        ]  # fmt: skip
        self.documents[path] = "\n".join([*head, *body]) + "\n"

    def _name(self, name: str, what: str) -> str:
        """Return a name that a manifest can have."""
        if is_name(name):
            return name
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or what
        self.remarks.append(f"the {what} '{name}' is called '{plain}' now: names have no other characters")
        return plain

    def _secret(self, *parts: str) -> dict[str, str]:
        """Return where a secret is from now on."""
        name = re.sub(r"\W", "_", "_".join(parts), flags=re.ASCII).upper()
        name = name if name[0].isalpha() else f"_{name}"
        while self.environment.get(name, place := ".".join(parts)) != place:
            name += "_"
        self.environment[name] = place
        return {"env": name}

    # kinds ---------------------------------------------------------------------------------------------

    def _worker(self, fields: Mapping[str, Any], name: str) -> Iterator[str]:
        kind = fields.get("type", "local")
        remote = kind != "local"
        yield from _entry("type", "remote" if remote else "local")
        scheduler = fields.get("scheduler_type")
        if isinstance(scheduler, Mapping):
            known = str(scheduler.get("@class", "")).removesuffix("IO").lower()
            yield from _comment("scheduler_type", scheduler, "a scheduler class of your own is not supported")
            scheduler = known if known in SCHEDULERS else None
        if scheduler is not None:
            yield from _entry("scheduler_type", scheduler)
        done = {"type", "scheduler_type"}
        for key in ("work_dir", "timeout_execute", "scheduler_username", "pre_run", "post_run"):
            done.add(key)
            if fields.get(key) is not None:
                yield from _entry(key, str(fields[key]) if key == "work_dir" else fields[key])
        if remote:
            yield from self._connection(fields, name)
            done |= {*_CONNECTION, *_SSH, "gateway", "password", "passphrase", *_WORKER_CONNECTION}
        if kind == "separated_transfer" and isinstance(fields.get("transfer"), Mapping):
            done.add("transfer")
            yield from _nested("transfer", list(self._connection(fields["transfer"], name, "transfer")))
        resources = fields.get("resources")
        done.add("resources")
        if isinstance(resources, Mapping) and resources:
            plain = {
                str(key): value
                for key, value in resources.items()
                if not str(key).startswith("@") and value is not None
            }
            generic = resources.get("@class") == "QResources" or plain.keys() <= QRESOURCES_FIELDS
            if generic:
                yield "# jobflow-remote reads a mapping with these keys as QResources"
            yield from _entry("qresources" if generic else "resources", plain)
        yield from self._limits(fields)
        done |= {"max_jobs", "batch"}
        if fields.get("sanitize_command"):
            yield from _comment(
                "sanitize_command", True, "the output of login files is always removed", needed=False
            )
        done.add("sanitize_command")
        yield from _left(fields, done, _WORKER | ({} if remote else _SSH))

    def _limits(self, fields: Mapping[str, Any]) -> Iterator[str]:
        limit, batch = fields.get("max_jobs"), fields.get("batch")
        if limit == 0:
            yield from _comment("max_jobs", 0, "no limit, as if it were left out")
        if limit:
            yield from _entry("max_jobs", limit)
        elif batch is not None:
            yield "# A batch worker needs the number of its allocations; jobflow-remote had no limit here"
            yield from _entry("max_jobs", 1)
        if isinstance(batch, Mapping):
            known = ("parallel_jobs", "max_jobs_per_batch", "max_wait", "max_time")
            lines = [line for key in known if batch.get(key) is not None for line in _entry(key, batch[key])]
            yield from _nested("batch", [*lines, *_left(batch, set(known), _BATCH)])

    def _connection(self, fields: Mapping[str, Any], name: str, *inside: str) -> Iterator[str]:
        """Yield the fields of a connection: of a worker, of its transfer host, or of a gateway."""
        for key in _CONNECTION if inside else (*_CONNECTION, *_WORKER_CONNECTION):
            if fields.get(key) is not None:
                yield from _entry(key, fields[key])
        for key in ("password", "passphrase"):
            if fields.get(key) is not None:
                yield f"# {key}: a secret, which is not copied: reconciler reads it from this variable"
                yield from _entry(key, self._secret(name, *inside, key))
        gateway = fields.get("gateway")
        if isinstance(gateway, Mapping):
            yield from _nested("gateway", list(self._connection(gateway, name, *inside, "gateway")))
        elif gateway is not None:
            yield from _comment("gateway", gateway, "write this command as ProxyCommand into an ssh_config")
        for key, why in _SSH.items():
            value = fields.get(key)
            if value and not (key == "shell_cmd" and value == "bash"):
                shown = sorted(value) if key == "connect_kwargs" and isinstance(value, Mapping) else value
                yield from _comment(key, shown, why)
        if inside:
            known = {*_CONNECTION, *_SSH, "password", "passphrase", "gateway"}
            yield from _left(fields, known, {})

    def _exec_config(self, fields: Mapping[str, Any]) -> Iterator[str]:
        if fields.get("modules"):
            yield from _entry("modules", [str(module) for module in fields["modules"]])
        if fields.get("export"):
            exported = {str(key): str(value) for key, value in fields["export"].items()}
            secret = {key for key in exported if _SECRET.search(key)}
            if secret:
                names = ", ".join(sorted(secret))
                yield f"# {names}: not taken over, as they may be secrets: set them on the worker"
            exported = {key: value for key, value in exported.items() if key not in secret}
            if exported:
                yield from _entry("export", exported)
            if any("$" in value or "`" in value for value in exported.values()):
                yield "# jobflow-remote lets the shell expand these values"
                yield from _entry("expand", True)
        for key in ("pre_run", "post_run"):
            if fields.get(key):
                yield from _entry(key, fields[key])
        yield from _left(fields, {"modules", "export", "pre_run", "post_run"}, {})

    def _project(self, project: Mapping[str, Any], workers: list[str]) -> Iterator[str]:
        if workers:
            yield "# jobflow-remote takes the first worker where nothing names one"
            yield from _entry("defaults", {"worker": workers[0]})
        jobstore = project.get("jobstore")
        memory = (
            isinstance(jobstore, Mapping) and (jobstore.get("docs_store") or {}).get("type") == "MemoryStore"
        )
        if memory:
            yield from _comment(
                "jobstore", jobstore, "outputs are kept in the state, which needs no database"
            )
        elif jobstore:
            yield "# Without a jobstore, outputs are kept in the state, and no database is needed"
            yield from _entry("jobstore", self._without_secrets(jobstore, "jobstore"))
        yield from _left(project, {"name", "workers", "exec_config", "jobstore"}, _PROJECT)

    def _without_secrets(self, value: Any, *place: str) -> Any:
        if isinstance(value, Mapping):
            return {
                str(key): self._secret(*place, str(key))
                if _is_secret(str(key), inner)
                else self._without_secrets(inner, *place, str(key))
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self._without_secrets(inner, *place, str(n)) for n, inner in enumerate(value)]
        return value if value is None or isinstance(value, bool | int | float) else str(value)


_CONNECTION = ("host", "user", "port", "key_filename")
_WORKER_CONNECTION = ("forward_agent", "connect_timeout", "keepalive", "login_shell")


def _is_secret(key: str, value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    return bool(_SECRET.search(key) or _IN_URI.search(value))


def _mappings(value: Any) -> dict[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        return {}
    return {str(key): inner if isinstance(inner, Mapping) else {} for key, inner in value.items()}


def _entry(key: str, value: Any) -> list[str]:
    return dump({key: value}).splitlines()


def _nested(key: str, lines: list[str]) -> Iterator[str]:
    """Yield a mapping with comments in it."""
    if any(not line.lstrip().startswith("#") for line in lines):
        yield f"{key}:"
        yield from (f"  {line}" for line in lines)
    else:
        yield f"{key}: {{}}"
        yield from lines


def _left(fields: Mapping[str, Any], done: set[str], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield a comment for each field that has no counterpart."""
    for key, value in fields.items():
        if key not in done and value is not None:
            yield from _comment(key, value, reasons.get(key, _NO_COUNTERPART))


def _comment(key: str, value: Any, why: str, *, needed: bool = True) -> Iterator[str]:
    shown = json.dumps(_shown(value), default=str)
    shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."
    yield f"# {json.dumps(key)[1:-1]}: {shown}   <- {'not taken over' if needed else 'not needed'}: {why}"


_LONGEST = 100


def _shown(value: Any) -> Any:
    """Return a value without secrets, for a comment."""
    if isinstance(value, Mapping):
        return {
            str(key): "..." if _is_secret(str(key), inner) else _shown(inner) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    return _IN_URI.sub("//...@", value) if isinstance(value, str) else value
