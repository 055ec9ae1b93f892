"""Manifests: the YAML documents of a revision, and the typed values made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from reconciler.diagnostics import Diagnostic, Location
from reconciler.model.connections import CONNECTION_FIELDS, Connection, ConnectionOptions
from reconciler.model.notifications import NotifyRule
from reconciler.model.types_ready import make_ready


class Kind(StrEnum):
    """The kinds of manifest. A Policy is a document of the same form outside of the repository."""

    PROJECT = "Project"
    WORKER = "Worker"
    EXEC_CONFIG = "ExecConfig"
    FLOW = "Flow"
    OVERRIDE_RULE = "OverrideRule"
    FLOW_SET = "FlowSet"
    MAKER = "Maker"
    POLICY = "Policy"


API_VERSION = "reconciler/v1"


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where one value of a document stands; lines and columns count from 1.

    For an entry of a mapping ``key_line, key_column`` is the place of its key, else that of the value.
    """

    key_line: int
    key_column: int
    line: int
    column: int


class Document(msgspec.Struct, frozen=True):
    """One YAML document, parsed and checked against its schema; it does not depend on the name of its file.

    ``marks`` maps the JSON pointer of every value (``/spec/set/worker``; ``""`` is the document) to its
    place; ``lines`` are the source lines of the document, beginning with line ``first_line``. ``kind`` and
    ``name`` are what could be read of them, even if the document is invalid.
    """

    kind: str | None
    name: str | None
    content: dict[str, Any]
    marks: dict[str, Mark]
    valid: bool
    first_line: int
    lines: list[str]


class ParsedFile(msgspec.Struct, frozen=True):
    """The documents and problems of one blob; ``file`` is empty in their locations.

    ``suspected_kinds`` are the kinds that a text search finds in a blob that is not readable as YAML.
    """

    documents: list[Document]
    diagnostics: list[Diagnostic]
    readable: bool
    suspected_kinds: list[str]


class ItemOrigin(msgspec.Struct, frozen=True, gc=False):
    """Where a flow of a set comes from: its item, and the rows that gave the item its values.

    ``rows`` are (columns of the source, place of the row). ``columns`` maps the JSON pointers of the flow's
    values that are ``{$item: column}`` to the column; all items of a set share it.
    """

    flowset: str
    key: str
    item: dict[str, Any]
    rows: tuple[tuple[frozenset[str], Location], ...]
    columns: Mapping[str, str]

    def row_of(self, column: str) -> Location | None:
        """Return the place of the row that gives a column; None if the FlowSet's own document does."""
        return next((place for columns, place in self.rows if column in columns), None)

    def place(self, pointer: str) -> Location | None:
        """Return the place of the row for a value of the flow that comes from the item as it is.

        For ``resources`` and other mappings of the run config that have such a value, too.
        """
        if pointer.rpartition("/")[2] in _MAPPINGS:
            below = (one for one in self.columns if one.startswith(f"{pointer}/"))
            pointer = next(below, pointer)
        while pointer:
            if pointer in self.columns:
                return self.row_of(self.columns[pointer])
            pointer = pointer.rpartition("/")[0]
        return None


_MAPPINGS = ("resources", "qresources", "exec_config", "retries")


