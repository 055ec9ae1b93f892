"""Flows as built: jobs with their identity, how that identity is made, and the keys that people type."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec


class BuiltJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job of a built flow.

    ``key`` is unique in the flow: the id in the manifest, or the name, with ``#2`` and so on if it repeats.
    ``content`` is the content hash, ``parents`` are the uuids that its arguments refer to. ``own`` are the
    run config keys of its manager_config. ``files`` are (blob id, file name) of repository files among its
    arguments, ``stores`` the additional stores that it writes to. ``payload`` is the jobflow Job as JSON;
    empty where the record keeps its own.
    """

    key: str
    uuid: str
    index: int
    name: str
    function: str
    content: str
    parents: list[str]
    on_missing: str
    own: dict[str, Any]
    files: list[tuple[str, ...]]
    hosts: list[str]
    payload: bytes
    stores: list[str] = []


class BuiltFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow as its code made it, stored by build key; later plans need no import of user code.

    ``preview`` has the digest of each job as its manifest was written. ``form``, ``code``, ``files`` and
    ``externals`` are what it was built from: the content of the manifest, the code trees that count, (path,
    blob id), and the jobs of other flows; builds of earlier versions have only code. ``python_path`` are all
    code trees that its jobs import from. ``aliases`` has, by the path of the
    definition, the other paths of each function that has some: re-exports, and methods that subclasses
    inherit. ``exports`` maps the key of each job to (uuid, content hash), for flows that refer to it.
    ``makers`` has the digests of the Makers that it uses. ``imports`` are the directories of code that it was
    built with although neither its manifest nor the code that this names shows them.
    ``output`` is the JSON of the flow's own output, with the references to its jobs; empty if it has none.
    """

    build_key: str
    jobs: list[BuiltJob]
    jobflow_version: str
    code: list[str] = []
    preview: dict[str, str] = {}
    form: dict[str, Any] = {}
    files: list[tuple[str, ...]] = []
    externals: dict[str, tuple[str, str]] = {}
    aliases: dict[str, list[str]] = {}
    output: str = ""
    makers: dict[str, str] = {}
    python_path: list[str] = []
    imports: list[str] = []

    @property
    def trees(self) -> list[str]:
        """The code trees that its jobs import from; builds of earlier versions have those that count."""
        return self.python_path or self.code

    @property
    def exports(self) -> dict[str, tuple[str, str]]:
        """The jobs that other flows may refer to; under "" the output of the flow and its digest."""
        jobs = {job.key: (job.uuid, job.content) for job in self.jobs}
        return jobs | ({"": (self.output, digest(self.output))} if self.output else {})


def flow_identity(project: str, flow: str) -> str:
    """Return the uuid that all job uuids of a flow are derived from."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"reconciler:{project}/{flow}"))


def job_uuid(identity: str, content: str, ordinal: int) -> str:
    """Return the uuid of the ``ordinal``-th job (from 0) with this content hash in a flow."""
    return str(uuid.uuid5(uuid.UUID(identity), f"{content}:{ordinal}"))


def digest(value: Any) -> str:
    """Return the sha256 of the canonical JSON of plain data: sorted keys, no spaces."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def build_key(inputs: str, externals: Mapping[str, tuple[str, str]]) -> str:
    """Return the key of a build: the digest of its own inputs and of the jobs of other flows it refers to."""
    return digest([inputs, sorted((name, *reference) for name, reference in externals.items())])


def job_id(uuid: str, index: int) -> str:
    """Return the identity of one job record: ``<uuid>_<index>``."""
    return f"{uuid}_{index}"


def run_dir(work_dir: str, uuid: str, index: int, attempt: int) -> str:
    """Return the directory of an attempt: ``work_dir/aa/bb/cc/<uuid>_<index>``, later ones with ``.<n>``."""
    bare = uuid.replace("-", "")
    suffix = "" if attempt <= 1 else f".{attempt}"
    return f"{work_dir}/{bare[0:2]}/{bare[2:4]}/{bare[4:6]}/{job_id(uuid, index)}{suffix}"


def is_run_dir(path: str, job_id: str, attempt: int, work_dir: str | None = None) -> bool:
    """Return whether a path is that of an attempt: in ``work_dir`` or, without one, in any directory.

    Paths of run directories are always derived; one that was recorded and differs is not ours.
    """
    uuid, _, index = job_id.rpartition("_")
    if not index.isdigit():
        return False
    path = re.sub("/+", "/", path)
    if work_dir is not None:
        return path == re.sub("/+", "/", run_dir(work_dir, uuid, int(index), attempt))
    base = path.removesuffix(run_dir("", uuid, int(index), attempt))
    return base != path and base[:1] in ("", "/", "~") and ".." not in base.split("/")


def unique_keys(names: Iterable[str]) -> list[str]:
    """Return a key for each name, in order: ``["a", "b", "a"]`` gives ``["a", "b", "a#2"]``."""
    keys = Keys()
    return [keys.free(name) for name in names]


class Keys:
    """The keys in use in one flow. To find a free one costs the same however many there are."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._used: Counter[str] = Counter()

    def free(self, name: str) -> str:
        """Return a key for a name that no other job of the flow has, and mark it as used."""
        key = name
        while key in self._taken:
            self._used[name] += 1
            key = f"{name}#{self._used[name] + 1}"
        self._taken.add(key)
        return key
