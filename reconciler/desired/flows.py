"""Flow manifests: what they refer to, what their build depends on, and which jobs they show."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from reconciler.desired.makers import Makers, UnusableMakerError
from reconciler.desired.source.git import Source
from reconciler.desired.source.objects import UNFIT_HINTS, TreeEntry, UnfitEntry
from reconciler.desired.spec_content import SpecContent, spec_content
from reconciler.desired.uses import flow_uses, refusal
from reconciler.desired.values import iter_directives, parse_output_reference, with_variables
from reconciler.diagnostics import Diagnostic, Severity, did_you_mean, nearest_path
from reconciler.errors import LostError, UnfitError
from reconciler.model.desired import DesiredFlow, DesiredState, PreviewJob
from reconciler.model.flows import digest, flow_identity
from reconciler.model.manifests import JOB_BY_ID, FlowSpec, Kind, Manifest, OnCodeChange
from reconciler.model.run_config import layer_of
from reconciler.model.settings import Level, Origin

BUILD_FORMAT = 1
"""Increased when builds of an older version of this program must not be used again."""

RUN_CONFIG_KEYS = ("worker", "exec_config", "resources", "qresources", "priority", "retries")

_CONTENT = ("function", "maker", "args", "kwargs", "config")
"""The keys of a job that decide what it computes."""

_PROTECTION = {"disabled": True, "enabled": False}
"""Value of the annotation ``reconciler/prune`` -> whether the flow is protected."""


class FlowReader:
    """Reads the flows of one revision and collects their diagnostics.

    ``imports`` are by flow the directories of code that its earlier builds imported, as the store notes them.
    """

    def __init__(
        self, source: Source, state: DesiredState, imports: Mapping[str, list[str]] | None = None
    ) -> None:
        self.source = source
        self.state = state
        self.commit = state.revision.commit
        self.diagnostics: list[Diagnostic] = []
        self._code = self._code_trees()
        self._imports = imports or {}
        self._makers = Makers(state)
        self._listing: dict[str, TreeEntry] | None = None
        self._pointers: set[str] = set()

    def read_all(self, manifests: Iterable[Manifest]) -> None:
        """Add the flows of valid manifests to the state; a flow that cannot be used becomes invalid there."""
        self.diagnostics += self._makers.problems()
        known = []
        for manifest in manifests:
            content = spec_content(manifest.spec)
            if content.refs:
                content = self._expanded(manifest, content)
            known.append((manifest, content))
        named = [path for _, content in known for _, path in content.files]
        entries = [self.all_files().get(path) for path in named]
        self._pointers = self.source.lfs_pointers(e.object_id for e in entries if e is not None and e.is_file)
        for manifest, content in known:
            flow = self._read(manifest, content, stale=f"{Kind.FLOW}/{manifest.name}" in self.state.stale)
            if flow is not None:
                self.state.flows[flow.name] = flow

    def _read(self, manifest: Manifest, found: SpecContent, *, stale: bool) -> DesiredFlow | None:
        """Return the flow of a valid manifest; None (and diagnostics) if a file that it needs is unusable."""
        name = manifest.name or ""
        self.diagnostics += self._missing_dollars(manifest, found)
        before = len(self.diagnostics)
        if found.expanded is None:
            return None
        raw, env = found.expanded.spec, self._environment(manifest)
        if found.variables:
            self.diagnostics += _unknown_variables(manifest, found, env)
            raw = with_variables(raw, env)
        spec = msgspec.convert(raw, FlowSpec)
        rules = self.state.policy
        if rules is not None:
            self.diagnostics += (refusal(rules, manifest, use) for use in rules.refused(flow_uses(raw)))
        files = self._files(manifest, found)
        references = {parse_output_reference(value)[:2] for _, value in found.outputs}
        externals = sorted({f"{other}/{job}" for other, job in references if other not in (None, name)})
        noted = self._imports.get(name, [])
        used, scanned = self._code_used(found, spec, noted)
        broken = next((one.problem for one in used if one.problem is not None), None)
        code = [one.tree for one in used]
        if len(self.diagnostics) > before:
            self.state.invalid[name] = self.diagnostics[before].message
            return None
        if broken is not None:
            self.state.invalid[name] = f"it needs code of this repository, but {broken}"
            return None
        origin = Origin(Level.FLOW, Kind.FLOW, name, "")
        project = self.state.project
        on_code_change = spec.on_code_change or project.on_code_change
        recompute = on_code_change is OnCodeChange.RECOMPUTE
        counts = on_code_change if recompute else OnCodeChange.KEEP  # to retry failed jobs needs no rebuild
        content = build_form(spec) | ({"env": env} if env else {})
        previous = manifest.metadata.get("previous_names", [])
        project_name = self.state.name_in_uuids or self.state.project_name
        identity = flow_identity(project_name, previous[0] if previous else name)
        annotations = manifest.metadata.get("annotations", {})
        blobs = {path: blob for path, blob, *_ in files}
        jobs = preview_jobs(name, spec, blobs, code if recompute else [])
        return DesiredFlow(
            name=name,
            manifest=manifest,
            spec=spec,
            labels=manifest.metadata.get("labels", {}),
            layer=layer_of(manifest.spec, origin, "/spec"),
            inputs=digest([BUILD_FORMAT, identity, content, files, code, counts]),
            content=content,
            on_code_change=on_code_change,
            code=code,
            python_path=[one.tree for one in self._code.values() if one.problem is None],
            files=files,
            externals=externals,
            preview=jobs if all(job.function for job in jobs) else [],
            entries=jobs,
            makers=found.expanded.makers,
            makers_of=found.expanded.by_entry,
            env=env,
            scanned=[one.tree for one in scanned],
            imports=noted,
            on_change=spec.on_change or project.on_change,
            prune=spec.prune or project.prune,
            protected=_PROTECTION.get(annotations.get("reconciler/prune")),
            stale=stale,
            identity=identity,
            previous_names=previous,
            watched=sorted({path for _, path in (*found.files, *found.doubtful)}),
        )

    def _environment(self, manifest: Manifest) -> dict[str, str]:
        """Return the variables of ``spec.build.env`` of the Project and of a flow, which wins."""
        own = manifest.spec.get("build", {}).get("env", {})
        return {**self.state.project.build.env, **own}

    def _expanded(self, manifest: Manifest, content: SpecContent) -> SpecContent:
        """Return the content of a flow with its references to Makers replaced."""
        self.diagnostics += self._makers.unknown(manifest)
        try:
            expanded = self._makers.expanded(manifest.spec)
        except UnusableMakerError as error:
            self.state.invalid[manifest.name or ""] = str(error)
            return content._replace(expanded=None)
        return spec_content(expanded.spec)._replace(expanded=expanded)

    def check_references_between(self, flows: dict[str, DesiredFlow]) -> None:
        """Check each ``$output: flow/job`` against the other flows; drop flows with a wrong reference."""
        for flow in list(flows.values()):
            problems = list(self._wrong_references(flow, flows))
            if problems:
                self.diagnostics += problems
                self.state.invalid[flow.name] = problems[0].message
        cycle = _cycle(flows)
        if cycle:
            first = flows[cycle[0]]
            self.diagnostics.append(
                first.manifest.diagnostic(
                    "flow/cycle-of-flows",
                    f"flows refer to each other in a circle: {' -> '.join(cycle)}",
                    "/metadata/name",
                    hint="remove one of these references to break the circle",
                )
            )
            self.state.invalid |= dict.fromkeys(cycle, "it is part of a circle of flows")
        for name in self.state.invalid:
            if name in flows and not flows[name].stale:
                del flows[name]

    def _wrong_references(self, flow: DesiredFlow, flows: Mapping[str, DesiredFlow]) -> Iterator[Diagnostic]:
        if not flow.externals:
            return
        for pointer, value in spec_content(flow.manifest.spec).outputs:
            other, job, _ = parse_output_reference(value)
            if other is None or other == flow.name:
                continue
            if other not in flows:
                hint = did_you_mean(other, [name for name in flows if name != flow.name])
                yield flow.manifest.diagnostic(
                    "reference/unknown-flow", f"there is no other flow named '{other}'",
                    pointer, hint=hint,
                )  # fmt: skip
            elif not job:
                if flows[other].spec.form == "jobs":
                    keys = [entry.key for entry in flows[other].entries]
                    yield flow.manifest.diagnostic(
                        "reference/no-flow-output",
                        f"flow '{other}' lists its jobs, so it does not have an output of its own",
                        pointer,
                        hint=f"name a job of it, for example 'job: {keys[-1]}'",
                    )
            elif flows[other].preview and job not in (keys := [p.key for p in flows[other].preview]):
                yield flow.manifest.diagnostic(
                    "reference/unknown-job", f"flow '{other}' does not have a job '{job}'",
                    pointer, hint=did_you_mean(job, keys),
                )  # fmt: skip

    def _files(self, manifest: Manifest, content: SpecContent) -> list[tuple[str, ...]]:
        """Return every file of the repository that the flow names, as in :class:`DesiredFlow`."""
        found: set[tuple[str, ...]] = set()
        for pointer, path in content.files:
            entry = self.all_files().get(path)
            if entry is not None and entry.is_file and entry.object_id not in self._pointers:
                found.add((path, entry.object_id, *(["x"] if entry.executable else [])))
                continue
            code, message = "reference/unknown-file", f"{self.state.revision} does not have a file '{path}'"
            what = entry.what if entry is not None else None
            if entry is not None and entry.is_file:
                what = "pointer of Git LFS"
            elif any(name.startswith(f"{path.rstrip('/')}/") for name in self.all_files()):
                what = "folder"
            if what is not None:
                code, message, hint = (
                    "reference/not-a-file",
                    f"'{path}' is a {what}, not a file",
                    UNFIT_HINTS[what],
                )
            else:
                files = [name for name, other in self.all_files().items() if other.is_file]
                guess = nearest_path(path, files)
                hint = f"did you mean '{guess}'?" if guess else _PATHS_HINT
            self.diagnostics.append(manifest.diagnostic(code, message, pointer, hint=hint))
        return sorted(found)

    def _missing_dollars(self, manifest: Manifest, content: SpecContent) -> Iterator[Diagnostic]:
        """Yield a warning for each ``{path: FILE}`` in the arguments that names a file of the repository."""
        for at, named in content.doubtful:
            if named in self.all_files():
                yield manifest.diagnostic(
                    "value/missing-dollar",
                    f"'path' without '$' is plain data: the job does not get the file '{named}'",
                    f"{at}/path",
                    key=True,
                    hint="if you mean the directive, write '$path'",
                    severity=Severity.WARNING,
                )

    def all_files(self) -> dict[str, TreeEntry]:
        """Return every file of the revision by path, listed once and only when something names a file."""
        if self._listing is None:
            try:
                self._listing = {entry.path: entry for entry in self.source.files(self.commit, "")}
            except UnfitError as error:  # stops the flows that name files
                self._listing = {}
                problem = Diagnostic(code="source/too-many-files", message=error.message, hint=error.hint)
                self.diagnostics.append(problem)
        return self._listing

    def _code_trees(self) -> dict[str, _CodeTree]:
        """Return the code tree of each directory of ``spec.python_path``, with diagnostics of the Project."""
        found = {}
        project = self.state.manifests.get(f"{Kind.PROJECT}/{self.state.project_name}")
        for number, directory in enumerate(self.state.project.python_path):
            problem, hint = None, None
            tree = self.source.tree_id(self.commit, directory)
            if tree is None:
                entry = self.source.entry(self.commit, directory)
                problem = f"{self.state.revision} does not have a directory '{directory}'"
                hint = did_you_mean(directory, self.source.directories(self.commit))
                if entry is not None:
                    problem = f"'{directory}' is a {entry.what}, not a directory"
                    hint = UNFIT_HINTS.get(entry.what) or "name the directory that contains the file"
            else:
                try:
                    unfit = self._unfit_entry(tree)
                except UnfitError as error:
                    unfit, problem, hint = None, f"'{directory}' cannot be used: {error.message}", error.hint
                if unfit is not None:
                    problem = (
                        f"'{directory}/{unfit.path}' is a {unfit.what}, which cannot be sent to a worker"
                    )
                    hint = UNFIT_HINTS[unfit.what]
                found[directory] = _CodeTree(tree, self.source.top_level_names(tree), problem)
            if problem is not None and project is not None:
                code = "reference/unknown-directory" if tree is None else "reference/unfit-code"
                pointer = f"/spec/python_path/{number}"
                self.diagnostics.append(project.diagnostic(code, problem, pointer, hint=hint))
        return found

    def _unfit_entry(self, tree: str) -> UnfitEntry | None:
        try:
            return next(iter(self.source.unfit_entries(tree)), None)
        except LostError:
            return None  # the flows that need the code report it when they are built

    def _code_used(
        self, content: SpecContent, spec: FlowSpec, noted: Sequence[str]
    ) -> tuple[list[_CodeTree], list[_CodeTree]]:
        """Return the code that counts for a flow, and the part of it that a scan finds.

        The scan finds the trees whose modules the flow names, in its data too, and the trees that these name.
        A serialised flow, or a file that ``$load`` reads, may use all of them. What a build imported under a
        name that no text shows counts because it was ``noted``, and with it what that names.
        """
        serialised = spec.file is not None or any(at.endswith("/$load") for at, _ in content.files)
        names, used = set(content.words), set(self._code) if serialised else set()
        found = []
        for more in ((), noted):
            used.update(directory for directory in more if directory in self._code)
            for directory in more:
                if directory in self._code:
                    names |= self._imported(directory, self._code[directory])
            added = True
            while added:
                new = [d for d, code in self._code.items() if d not in used and code.has_any(names)]
                used.update(new)
                for directory in new:
                    names |= self._imported(directory, self._code[directory])
                added = bool(new)
            found.append([code for directory, code in self._code.items() if directory in used])
        return found[1], found[0]

    def _imported(self, directory: str, code: _CodeTree) -> set[str]:
        """Return the top-level modules that a code tree may import, also by a name in a text."""
        if len(self._code) == 1:
            return set()
        known = _IMPORTS.get(code.tree)
        if known is None:
            below = "" if directory.strip("/") in ("", ".") else f"{directory.strip('/')}/"
            modules = [
                entry.object_id
                for path, entry in self.all_files().items()
                if path.startswith(below) and path.endswith(".py") and entry.is_file
            ]
            try:
                known = {name for _, text in self.source.blobs(set(modules)) for name in imported_names(text)}
            except (LostError, UnfitError):
                return set()  # the flows that need the code report it when they are built
            if len(_IMPORTS) >= _MOST_TREES:
                _IMPORTS.clear()
            _IMPORTS[code.tree] = known
        return known


_IMPORTS: dict[str, set[str]] = {}
"""What each code tree imports: a tree never changes."""

_MOST_TREES = 100

_IMPORT = re.compile(
    rb"^[ \t]*from[ \t]+(\w+)|^[ \t]*import[ \t]+([^\n#;]+)|[\"'](\w+)(?:\.\w+)*[\"']", re.MULTILINE
)


def imported_names(text: bytes) -> set[str]:
    """Return the top-level modules that Python code may import.

    Those of its import statements, and texts that look like a module, for ``importlib.import_module``. Too
    many names only mean that more code counts for a flow.
    """
    found: set[bytes] = set()
    for one in _IMPORT.finditer(text):
        several = one[2].split(b",") if one[2] else [one[1] or one[3]]
        found |= {name.strip().partition(b".")[0].partition(b" ")[0] for name in several}
    return {name.decode(errors="replace") for name in found}


class _CodeTree(NamedTuple):
    """The code in one directory: its tree, the names directly in it, and why it cannot be used, if so."""

    tree: str
    names: set[str]
    problem: str | None

    def has_any(self, modules: Iterable[str]) -> bool:
        """Return whether one of these top-level modules is here."""
        return any(name in self.names or f"{name}.py" in self.names for name in modules)


_PATHS_HINT = "paths are relative to the folder of reconciler.yaml"


def _unknown_variables(
    manifest: Manifest, found: SpecContent, env: Mapping[str, str]
) -> Iterator[Diagnostic]:
    for pointer, name in found.variables:
        if name not in env:
            yield manifest.diagnostic(
                "reference/unknown-variable",
                f"spec.build.env of the flow and the Project have no variable '{name}'",
                pointer,
                hint=did_you_mean(name, env) or "add it there: `build: {env: {NAME: value}}`",
            )


def build_form(spec: FlowSpec) -> dict[str, Any]:
    """Return the part of a flow's spec that its build depends on: everything except run config."""
    jobs = spec.jobs
    if jobs is not None:
        jobs = [{key: value for key, value in job.items() if key not in RUN_CONFIG_KEYS} for job in jobs]
    form = {"jobs": jobs, "maker": spec.maker, "factory": spec.factory, "file": spec.file}
    common = {"metadata": spec.metadata, "name_suffix": spec.name_suffix}
    return form | {key: value for key, value in common.items() if value}