class Manifest(msgspec.Struct, frozen=True):
    """A document in its file.

    ``item`` is where a flow of a FlowSet comes from; its file is that of the set.
    """

    file: str
    document: Document
    item: ItemOrigin | None = None

    @property
    def kind(self) -> str | None:
        """``kind`` as written."""
        return self.document.kind

    @property
    def name(self) -> str | None:
        """``metadata.name`` as written."""
        return self.document.name

    @property
    def metadata(self) -> dict[str, Any]:
        """``metadata`` of a valid document."""
        found: dict[str, Any] = self.document.content.get("metadata", {})
        return found

    @property
    def spec(self) -> dict[str, Any]:
        """``spec`` of a valid document."""
        found: dict[str, Any] = self.document.content.get("spec", {})
        return found

    def location(self, pointer: str = "", *, key: bool = False) -> Location:
        """Return the place of the value (or of its key) at ``pointer``, or of its nearest parent.

        ``/spec/jobs/id=relax/...`` is the job with that id, at any position of the list. The place of a value
        that an item gives is its row, in another file.
        """
        pointer = self._numbered(pointer)
        row = self.item.place(pointer) if self.item is not None else None
        if row is not None:
            return row
        while pointer and pointer not in self.document.marks:
            pointer = pointer.rpartition("/")[0]
        mark = self.document.marks.get(pointer, Mark(1, 1, 1, 1))
        line, column = (mark.key_line, mark.key_column) if key else (mark.line, mark.column)
        return Location(self.file, line, column)

    def value(self, pointer: str) -> Any:
        """Return the value at ``pointer``, or at its nearest parent; see :meth:`location`."""
        found: Any = self.document.content
        for step in self._numbered(pointer).split("/")[1:]:
            below = _below(found, step.replace("~1", "/").replace("~0", "~"))
            if below is None:
                break
            (found,) = below
        return found

    def lines(self, pointer: str) -> tuple[int, int]:
        """Return the first and the last line of the value at ``pointer``, its key included."""
        start = self.location(pointer, key=True).line
        if self.item is not None and self.item.place(self._numbered(pointer)) is not None:
            return start, start
        prefix = self._numbered(pointer)
        below = (mark.line for at, mark in self.document.marks.items() if f"{at}/".startswith(f"{prefix}/"))
        return start, max(below, default=start)

    def _numbered(self, pointer: str) -> str:
        head, found, rest = pointer.partition(JOB_BY_ID)
        if not found:
            return pointer
        job_id, _, below = rest.partition("/")
        ids = [job.get("id") for job in self.spec.get("jobs", [])]
        number = ids.index(job_id) if job_id in ids else ""
        return f"{head}/spec/jobs/{number}/{below}".rstrip("/")

    def excerpt(self, line: int) -> str | None:
        """Return the source line with that number."""
        at = line - self.document.first_line
        return self.document.lines[at] if 0 <= at < len(self.document.lines) else None

    def diagnostic(
        self, code: str, message: str, pointer: str = "", *, key: bool = False, **rest: Any
    ) -> Diagnostic:
        """Return a diagnostic that points at the value (or its key) at ``pointer``."""
        location = self.location(pointer, key=key)
        excerpt = self.excerpt(location.line) if location.file == self.file else None
        if "width" not in rest:
            rest["width"] = _token_width(excerpt, location.column)
        return Diagnostic(code=code, message=message, location=location, excerpt=excerpt, **rest)


JOB_BY_ID = "/spec/jobs/id="
"""Starts a pointer to a job by its id, which, unlike its position, stays the same when jobs are added."""


class GoodManifest(msgspec.Struct, frozen=True, array_like=True):
    """The place of a manifest's last good version: file, key of its parsed blob, position in the file."""

    file: str
    parsed: str
    position: int


def _below(value: Any, step: str) -> tuple[Any] | None:
    """Return the entry of a mapping or list in a tuple, since it may be None; None if it does not exist."""
    if isinstance(value, dict) and step in value:
        return (value[step],)
    if isinstance(value, list) and step.isdigit() and int(step) < len(value):
        return (value[int(step)],)
    return None


def _token_width(line: str | None, column: int) -> int:
    """Return the length of the word that begins at ``column``."""
    if line is None:
        return 1
    rest = line[column - 1 :]
    for end, character in enumerate(rest):
        if character in " ,]}\t#" or rest[end : end + 2] in (":", ": "):
            return max(1, end)
    return max(1, len(rest))


