"""Checks of jobs that Python code makes: in a factory, in a serialised flow, or at run time.

Manifests are checked against their schema; this is the same for the JSON of a jobflow Job. A job that fails
the check fails the build of its flow or, if it was generated at run time, is FAILED itself. Works without
jobflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from reconciler.desired.flows import RUN_CONFIG_KEYS
from reconciler.desired.validation import checked_document
from reconciler.desired.yaml.builder import RawDocument
from reconciler.diagnostics import did_you_mean
from reconciler.jobs.job_json import additional_stores, is_uuid
from reconciler.model.applied import AppliedConfig
from reconciler.model.manifests import API_VERSION, Kind, Mark
from reconciler.model.policy import SourceRules, Use, callable_use, decoded_names
from reconciler.model.run_config import RunConfig, as_priority
from reconciler.plan.policy import layer_of_config, layer_uses, request_uses

HIGHEST_INDEX = 1_000_000
"""The highest index of a job: it counts how often a job has replaced itself."""

_LONGEST_NAME = 1000
_ON_MISSING = ("error", "none", "pass")


class JobRefusedError(ValueError):
    """A job cannot be taken as Python code made it; the text says why."""


class CheckedJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the records of a job need of its JSON.

    ``function`` is the dotted path, ``own`` the job's own run config with the keys of a manifest, ``stores``
    the additional stores that it writes to.
    """

    name: str
    function: str
    on_missing: str
    own: dict[str, Any]
    hosts: list[str]
    stores: list[str]


def payload_uses(payload: bytes | Mapping[str, Any]) -> Iterator[Use]:
    """Yield what Python imports to run a job, by its JSON: its function and its serialised data."""
    data = msgspec.json.decode(payload) if isinstance(payload, bytes) else payload
    for pointer, name in decoded_names(data):
        yield callable_use(name, kind="function" if pointer == "/function" else "object")


def check_policy(rules: SourceRules | None, payload: Mapping[str, Any]) -> None:
    """Require that the policy of the user allows all that a generated job names.

    Raises
    ------
    JobRefusedError
        It does not; the text has the line that would allow it.
    """
    refused = rules.refused(payload_uses(payload)) if rules is not None else []
    if rules is not None and refused:
        raise JobRefusedError(f"the policy does not allow {refused[0].what}; {rules.how_to_allow(*refused)}")


def config_problem(applied: AppliedConfig, config: RunConfig) -> str | None:
    """Return why the policy refuses the run config of a generated job; None if it does not."""
    rules, worker = applied.policy, applied.workers.get(config.worker_name)
    if rules is None:
        return None
    uses = [use for _, use in layer_uses(layer_of_config(config))]
    refused = rules.refused([*uses, *(request_uses(config, worker) if worker is not None else ())])
    if not refused:
        return None
    return f"the policy does not allow {refused[0].what}; {rules.how_to_allow(*refused)}"


def check_identity(payload: Mapping[str, Any]) -> tuple[str, int]:
    """Return uuid and index of a job. They become part of paths and keys.

    Raises
    ------
    JobRefusedError
        They are not of a form that can.
    """
    uuid, index = payload.get("uuid"), payload.get("index")
    if not is_uuid(uuid):
        raise JobRefusedError(f"its uuid {shown(uuid)} is not a uuid: letters, digits and '-', 64 at most")
    if not isinstance(index, int) or isinstance(index, bool) or not 1 <= index <= HIGHEST_INDEX:
        raise JobRefusedError(f"its index {shown(index)} is not an integer from 1 to {HIGHEST_INDEX}")
    return str(uuid), index


def check_job(payload: Mapping[str, Any]) -> CheckedJob:
    """Return what records need of the JSON of a job.

    Raises
    ------
    JobRefusedError
        A part of it is not as jobflow makes it, or its run config is impossible.
    """
    function = payload.get("function")
    callable_ = function if isinstance(function, dict) else {}
    parts: list[Any] = [callable_.get("@module"), callable_.get("@callable")]
    if not all(isinstance(part, str) and 0 < len(part) <= _LONGEST_NAME for part in parts):
        raise JobRefusedError(f"its function {shown(function)} is not a reference to a callable")
    name = clean_name(str(payload.get("name") or parts[1]))
    if len(name) > _LONGEST_NAME:
        raise JobRefusedError(f"its name has {len(name)} characters; the limit is {_LONGEST_NAME}")
    for key, kind in (("function_args", list), ("function_kwargs", dict)):
        if not isinstance(payload.get(key), kind):
            raise JobRefusedError(f"its {key} {shown(payload.get(key))} are not a {kind.__name__}")
    config = payload.get("config") or {}
    if not isinstance(config, dict):
        raise JobRefusedError(f"its config {shown(config)} is not a mapping")
    on_missing = config.get("on_missing_references") or "error"
    if on_missing not in _ON_MISSING:
        raise JobRefusedError(
            f"its on_missing_references {shown(on_missing)} is not one of {', '.join(_ON_MISSING)}"
        )
    hosts = payload.get("hosts") or []
    return CheckedJob(
        name=name,
        function=clean_name(".".join(parts)),
        on_missing=on_missing,
        own=run_config_from_python(config.get("manager_config")),
        hosts=[host for host in hosts if isinstance(host, str)] if isinstance(hosts, list) else [],
        stores=additional_stores(payload),
    )


