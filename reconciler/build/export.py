"""``reconciler.export``: a flow that was made in Python becomes a manifest that builds to the same jobs."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from jobflow import Flow, Job, JobConfig, Maker
from jobflow.core.reference import OutputReference
from monty.json import MontyEncoder

from reconciler.build.construct import Construction, jobs_in
from reconciler.build.identity import identify
from reconciler.build.round_trip import PayloadError, check_payload
from reconciler.build.user_code import BuildError
from reconciler.desired.documents import PROJECT_FILES
from reconciler.desired.flows import RUN_CONFIG_KEYS, build_form
from reconciler.desired.values import is_name
from reconciler.desired.yaml.reader import parse_file
from reconciler.desired.yaml.writer import WIDTH, flow_text
from reconciler.diagnostics import Severity, did_you_mean
from reconciler.errors import InputError, RefusedError, WorldError
from reconciler.files import write_atomically
from reconciler.model.flows import flow_identity
from reconciler.model.manifests import FlowSpec, Kind, ProjectSpec

_STEP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INDEX_LIMIT = 10**9
_QUOTED_DIRECTIVE = re.compile(r'"(\$[a-z]+)":')
"""Within text, quotes have a backslash before them."""


class _UnreadableError(Exception):
    """The ``jobs:`` form cannot say this; the message says what, for the comment in the manifest."""


def export(
    flow: Flow | Job | Sequence[Job],
    path: str | Path,
    *,
    name: str,
    labels: Mapping[str, str] | None = None,
    **run_config: Any,
) -> Path:
    """Write the manifest of a flow, and return its path.

    It lists the jobs where that is possible; else it is of the ``file:`` form, with the serialised flow in a
    file beside it, and a comment says why. Objects among the arguments become files as well, which ``$load``
    reads. What is written has been built, and gives the same jobs with the same uuids as ``flow`` itself.

    ``path`` is the folder of a campaign, a folder in it, or the YAML file to write. ``run_config`` is that of
    the flow: ``worker``, ``exec_config``, ``resources``, ``qresources``, ``priority``, ``retries``.

    Raises
    ------
    InputError
        The flow cannot be written: a function is defined in the notebook, a value cannot be serialised, an
        option is wrong, or the path is not in a campaign.
    RefusedError
        The file exists and is not the manifest of this flow.
    """
    if not is_name(name):
        raise InputError(
            f"'{name}' cannot be the name of a flow", hint="use letters, digits, '.', '_' and '-'"
        )
    unknown = next((key for key in run_config if key not in RUN_CONFIG_KEYS), None)
    if unknown is not None:
        raise InputError(
            f"'{unknown}' is not a part of the run config", hint=did_you_mean(unknown, RUN_CONFIG_KEYS)
        )
    root, manifest = _target(Path(path).expanduser(), name)
    try:
        made = copy.deepcopy(flow)  # to identify jobs makes them part of a flow
        if not isinstance(made, Flow):
            made = Flow(made if isinstance(made, Job) else list(made), name=name)
        _check_jobs(made)
        wanted = _facts(made, name)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the flow cannot be written: {error}",
            hint="pass numbers, text, lists, mappings, arrays, or objects that are MSONable",
        ) from error
    metadata = {"name": name, **({"labels": dict(labels)} if labels else {})}
    head = ["apiVersion: reconciler/v1", f"kind: {Kind.FLOW}", *_lines("metadata", metadata, 0), "spec:"]
    for key, value in run_config.items():
        head += _lines(key, value, 2)
    folder = manifest.parent.relative_to(root) / name
    try:
        jobs, files, comment = _as_jobs(made, folder, name)
        lines = [*comment, *head, "  jobs:"]
        for job in jobs:
            entry = [line for key, value in job.items() for line in _lines(key, value, 6)]
            lines += [f"    - {entry[0].strip()}", *entry[1:]]
        text = "\n".join(lines) + "\n"
        _check(text, files, name, wanted)
    except _UnreadableError as why:
        data = json.dumps(made.as_dict(), cls=MontyEncoder, indent=1).encode()
        files = {f"{folder}.json": data}
        said = "".join(filter(str.isprintable, " ".join(str(why).split())[:300]))
        reason = f"# Not as a list of jobs, because {said}."
        text = "\n".join([reason, *head, *_lines("file", f"{folder}.json", 2)]) + "\n"
        try:
            _check(text, files, name, wanted)
        except _UnreadableError as error:
            raise InputError(
                f"the flow cannot be written: as a list of jobs, {why}; as a file, {error}",
                hint="write a function that makes the flow, and name it in `factory:`",
            ) from error
    _write(root, manifest, text, files, name)
    return manifest


def _target(path: Path, name: str) -> tuple[Path, Path]:
    """Return the folder of the campaign, and the file to write."""
    place = path.resolve()
    start = place.parent if place.suffix in (".yaml", ".yml") else place
    for root in (start, *start.parents):
        project = next((root / file for file in PROJECT_FILES if (root / file).is_file()), None)
        if project is not None:
            break
    else:
        raise InputError(
            f"{path} is not in a campaign: neither it nor a folder above it has a reconciler.yaml",
            hint="make one with `reconcile init`",
        )
    documents = parse_file(project.read_bytes()).documents
    spec: dict[str, Any] = next(
        (one.content["spec"] for one in documents if one.kind == Kind.PROJECT and one.valid), {}
    )
    folders = msgspec.convert(spec, ProjectSpec).manifests
    if start == root and place == root:
        default = "flows" if "flows" in [folder.strip("/") for folder in folders] else folders[0]
        return root, root / default / f"{name}.yaml"
    inside = str(start.relative_to(root))
    if not any(
        folder.strip("/") in ("", ".") or f"{inside}/".startswith(f"{folder.strip('/')}/")
        for folder in folders
    ):
        raise InputError(
            f"{path} is not in a folder of manifests: {', '.join(folders)}",
            hint="choose one of these, or add the folder to spec.manifests of the Project",
        )
    return root, place if place != start else start / f"{name}.yaml"


def _check_jobs(made: Flow) -> None:
    """Refuse jobs that cannot reach a worker."""
    for job in jobs_in(made):
        function = getattr(job.function, "original", job.function)
        if getattr(function, "__module__", None) == "__main__":
            raise InputError(
                f"the job '{job.name}' runs {function.__qualname__}, which this notebook or script defines",
                hint="move it to a module in `python_path` of the Project, and import it from there",
            )
        try:
            check_payload(job)
        except PayloadError as error:
            raise InputError(error.message, hint=error.hint) from error


def _facts(made: Flow | Job | list[Job], name: str) -> list[Any]:
    """Return what decides what the jobs of a flow compute and are called, in their order."""
    items = identify(made, identity=flow_identity("", name), externals={}, files={}, code=[])
    return [(item.uuid, item.parents, _without_versions(item.payload)) for item in items]


def _without_versions(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_versions(inner) for key, inner in value.items() if key != "@version"}
    return [_without_versions(inner) for inner in value] if isinstance(value, list) else value


def _check(text: str, files: Mapping[str, bytes], name: str, wanted: list[Any]) -> None:
    """Build what is to be written. Raises _UnreadableError if it is not valid or gives other jobs."""
    parsed = parse_file(text.encode())
    problem = next((one for one in parsed.diagnostics if one.severity is Severity.ERROR), None)
    if problem is not None:
        raise _UnreadableError(problem.message)
    spec = build_form(msgspec.convert(parsed.documents[0].content["spec"], FlowSpec))
    with tempfile.TemporaryDirectory(prefix="reconcile-export-") as scratch:
        places = {}
        for number, (path, data) in enumerate(files.items()):
            place = Path(scratch) / str(number) / Path(path).name
            place.parent.mkdir()
            place.write_bytes(data)
            places[path] = str(place)
        try:
            built = _facts(Construction(externals={}, files=places).build(spec, name), name)
        except (BuildError, ValueError) as error:
            raise _UnreadableError(str(error)) from error
    if built != wanted:
        names = (
            one[2]["name"] for one, other in zip(wanted, [*built, *wanted], strict=False) if one != other
        )
        raise _UnreadableError(f"the job '{next(names, '?')}' would be another one")


def _lines(key: str, value: Any, indent: int) -> list[str]:
    """Return an entry of a mapping: on one line if it fits, else with a line for each entry within."""
    head = f"{' ' * indent}{flow_text(key)}:"
    line = f"{head} {flow_text(value)}"
    if len(line) <= WIDTH or not isinstance(value, dict | list):
        found = [line]
    elif isinstance(value, dict):
        found = [head, *(line for inner, one in value.items() for line in _lines(inner, one, indent + 2))]
    else:
        found = [head, *(f"{' ' * (indent + 2)}- {flow_text(one)}" for one in value)]
    return [_QUOTED_DIRECTIVE.sub(r"\1:", line) for line in found]


def _write(root: Path, manifest: Path, text: str, files: Mapping[str, bytes], name: str) -> None:
    """Write the files, the manifest last: it names the others."""
    if manifest.exists():
        known = [(one.kind, one.name) for one in parse_file(manifest.read_bytes()).documents]
        if known != [(Kind.FLOW, name)]:
            raise RefusedError(
                f"{manifest} exists and is not the manifest of the flow '{name}' alone",
                hint="name another file, or remove it",
            )
    try:
        for path, data in {**files, str(manifest.relative_to(root)): text.encode()}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(root / path, data, sync=False)
    except OSError as error:
        raise WorldError(f"cannot write {error.filename or manifest}: {error.strerror}") from error


# the list of jobs ------------------------------------------------------------------------------------------


def _as_jobs(made: Flow, folder: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, bytes], list[str]]:
    """Return the entries of ``jobs``, the files of their objects, and a comment on the flow's own output."""
    jobs = list(made.jobs)
    if any(isinstance(job, Flow) for job in jobs):
        raise _UnreadableError("it has flows within the flow")
    ids = dict(zip((job.uuid for job in jobs), _ids(jobs), strict=True))
    writer = _Writer(ids, folder)
    entries = [writer.entry(job) for job in jobs]
    comment: list[str] = []
    if made.output is not None:
        if not isinstance(made.output, OutputReference):
            raise _UnreadableError("its output is made of several references")
        reference = writer.reference(made.output)
        comment = [
            f"# The output of this flow is that of a job. Other flows refer to it as {name}/{reference}"
        ]
    return entries, writer.files, comment