class CleanupAfter(msgspec.Struct, frozen=True, kw_only=True):
    """A time after which finished run directories are removed: ``7d``."""

    after: str

    @property
    def seconds(self) -> int:
        """The time in seconds."""
        return int(self.after[:-1]) * _UNITS[self.after[-1]]


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class PollInterval(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds between two polls of a worker: shortest while jobs move, longest while nothing does."""

    shortest: float = 0.5
    longest: float = 10.0


class BatchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How the jobs of a batch worker share its allocations; names as in jobflow-remote.

    ``parallel_jobs`` run at a time in an allocation. ``max_wait`` and ``max_time`` are seconds: how long an
    allocation waits for jobs, and after which it starts none.
    """

    parallel_jobs: int = 1
    max_jobs_per_batch: int | None = None
    max_wait: float = 60.0
    max_time: float | None = None


class WorkerSpec(ConnectionOptions, frozen=True, kw_only=True):
    """Where jobs run: host, scheduler, work_dir and limits. Fields as in jobflow-remote.

    ``sanitize_command`` has no effect: the output of login files is always cut off. With ``batch``, the
    resources and ``max_jobs`` are those of allocations, which run the jobs.
    """

    type: str
    scheduler_type: str
    work_dir: str
    host: str | None = None
    transfer: Connection | None = None
    resources: dict[str, Any] | UnsetType = UNSET
    qresources: dict[str, Any] | UnsetType = UNSET
    pre_run: str = ""
    post_run: str = ""
    timeout_execute: int = 60
    max_jobs: int | None = None
    python: str | None = None
    scheduler_username: str | None = None
    sanitize_command: bool = False
    cleanup: Literal["keep", "completed"] | CleanupAfter = "keep"
    poll_interval: PollInterval | None = None
    batch: BatchSpec | None = None

    @property
    def connection(self) -> Connection | None:
        """How its host is reached; None for this machine."""
        if self.type == "local" or self.host is None:
            return None
        return Connection(**{name: getattr(self, name) for name in CONNECTION_FIELDS})

    @property
    def transfer_connection(self) -> Connection | None:
        """How files reach the worker: through a transfer host of its own, or the host of the jobs."""
        return self.transfer.below(self) if self.transfer is not None else self.connection


class OnSetupError(StrEnum):
    """What happens when a module cannot be loaded: the job fails without being started, or it runs."""

    FAIL = "fail"
    IGNORE = "ignore"


class ExecConfigSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Commands around a job. ``expand`` lets the shell expand variables in the values of ``export``.

    ``on_setup_error`` is what happens when a module cannot be loaded.
    """

    modules: list[str] = []
    export: dict[str, str] = {}
    expand: bool = False
    on_setup_error: OnSetupError = OnSetupError.FAIL
    pre_run: str = ""
    post_run: str = ""

    @property
    def digest(self) -> str:
        """The first 12 digits of the sha256 of the content."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]


class OnChange(StrEnum):
    """What happens to jobs of the old content when a flow changes."""

    RECOMPUTE = "recompute"
    HOLD = "hold"


class OnCodeChange(StrEnum):
    """What happens to jobs that ended when only code in ``python_path`` changes.

    Results are kept, or computed again; ``retry_failed`` keeps results and runs failed jobs again.
    """

    KEEP = "keep"
    RECOMPUTE = "recompute"
    RETRY_FAILED = "retry_failed"


class Prune(StrEnum):
    """What happens to a flow whose manifest was removed."""

    CANCEL = "cancel"
    ORPHAN = "orphan"
    DELETE = "delete"


class BuildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How flows are built. ``env`` are environment variables of the build process."""

    env: dict[str, str] = {}


DEFAULT_DIRECTORIES = ("workers", "exec_configs", "makers", "flows", "rules")


class ProjectSpec(msgspec.Struct, frozen=True, kw_only=True):
    """``kind: Project``."""

    manifests: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_DIRECTORIES))
    defaults: dict[str, Any] = {}
    python_path: list[str] = []
    jobstore: dict[str, Any] | None = None
    on_change: OnChange = OnChange.RECOMPUTE
    on_code_change: OnCodeChange = OnCodeChange.KEEP
    prune: Prune = Prune.CANCEL
    max_prune: float = 0.3
    build_timeout: float = 120.0
    build: BuildSpec = BuildSpec()
    notify: list[NotifyRule] = []


class RuleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """``kind: OverrideRule``. ``set`` has the keys that the rule touches and no others."""

    set: dict[str, Any]
    order: int = 100
    flows: list[str] = []
    labels: dict[str, str] = {}
    name_filter: str | None = None
    name_glob: str | None = None
    function_filter: str | None = None
    makers: list[str] = []
    dynamic: bool = True


class MakerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """``kind: Maker``: the class of a jobflow Maker and its arguments."""

    class_: str = msgspec.field(name="class")
    kwargs: dict[str, Any] = {}


class FlowSpec(msgspec.Struct, frozen=True, kw_only=True):
    """``kind: Flow``. Exactly one of ``jobs``, ``maker``, ``factory``, ``file`` is given.

    ``worker, exec_config, resources, qresources, priority, retries`` are the flow's level of the run config;
    they are read from the manifest by presence, see :mod:`reconciler.model.run_config`.
    """

    jobs: list[dict[str, Any]] | None = None
    maker: dict[str, Any] | None = None
    factory: dict[str, Any] | None = None
    file: str | None = None
    metadata: dict[str, Any] = {}
    name_suffix: str | None = None
    build: BuildSpec = BuildSpec()
    on_change: OnChange | None = None
    on_code_change: OnCodeChange | None = None
    prune: Prune | None = None
    suspend: bool = False
    suspend_reason: str | None = None
    rerun: str | int | None = None

    @property
    def form(self) -> str:
        """Which of the four is given: the key below ``spec``."""
        forms = ("maker", "factory", "file")
        return next((form for form in forms if getattr(self, form) is not None), "jobs")


make_ready(ProjectSpec, WorkerSpec, ExecConfigSpec, RuleSpec, MakerSpec, FlowSpec)