def run_config_from_python(manager_config: Any) -> dict[str, Any]:
    """Return the run config of a ``manager_config``, with the keys and values that a manifest has.

    Values are taken as jobflow-remote takes them: ``5.0`` and ``"5"`` are the priority 5, None is absent, and
    resources are a mapping of the scheduler's own keywords or a serialised QResources, which become
    ``qresources``. Keys for other managers are passed over.

    Raises
    ------
    JobRefusedError
        A manifest could not have this value, or a key is almost one of a run config.
    """
    if manager_config is None:
        return {}
    if not isinstance(manager_config, dict):
        raise JobRefusedError(f"its manager_config {shown(manager_config)} is not a mapping")
    own: dict[str, Any] = {}
    for key, value in manager_config.items():
        if key not in RUN_CONFIG_KEYS:
            guess = did_you_mean(key, RUN_CONFIG_KEYS) if not key.startswith(("_", "@")) else None
            if guess:
                raise JobRefusedError(f"'{key}' is not a key of the run config: {guess}")
        elif value is not None:
            own[key] = value
    if "priority" in own:
        priority = as_priority(own["priority"])
        own["priority"] = own["priority"] if priority is None else priority
    if isinstance(own.get("exec_config"), dict):
        own["exec_config"] = _without_monty(own["exec_config"])
    if isinstance(own.get("resources"), dict):
        generic = own["resources"].get("@class") == "QResources"
        resources = _without_monty(own["resources"])
        if generic:
            del own["resources"]
            if "qresources" in own:
                raise JobRefusedError(
                    "'resources' is a QResources, so 'qresources' must not be given as well"
                )
            own["qresources"] = {key: value for key, value in resources.items() if value != {}}
        else:
            own["resources"] = resources
    qresources = own.get("qresources")
    if isinstance(qresources, dict):
        own["qresources"] = qresources = _without_monty(qresources)
        placement = qresources.get("process_placement")
        if isinstance(placement, dict) and placement.get("@class") == "ProcessPlacement":
            qresources["process_placement"] = placement.get("value")
    problem = _schema_problem(own)
    if problem is not None:
        raise JobRefusedError(problem)
    return own


def _without_monty(value: dict[str, Any]) -> dict[str, Any]:
    """Return a serialised object as a plain mapping: without monty's keys and without absent values."""
    return {key: one for key, one in value.items() if not key.startswith("@") and one is not None}


def _schema_problem(own: dict[str, Any]) -> str | None:
    """Return why a manifest with this run config would be invalid; None if it would be valid."""
    if not own:
        return None
    job = {"id": "job", "function": "module.function", **own}
    head = {"apiVersion": API_VERSION, "kind": str(Kind.FLOW), "metadata": {"name": "flow"}}
    content = {**head, "spec": {"jobs": [job]}}
    raw = RawDocument()
    raw.content, raw.marks, raw.lines = content, {"": Mark(1, 1, 1, 1)}, [""]
    raw.raws = dict(_scalars(own, "/spec/jobs/0"))
    _, problems = checked_document(raw)
    problem = next((one for one in problems if one.is_error), None)
    if problem is None:
        return None
    message = problem.message.replace("spec.jobs[0].", "").replace("spec.jobs[0]", "manager_config")
    return clean_name(f"{message} ({problem.hint})" if problem.hint else message)


def _scalars(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """Yield (pointer, text) of all plain values that are not strings, as a manifest would have them."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _scalars(inner, f"{pointer}/{key}")
    elif not isinstance(value, str):
        yield pointer, str(value)


def clean_name(text: str) -> str:
    r"""Return a name on one line: what cannot be printed or encoded becomes an escape such as ``\x0a``."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shown(value: Any) -> str:
    """Return a value of any type as a short text on one line."""
    text = clean_name(repr(value)[:200])
    return text if len(text) <= 80 else f"{text[:77]}..."
