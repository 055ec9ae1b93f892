"""What a pass leaves behind so that a later one reads only what may have changed since."""

from __future__ import annotations

import msgspec

from reconciler.model.records import JobRecord
from reconciler.model.states import BROKEN, JobState


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The revision that was applied last, as the next pass compares with it.

    ``tree`` is the tree id of the folder ``path`` of the repository. ``places`` are the files and directories
    from which the desired state is read, besides the files that flows name; an empty one is the whole folder.
    ``complete``: the plan had no diagnostics, so that all of the revision is in force.
    """

    version: str
    commit: str
    path: str
    tree: str
    places: list[str]
    complete: bool

    def reads(self, path: str) -> bool:
        """Return whether a changed file or directory is among the places."""
        return any(not place or path == place or path.startswith(f"{place}/") for place in self.places)


class FlowEntry(msgspec.Struct, frozen=True, array_like=True):
    """What one flow of the baseline depends on beyond its own document.

    ``watched`` are the files of the repository that it names, or that it would name if they existed.
    """

    watched: list[str] = []


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
