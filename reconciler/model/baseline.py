"""What a pass leaves behind so that a later one reads only what may have changed since."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from reconciler.model.records import JobRecord
from reconciler.model.states import BROKEN, JobState


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The revision that was applied last, as the next pass compares with it.

    ``tree`` is the tree id of the folder ``path`` of the repository. ``files`` are those of the Project,
    ``manifests`` and ``code`` the directories from which it reads; an empty one is the whole folder.
    ``tables`` are the files and directories from which FlowSets take their items, ``flowsets`` the number of
    items of each FlowSet.
    ``complete``: the plan had no diagnostics, so that all of the revision is in force. ``witnesses`` names,
    for each rule that matches a job, a flow with such a job; ``renamed`` are the flows with previous names.
    ``policy`` is the digest of the policy that it was planned under.
    """

    version: str
    commit: str
    path: str
    tree: str
    files: list[str]
    manifests: list[str]
    code: list[str]
    tables: list[str] = []
    flowsets: dict[str, int] = {}
    complete: bool
    witnesses: dict[str, str] = {}
    renamed: list[str] = []
    policy: str = ""

    def reads(self, path: str) -> bool:
        """Return whether the desired state is read from a changed file, or from a directory above it."""
        return path in self.files or is_below(path, (*self.manifests, *self.code, *self.tables))

    def is_among_manifests(self, path: str) -> bool:
        """Return whether a file is in a directory of manifests."""
        return is_below(path, self.manifests)

    def is_code(self, path: str) -> bool:
        """Return whether a file is in a directory of code."""
        return is_below(path, self.code)


def is_below(path: str, places: Iterable[str]) -> bool:
    """Return whether a path is one of some files or below one of some directories; "" is the whole folder."""
    return any(not place or path == place or path.startswith(f"{place}/") for place in places)


class FlowEntry(msgspec.Struct, frozen=True, array_like=True):
    """What one flow of the baseline depends on beyond its own document, and what selects it.

    ``watched`` are the files of the repository that it names, or that it would name if they existed.
    ``refers`` are the flows whose jobs it refers to, ``flowset`` is the FlowSet that makes it.
    """

    labels: dict[str, str] = {}
    watched: list[str] = []
    refers: list[str] = []
    previous_names: list[str] = []
    flowset: str | None = None


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The flows that may differ from the baseline, and what a plan must know of the others.

    ``commit`` is that of the baseline. ``others`` is the number of flows outside of the scope that the
    revision wants. ``matched`` names, for each rule that matches a job of another flow, such a flow.
    """

    commit: str
    flows: frozenset[str]
    others: int
    matched: dict[str, str]


def may_change_plan(old: JobRecord | None, new: JobRecord) -> bool:
    """Return whether the plan of a flow without changes may have some after this change of a job's record.

    It never has if a job only moves on: the run config of a job does not depend on its state. Failures count,
    because ``on_code_change: retry_failed`` looks at them, and so do results that are given up, because
    generated jobs return with them.
    """
    if old is None or new.state in BROKEN or (old.state is JobState.COMPLETED is not new.state):
        return True
    return any(getattr(old, field) != getattr(new, field) for field in _PLANNED)


_PLANNED = (
    "flow", "key", "name", "function", "current", "content", "own", "config", "deferred", "generated_by",
    "code", "files",
)  # fmt: skip
"""Fields of a job that a plan compares with what its revision wants."""