def _ids(jobs: Sequence[Job]) -> Iterator[str]:
    """Yield an id for each job: its name, as far as an id can have it, with a number if it repeats."""
    used: set[str] = set()
    for job in jobs:
        bare = re.sub(r"[^A-Za-z0-9_-]+", "-", str(job.name)).strip("-")[:80] or "job"
        number, found = 1, bare
        while found in used:
            number += 1
            found = f"{bare}-{number}"
        used.add(found)
        yield found


class _Writer:
    """Writes jobs as entries. ``files`` gets the objects among their arguments, by path."""

    def __init__(self, ids: Mapping[str, str], folder: Path) -> None:
        self.ids = ids
        self.folder = folder
        self.files: dict[str, bytes] = {}

    def entry(self, job: Job) -> dict[str, Any]:
        """Return the entry of a job."""
        entry: dict[str, Any] = {"id": self.ids[job.uuid]}
        arguments = {
            "args": [self.value(value) for value in job.function_args],
            "kwargs": {key: self.value(value) for key, value in job.function_kwargs.items()},
        }
        given = {key: value for key, value in arguments.items() if value}
        maker = getattr(job.function, "__self__", None)
        if isinstance(maker, Maker):
            if job.function.__name__ != "make":
                raise _UnreadableError(f"'{job.name}' runs the method '{job.function.__name__}' of a maker")
            entry["maker"] = self._maker(maker) | ({"make": given} if given else {})
            usual = maker.name
        else:
            entry["function"] = self._path(getattr(job.function, "original", job.function))
            entry |= given
            usual = entry["id"]
        if job.name != usual:
            entry["name"] = job.name
        more = {"metadata": job.metadata, "config": _config(job.config)}
        for key, value in more.items():
            if not _is_plain(value):
                raise _UnreadableError(f"the {key} of '{job.name}' has more than text, numbers and lists")
        return entry | {key: value for key, value in more.items() if value}

    def value(self, value: Any) -> Any:
        """Return an argument as YAML, with directives for what YAML does not have."""
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if isinstance(value, OutputReference):
            return {"$output": self.reference(value)}
        if kind is list:
            return [self.value(inner) for inner in value]
        if kind is tuple:
            return {"$tuple": [self.value(inner) for inner in value]}
        if kind is bytes:
            return {"$bytes": base64.b64encode(value).decode()}
        if kind is dict and all(type(key) is str and not key.startswith(("$", "@")) for key in value):
            return {key: self.value(inner) for key, inner in value.items()}
        if kind is dict and not any(type(key) is str and key.startswith("@") for key in value):
            return {"$map": [[self.value(key), self.value(inner)] for key, inner in value.items()]}
        if isinstance(value, Maker):
            return {"$maker": self._maker(value)}
        return {"$load": self._file(value)}

    def reference(self, reference: OutputReference) -> str:
        """Return a reference as the text of ``$output``."""
        text = self.ids.get(reference.uuid)
        if text is None:
            raise _UnreadableError("it refers to a job of another flow")
        for kind, step in reference.attributes:
            if kind == "a" and _STEP.fullmatch(str(step)):
                text += f".{step}"
            elif kind == "i" and isinstance(step, int) and abs(step) < _INDEX_LIMIT:
                text += f"[{step}]"
            elif kind == "i" and isinstance(step, str) and step and not {"'", "]"} & set(step):
                text += f"['{step}']"
            else:
                raise _UnreadableError(f"it refers to the attribute {step!r} of an output")
        return text

    def _maker(self, maker: Maker) -> dict[str, Any]:
        """Return class and arguments of a maker: those fields that differ from their defaults."""
        if not dataclasses.is_dataclass(maker):
            raise _UnreadableError(f"the maker '{type(maker).__name__}' is not a dataclass")
        kwargs = {}
        for field in dataclasses.fields(maker):
            value, default = getattr(maker, field.name), field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            if field.init and not _is_same(value, default):
                kwargs[field.name] = self.value(value)
        return {"class": self._path(type(maker)), **({"kwargs": kwargs} if kwargs else {})}

    def _path(self, found: Any) -> str:
        path = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
        if not re.fullmatch(r"\w+(\.\w+)+", path):
            raise _UnreadableError(f"{path} cannot be imported by its name")
        return path

    def _file(self, value: Any) -> str:
        """Return the path of a file with an object, which is written once."""
        try:
            data = json.dumps(value, cls=MontyEncoder, indent=1).encode()
        except (TypeError, ValueError, AttributeError) as error:
            raise _UnreadableError(f"a {type(value).__name__} cannot be written: {error}") from error
        for path, known in self.files.items():
            if known == data:
                return path
        path = f"{self.folder}/{type(value).__name__.lower()}-{len(self.files) + 1}.json"
        self.files[path] = data
        return path


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str and _is_plain(inner) for key, inner in value.items())
    return (
        all(map(_is_plain, value))
        if type(value) is list
        else value is None or type(value) in (bool, int, float, str)
    )


def _is_same(value: Any, default: Any) -> bool:
    """Return whether a field has its default; when in doubt it is written."""
    try:
        return type(value) is type(default) and bool(value == default)
    except Exception:  # an array, or an object that cannot be compared
        return False


def _config(config: JobConfig) -> dict[str, Any]:
    """Return what differs from the defaults of a job's config."""
    found = {}
    for field in dataclasses.fields(JobConfig):
        value = getattr(config, field.name)
        if value != getattr(JobConfig(), field.name):
            found[field.name] = getattr(value, "value", value)
    return found