def _cycle(flows: Mapping[str, DesiredFlow]) -> list[str]:
    graph = {
        name: {ref.partition("/")[0] for ref in flow.externals} & flows.keys() for name, flow in flows.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def preview_jobs(
    flow: str, spec: FlowSpec, blobs: Mapping[str, str], code: Sequence[str]
) -> list[PreviewJob]:
    """Return the entries of the ``jobs:`` form, so that a plan can foresee them without running any code.

    The jobs of other forms, and of an entry with a maker, are known only to their code. ``blobs`` maps
    the repository's files that the flow names to their blob ids; ``code`` are the trees that count as
    content.
    """
    origin = Origin(Level.JOB, Kind.FLOW, flow, "")
    previews = []
    for job in spec.jobs or []:
        needs = set()
        parts = {key: job.get(key) for key in ("args", "kwargs", "maker")}
        for _, directive, value in iter_directives(parts):
            if directive == "$output":
                other, name, _ = parse_output_reference(value)
                needs.add(f"{other or flow}/{name}")
        content = {key: _with_blobs(job.get(key), blobs) for key in _CONTENT if key != "maker" or key in job}
        previews.append(
            PreviewJob(
                key=job["id"],
                name=f"{job.get('name', job['id'])}{spec.name_suffix or ''}",
                function=job.get("function", ""),
                own=layer_of(job, origin, f"{JOB_BY_ID}{job['id']}"),
                digest=digest([content, list(code)]),
                needs=sorted(needs),
            )
        )
    return previews


def _with_blobs(value: Any, blobs: Mapping[str, str]) -> Any:
    """Return a value in which each file is a blob id: it counts by its content, not its name."""
    if isinstance(value, dict):
        if "$path" in value:
            return {"$blob": blobs.get(value["$path"])}
        if "$load" in value:
            return {"$loaded": blobs.get(value["$load"])}
        return {key: _with_blobs(inner, blobs) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_blobs(inner, blobs) for inner in value]
    return value
