"""The desired state: everything that one revision wants, validated, with the layers of the run config."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.diagnostics import Diagnostic, Location
from reconciler.model.flowsets import FlowSetSpec
from reconciler.model.manifests import (
    ExecConfigSpec,
    FlowSpec,
    Kind,
    Manifest,
    OnChange,
    OnCodeChange,
    ProjectSpec,
    Prune,
    WorkerSpec,
)
from reconciler.model.policy import SourceRules
from reconciler.model.run_config import Rule
from reconciler.model.settings import Layer, Origin


class Revision(msgspec.Struct, frozen=True):
    """One resolved commit of a source. ``tree`` is the tree id of ``path``, the subdirectory in use.

    ``policy`` is the digest of the policy under which it is read; empty without one.
    """

    branch: str
    commit: str
    path: str
    tree: str
    policy: str = ""

    def __str__(self) -> str:
        return f"{self.branch}@{self.commit[:7]}"


class PreviewJob(msgspec.Struct, frozen=True):
    """A job of the ``jobs:`` form as the manifest shows it, before anything is built.

    ``digest`` is that of its own content as written, ``needs`` the jobs (``flow/job``) that it refers to.
    ``function`` is empty for an entry with a maker, which may make several jobs.
    """

    key: str
    name: str
    function: str
    own: Layer
    digest: str = ""
    needs: list[str] = []


class DesiredFlow(msgspec.Struct, frozen=True, kw_only=True):
    """One flow that the revision wants.

    ``inputs`` is the digest of everything that its build depends on (spec, code trees, files) except the
    jobs of other flows; those are ``externals`` (``flow/job``, or ``flow/`` for the output of a flow).
    ``code`` are the code trees that count for it, ``python_path`` all that its jobs can import from,
    ``files`` pairs of path and blob id. ``content`` is the part of the spec that its build depends on.
    ``entries`` are those of the ``jobs:`` form. ``preview`` is empty where only code knows the jobs: in
    the other forms, and if an entry has a maker. ``stale``: this is the last good version, since that of
    the revision is invalid. ``identity`` is the uuid from which the uuids of its jobs are made; it comes
    from the first name of the flow, so that a rename keeps them. ``watched`` are the paths of the files
    that it names, or would name if they existed. ``protected`` is None where the manifest does not say:
    then the value of an earlier one holds. ``scanned`` are the trees of ``code`` that its manifest and their
    text name; the others count because its build imported them: from ``imports``, the directories that an
    earlier build noted. ``makers`` has the digests of the Makers that it uses,
    ``makers_of`` their names by the id of an entry, or under "" those of another form. ``env`` are the
    environment variables of its build.
    """

    name: str
    manifest: Manifest
    spec: FlowSpec
    labels: dict[str, str]
    layer: Layer
    inputs: str
    code: list[str]
    python_path: list[str] = []
    files: list[tuple[str, ...]]
    externals: list[str]
    preview: list[PreviewJob]
    on_change: OnChange
    content: dict[str, Any] = {}
    on_code_change: OnCodeChange = OnCodeChange.KEEP
    prune: Prune
    protected: bool | None = None
    stale: bool = False
    identity: str = ""
    previous_names: list[str] = []
    watched: list[str] = []
    entries: list[PreviewJob] = []
    makers: dict[str, str] = {}
    makers_of: dict[str, list[str]] = {}
    env: dict[str, str] = {}
    scanned: list[str] = []
    imports: list[str] = []

    def is_protected(self, before: bool) -> bool:
        """Return whether the flow outlives its manifest; ``before`` is the value in its record."""
        return before if self.protected is None else self.protected

    @property
    def flowset(self) -> str | None:
        """The FlowSet that the flow comes from; None for a flow with a document of its own."""
        return self.manifest.item.flowset if self.manifest.item is not None else None

    @property
    def item(self) -> dict[str, Any]:
        """The values of its item; empty for a flow with a document of its own."""
        return self.manifest.item.item if self.manifest.item is not None else {}

    @property
    def rerun(self) -> str | None:
        """``spec.rerun``: with a new value, failed and cancelled jobs run again."""
        return None if self.spec.rerun is None else str(self.spec.rerun)


class DesiredFlowSet(msgspec.Struct, frozen=True, kw_only=True):
    """One FlowSet that the revision wants.

    ``items`` counts its items, those that cannot be used included. ``watched`` are the files and folders of
    the repository from which the items come; an empty one is the whole folder of the project.
    """

    name: str
    manifest: Manifest
    spec: FlowSetSpec
    items: int
    watched: list[str] = []


class Hold(msgspec.Struct, frozen=True):
    """New submissions wait, because a document that they depend on is invalid.

    ``rule`` is the last readable form of an invalid rule; None holds every flow.
    """

    reason: str
    rule: Rule | None = None


class DesiredState(msgspec.Struct, kw_only=True):
    """What one revision wants.

    ``manifests`` (``Kind/name``) has every document in use. ``invalid`` maps the name of each flow whose
    document of this revision is unusable to the reason. ``holds`` and ``stale`` (``Worker/name``,
    ``ExecConfig/name``) make new submissions wait. ``digests`` are those of the ExecConfigs.
    ``name_in_uuids`` is the first name of a renamed project; the uuids of jobs are made from it.
    ``frozen`` maps the name of each FlowSet of which nothing is removed to the reason; it includes sets that
    ``flowsets`` does not have, since they cannot be read at all. ``policy`` is what the user lets the source
    do; None if that is everything. ``signer`` is who signed the revision, if the policy asks for that.
    """

    revision: Revision
    project_name: str
    project: ProjectSpec
    project_layer: Layer
    workers: dict[str, WorkerSpec]
    exec_configs: dict[str, ExecConfigSpec]
    rules: list[Rule]
    flows: dict[str, DesiredFlow]
    manifests: dict[str, Manifest]
    invalid: dict[str, str] = {}
    holds: list[Hold] = []
    stale: set[str] = set()
    unusable: dict[str, str] = {}
    diagnostics: list[Diagnostic] = []
    digests: dict[str, str] = {}
    flowsets: dict[str, DesiredFlowSet] = {}
    frozen: dict[str, str] = {}
    name_in_uuids: str = ""
    policy: SourceRules | None = None
    signer: str = ""

    def __post_init__(self) -> None:
        """Compute the digests, once for all flows."""
        self.digests = {name: spec.digest for name, spec in self.exec_configs.items()}

    @property
    def project_known(self) -> bool:
        """Whether there is a Project, of this revision or the last good one."""
        return f"{Kind.PROJECT}/{self.project_name}" in self.manifests

    @property
    def has_errors(self) -> bool:
        """Whether a document of the revision is invalid."""
        return any(diagnostic.is_error for diagnostic in self.diagnostics)

    def locate(self, origin: Origin) -> Location | None:
        """Return the place of an origin's value in this revision."""
        manifest = self.manifests.get(f"{origin.kind}/{origin.name}")
        return manifest.location(origin.pointer) if manifest is not None else None

    def provenance(self, origin: Origin) -> dict[str, Any]:
        """Return an origin as users see it: level, kind, name, file, line."""
        location = self.locate(origin)
        return {
            "level": str(origin.level),
            "kind": origin.kind,
            "name": origin.name,
            "file": location.file if location else None,
            "line": location.line if location else None,
        }
