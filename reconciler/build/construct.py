"""From the spec of a flow to jobflow objects. Calls the user's code."""

from __future__ import annotations

import base64
import graphlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobflow import Flow, Job, JobConfig, Maker, OnMissing
from jobflow.core.reference import OutputReference
from monty.json import MontyDecoder
from monty.serialization import loadfn

from reconciler.build.user_code import (
    BuildError,
    call,
    defined_name,
    find_callable,
    headline,
    is_allowed,
    where_raised,
)
from reconciler.desired.values import iter_directives, parse_output_reference, shown_reference
from reconciler.diagnostics import did_you_mean
from reconciler.jobs.job_checks import clean_name
from reconciler.model.flows import unique_keys
from reconciler.model.policy import decoded_names


class Construction:
    """Builds one flow.

    ``externals`` maps ``flow/job`` to the uuid of that job, and ``flow/`` to the JSON of a flow's output.
    ``files`` maps the paths of the repository to the places of their copies, and ``code`` the directories to
    import from to their names in the repository. ``callables`` are the names that the policy allows; None
    allows all. After the build, ``jobs`` has the jobs of the ``jobs:`` form
    by key: ``chain/relax`` is the job ``relax`` of the flow that the maker of the entry ``chain`` made.
    """

    def __init__(
        self,
        externals: Mapping[str, str],
        files: Mapping[str, str],
        code: Mapping[str, str] | None = None,
        callables: Sequence[str] | None = None,
    ) -> None:
        self.externals = externals
        self.files = files
        self.code = code or {}
        self.callables = callables
        self.name = ""
        self.jobs: dict[str, Job] = {}
        self._entries: dict[str, Flow | Job] = {}
        self._places: dict[str, str] = {}

    def build(self, spec: Mapping[str, Any], name: str) -> Flow | Job | list[Job]:
        """Return the flow that the spec describes.

        Raises
        ------
        BuildError
            Something cannot be imported or called, or is not a flow.
        """
        self.name = name
        made: Flow | Job | list[Job]
        if spec.get("jobs") is not None:
            made = self._from_jobs(spec["jobs"])
        elif spec.get("maker") is not None:
            made = self._from_maker(spec["maker"], "/spec/maker")
        elif spec.get("factory") is not None:
            made = self._from_factory(spec["factory"], "/spec/factory")
        else:
            made = self._from_file(spec["file"])
        for one in made if isinstance(made, list) else [made]:
            if spec.get("metadata"):
                one.update_metadata(spec["metadata"], dynamic=True)
            if spec.get("name_suffix"):
                one.append_name(spec["name_suffix"], dynamic=True)
        return made

    def place(self, job: Job, part: str) -> str:
        """Return the pointer of a part of a job; "" if the manifest does not show the job."""
        place = self._places.get(job.uuid)
        return f"{place}/{part}" if place else ""

    # the forms ----------------------------------------------------------------------------------------

    def _from_jobs(self, jobs: list[dict[str, Any]]) -> Flow:
        entries = {job["id"]: (number, job) for number, job in enumerate(jobs)}
        for job_id in _in_order(entries, self.name):
            number, job = entries[job_id]
            made = self._entry(job, f"/spec/jobs/{number}")
            self._entries[job_id] = made
            place = f"/spec/jobs/{number}/maker" if "maker" in job else f"/spec/jobs/{number}"
            self._places |= dict.fromkeys((one.uuid for one in jobs_in(made)), place)
            if isinstance(made, Job):
                self.jobs[job_id] = made
            else:
                inner = list(jobs_in(made))
                keys = unique_keys(clean_name(str(one.name)) for one in inner)
                self.jobs |= {f"{job_id}/{key}": one for key, one in zip(keys, inner, strict=True)}
        return Flow([self._entries[job_id] for job_id in entries], name=self.name)

    def _entry(self, entry: Mapping[str, Any], pointer: str) -> Flow | Job:
        if "maker" not in entry:
            return self._job(entry, pointer)
        made = self._from_maker(entry["maker"], f"{pointer}/maker")
        if isinstance(made, list):
            made = Flow(made, name=entry["id"])
        if "name" in entry:
            if isinstance(made, Flow):
                raise BuildError(
                    f"the maker of '{entry['id']}' makes a flow of {len(made.job_uuids)} jobs, which cannot "
                    "share one name", f"{pointer}/name", "remove 'name': the jobs have names of their own",
                )  # fmt: skip
            made.name = entry["name"]
        for job in jobs_in(made):
            job.metadata |= entry.get("metadata", {})
            _configure(job, entry.get("config", {}))
        return made

    def _job(self, entry: Mapping[str, Any], pointer: str) -> Job:
        function = self._callable(entry["function"], f"{pointer}/function")
        if inspect.isclass(function) and issubclass(function, Maker):
            raise BuildError(
                f"'{entry['function']}' is a Maker",
                f"{pointer}/function",
                "write `maker: {class: ...}` instead of `function`",
            )
        decorated = hasattr(function, "original")
        if inspect.ismethod(function) and not decorated:
            raise BuildError(
                f"'{entry['function']}' is a class method, which jobflow runs only with its decorator",
                f"{pointer}/function", "add @job above @classmethod, or use a function or static method",
            )  # fmt: skip
        args = self.value(entry.get("args", []), f"{pointer}/args")
        kwargs = self.value(entry.get("kwargs", {}), f"{pointer}/kwargs")
        if decorated:  # made by jobflow's @job: calling it gives a Job
            job = call(function, args, kwargs, pointer, self.code)
        else:
            made = {"function": function, "function_args": tuple(args), "function_kwargs": kwargs}
            job = call(Job, [], made, pointer, self.code)
        job.name = entry.get("name", entry["id"])
        job.metadata |= entry.get("metadata", {})
        _configure(job, entry.get("config", {}))
        return job

    def _from_maker(self, spec: Mapping[str, Any], pointer: str) -> Flow | Job | list[Job]:
        maker = self._maker(spec, pointer)
        make = spec.get("make", {})
        args = self.value(make.get("args", []), f"{pointer}/make/args")
        kwargs = self.value(make.get("kwargs", {}), f"{pointer}/make/kwargs")
        return checked(
            call(maker.make, args, kwargs, f"{pointer}/make", self.code), spec["class"], f"{pointer}/class"
        )

    def _from_factory(self, spec: Mapping[str, Any], pointer: str) -> Flow | Job | list[Job]:
        function = self._callable(spec["function"], f"{pointer}/function")
        args = self.value(spec.get("args", []), f"{pointer}/args")
        kwargs = self.value(spec.get("kwargs", {}), f"{pointer}/kwargs")
        made = call(function, args, kwargs, pointer, self.code)
        return checked(made, spec["function"], f"{pointer}/function")

    def _from_file(self, path: str) -> Flow | Job | list[Job]:
        try:
            content = json.loads(Path(self.files[path]).read_bytes())
            self._require_allowed(content, path, "/spec/file")
            made = MontyDecoder().process_decoded(content)
        except (ValueError, TypeError, AttributeError, ImportError) as error:
            raise BuildError(f"{path} is not a serialised Flow: {error}", "/spec/file") from error
        return checked(made, path, "/spec/file")

    # values -------------------------------------------------------------------------------------------

    def value(self, value: Any, pointer: str) -> Any:
        """Return a value of args or kwargs with its directives evaluated."""
        if isinstance(value, list):
            return [self.value(inner, f"{pointer}/{number}") for number, inner in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if "$output" in value:
            return self._reference(value["$output"], f"{pointer}/$output")
        if "$path" in value:
            return self.files[value["$path"]]
        if "$load" in value:
            return self._loaded(value["$load"], f"{pointer}/$load")
        if "$tuple" in value:
            return tuple(self.value(value["$tuple"], f"{pointer}/$tuple"))
        if "$set" in value or "$map" in value:
            return self._hashed(value, pointer)
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"])
        if "$maker" in value:
            return self._maker(value["$maker"], f"{pointer}/$maker")
        if "$call" in value:
            function = self._callable(value["$call"], f"{pointer}/$call")
            args = self.value(value.get("args", []), f"{pointer}/args")
            kwargs = self.value(value.get("kwargs", {}), f"{pointer}/kwargs")
            return call(function, args, kwargs, f"{pointer}/$call", self.code)
        return {key: self.value(inner, f"{pointer}/{key}") for key, inner in value.items()}

    def _hashed(self, value: Mapping[str, Any], pointer: str) -> Any:
        """Return the value of a ``$set`` or ``$map``.

        Raises BuildError if Python cannot hash an entry or key, or if two are equal: one would be lost.
        """
        name = "$set" if "$set" in value else "$map"
        items = self.value(value[name], f"{pointer}/{name}")
        try:
            made: Any = set(items) if name == "$set" else dict(items)
        except TypeError as error:
            raise BuildError(
                f"'{name}' has an entry that cannot be one: {error}", f"{pointer}/{name}"
            ) from error
        if len(made) < len(items):
            raise BuildError(f"two entries of '{name}' are equal", f"{pointer}/{name}")
        return made

    def _loaded(self, path: str, pointer: str) -> Any:
        """Return what monty reads from a file of the repository, with serialised objects as objects."""
        try:
            content = _plain(_undecoded_file(self.files[path]))
            self._require_allowed(content, path, pointer)
            found = MontyDecoder().process_decoded(content)
        except BuildError:
            raise
        except (Exception, SystemExit) as error:
            where = where_raised(error, self.code)
            raise BuildError(f"{path} cannot be loaded: {headline(error)}{where}", pointer) from error
        left = _undecoded(found)
        if left is not None:
            hint = "install the package, or add its folder to spec.python_path of the Project"
            raise BuildError(f"{path} names '{left}', which does not exist", pointer, hint)
        return found

    def _reference(self, value: Any, pointer: str) -> Any:
        """Return the reference of an ``$output``; the output of a flow may be a structure of several."""
        flow, job, attributes = parse_output_reference(value)
        text = shown_reference(value)
        reference: Any
        if flow is not None and flow != self.name:
            found = self.externals[f"{flow}/{job}"]
            reference = OutputReference(found) if job else _with_references(json.loads(found))
        elif job in self.jobs:
            reference = self.jobs[job].output
        elif job in self._entries:
            reference = self._entries[job].output
            if reference is None:
                raise BuildError(
                    f"the flow that the maker of '{job}' makes does not have an output of its own", pointer,
                    f"name one of its jobs: {_some_keys(self.jobs, job)}",
                )  # fmt: skip
        else:
            hint = did_you_mean(job, self.jobs) or "write a job of another flow as flow/job"
            raise BuildError(f"this flow does not have a job '{job}'", pointer, hint)
        for kind, name in attributes:
            if isinstance(reference, dict | list | tuple):
                reference = _part_of(reference, name, text, pointer)
                continue
            schema = getattr(reference, "output_schema", None)
            try:
                reference = reference[name] if kind == "i" else getattr(reference, str(name))
            except AttributeError as error:
                fields = getattr(schema, "model_fields", None) or getattr(schema, "__fields__", {})
                what = getattr(schema, "__name__", "output")
                message = f"'{text}' does not exist: {_article(what)} does not have '{name}'"
                raise BuildError(message, pointer, did_you_mean(str(name), fields)) from error
        return reference

    def _callable(self, path: str, pointer: str) -> Any:
        """Import a callable. With a policy, what the name stands for must be allowed like the name itself."""
        found = find_callable(path, pointer, self.code)
        name = defined_name(found)
        if self.callables is not None and not is_allowed(name, self.callables):
            raise BuildError(
                f"'{path}' stands for '{name}', which the policy does not allow", pointer,
                f"if you trust it, add `callables: [{name}]` to the policy",
            )  # fmt: skip
        return found

    def _require_allowed(self, data: Any, path: str, pointer: str) -> None:
        """Refuse data of a file that names what the policy does not allow: to decode it imports that."""
        if self.callables is None:
            return
        names = (name for _, name in decoded_names(data))
        refused = sorted({name for name in names if not is_allowed(name, self.callables)})
        if refused:
            raise BuildError(
                f"{path} names '{refused[0]}', which the policy does not allow", pointer,
                f"if you trust it, add `callables: [{', '.join(refused)}]` to the policy",
            )  # fmt: skip

    def _maker(self, spec: Mapping[str, Any], pointer: str) -> Any:
        made = self._callable(spec["class"], f"{pointer}/class")
        kwargs = self.value(spec.get("kwargs", {}), f"{pointer}/kwargs")
        return call(made, [], kwargs, f"{pointer}/class", self.code)


def _in_order(entries: Mapping[str, tuple[int, dict[str, Any]]], name: str) -> list[str]:
    graph: dict[str, set[str]] = {}
    for job_id, (_, job) in entries.items():
        needs = set()
        parts = {key: job.get(key) for key in ("args", "kwargs", "maker")}
        for _, directive, value in iter_directives(parts):
            if directive == "$output":
                flow, other, _ = parse_output_reference(value)
                needs |= {other.partition("/")[0]} if flow in (None, name) else set()
        graph[job_id] = needs
    return [name for name in graphlib.TopologicalSorter(graph).static_order() if name in entries]


def jobs_in(made: Flow | Job | list[Job]) -> Iterator[Job]:
    """Yield the jobs of a flow and of the flows in it, in the order of the flow."""
    if isinstance(made, Job):
        yield made
    else:
        for one in made.jobs if isinstance(made, Flow) else made:
            yield from jobs_in(one)


def _some_keys(jobs: Iterable[str], entry: str) -> str:
    keys = [f"'{key}'" for key in jobs if key.startswith(f"{entry}/")]
    return ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")


def _plain(value: Any) -> Any:
    """Return loaded data without the types of ruamel.yaml, which remember how a value was written."""
    kind = type(value)
    of_yaml = kind.__module__.startswith("ruamel.")
    if kind is dict or (of_yaml and isinstance(value, dict)):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if kind is list or (of_yaml and isinstance(value, list)):
        return [_plain(inner) for inner in value]
    if not of_yaml:
        return value
    return next((base(value) for base in (int, float, str) if isinstance(value, base)), value)


def _undecoded_file(place: str) -> Any:
    """Return what a file has, with serialised objects as data."""
    if ".mpk" in Path(place).name.lower():
        return loadfn(place, object_hook=None)
    try:
        return loadfn(place, cls=None)
    except TypeError:  # monty before 2026 has no such argument for YAML, and does not decode it
        return loadfn(place)


def _undecoded(value: Any) -> str | None:
    """Return the path of a serialised object that monty left as data; None if there is not one."""
    if isinstance(value, dict) and "@module" in value:
        name = value.get("@class") or value.get("@callable") or ""
        return f"{value['@module']}.{name}".rstrip(".")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next((found for one in inner if (found := _undecoded(one)) is not None), None)


def _with_references(value: Any) -> Any:
    """Return JSON data with its references as objects; other objects stay data, as another flow gave them."""
    if isinstance(value, list):
        return [_with_references(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.get("@class") == "OutputReference":
        return OutputReference(value["uuid"], tuple((kind, step) for kind, step in value["attributes"]))
    return {key: _with_references(inner) for key, inner in value.items()}


def _part_of(output: Any, name: str | int, text: str, pointer: str) -> Any:
    """Return an entry of the output of a flow that is a mapping or list of references."""
    try:
        return output[name]
    except (LookupError, TypeError) as error:
        known = ", ".join(map(str, output)) if isinstance(output, dict) else f"{len(output)} entries"
        raise BuildError(f"'{text}' does not exist: the output of the flow has {known}", pointer) from error


def _configure(job: Job, given: Mapping[str, Any]) -> None:
    if not given:
        return
    known = JobConfig(**{key: value for key, value in given.items() if key != "on_missing_references"})
    for key in given:
        if key == "on_missing_references":
            job.config.on_missing_references = OnMissing(given[key])
        else:
            setattr(job.config, key, getattr(known, key))


def checked(made: Any, what: str, pointer: str) -> Flow | Job | list[Job]:
    """Return the result of a maker, factory or file if it is a Flow, a Job or a list of them."""
    several = isinstance(made, list | tuple) and made and all(isinstance(item, Flow | Job) for item in made)
    if isinstance(made, Flow | Job):
        return made
    if several:
        return list(made)
    raise BuildError(
        f"'{what}' returned {_article(type(made).__name__)}, not a Flow or a Job",
        pointer,
        "return a Flow or a Job",
    )


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
