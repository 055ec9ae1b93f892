"""The history of a source: the author of a value, and the commit that changed a run config.

``git blame`` names the last author of a line, who may only have moved the file, reordered rules or changed
the indentation. Here such a commit is skipped: if the same document had the same value before, wherever it
was, the search continues there.

Where a stronger rule was removed, or rules were reordered, the value is old and the change is new:
:class:`Causes` finds the commit of the change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from reconciler.desired.source.command import printable
from reconciler.desired.source.git import Source
from reconciler.desired.source.objects import TreeEntry
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Manifest, ParsedFile
from reconciler.model.settings import Origin


class CommitInfo(msgspec.Struct, frozen=True):
    """One commit: its author, time (seconds since the epoch) and subject."""

    commit: str
    parents: tuple[str, ...]
    author: str
    time: float
    summary: str


_FORMAT = "--format=%H%x00%P%x00%aN <%aE>%x00%at%x00%s"


class History:
    """Queries to the history of one repository. A commit never changes, so answers are cached."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._known: dict[str, CommitInfo | None] = {}

    def info(self, commit: str) -> CommitInfo | None:
        """Return a commit, or None if the repository does not have it, or no longer has it."""
        if commit not in self._known:
            self._known[commit] = self._last("--max-count=1", commit, "--")
        return self._known[commit]

    def _last(self, *arguments: str) -> CommitInfo | None:
        raw = self.source.run("log", _FORMAT, *arguments, check=False).stdout
        fields = printable(raw).rstrip("\n").split("\0")
        if len(fields) != 5:
            return None
        commit, parents, author, time, summary = fields
        return CommitInfo(commit, tuple(parents.split()), author, float(time), summary)

    def last_touching(self, after: str, commit: str, files: Sequence[str]) -> CommitInfo | None:
        """Return the newest commit of ``commit``, but not of ``after``, that touched ``files``."""
        places = [f":(literal){self.source.inside(file)}" for file in files]
        return self._last("--max-count=1", commit, f"^{after}", "--", *places)

    def is_part_of(self, commit: str, later: str) -> bool:
        """Return whether ``commit`` is ``later`` or one of its ancestors."""
        return self.source.run("merge-base", "--is-ancestor", commit, later, check=False).returncode == 0

    def last_change(self, commit: str, file: str, first: int, last: int) -> CommitInfo | None:
        """Return the newest commit, from ``commit`` backwards, that changed these lines of a file.

        None if the lines do not exist. ``git log -L`` answers, since ``git blame`` fails if a file with
        ignored revisions that the user's configuration names does not exist here.
        """
        lines = f"-L{first},{last}:{self.source.inside(file)}"
        return self._last("--no-patch", "--no-ext-diff", "--no-textconv", "--max-count=1", lines, commit)

    def last_with(self, commit: str, file: str, blob: str) -> str | None:
        """Return the newest commit, from ``commit`` backwards, in which a file has this content."""
        if self._has(commit, file, blob):
            return commit
        place = f":(literal){self.source.inside(file)}"
        changed = self._last("--max-count=1", f"--find-object={blob}", commit, "--", place)
        parents = changed.parents if changed is not None else ()
        return next((parent for parent in parents if self._has(parent, file, blob)), None)

    def _has(self, commit: str, file: str, blob: str) -> bool:
        entry = self.source.entry(commit, file)
        return entry is not None and entry.object_id == blob

    def replaced(self, parent: str, commit: str) -> list[TreeEntry]:
        """Return the YAML files of ``parent`` that ``commit`` has changed, moved or removed."""
        trees = self.source.objects(*(f"{one}:{self.source.path}" for one in (parent, commit)))
        if trees[0] is None or trees[1] is None:
            return []
        changes = self.source.changed_files(trees[0][0], trees[1][0]) or []
        replaced = [change.old for change in changes if change.old is not None]
        return [entry for entry in replaced if entry.path.endswith((".yaml", ".yml"))]


class Authors:
    """Finds the commits that set the values of a revision. ``parsed_blob`` gives the documents of a blob."""

    def __init__(self, source: Source, parsed_blob: Callable[[str], ParsedFile | None]) -> None:
        self.history = History(source)
        self._parsed_blob = parsed_blob
        self._known: dict[tuple[str, str | None, str | None, str], CommitInfo | None] = {}

    def of(self, commit: str, manifest: Manifest, pointer: str) -> CommitInfo | None:
        """Return the commit that set the value at ``pointer`` of a manifest as it is in ``commit``.

        None if the file of the manifest is not in this commit.
        """
        key = (commit, manifest.kind, manifest.name, pointer)
        if key not in self._known:
            self._known[key] = self._search(commit, manifest, pointer)
        return self._known[key]

    def _search(self, commit: str, manifest: Manifest, pointer: str) -> CommitInfo | None:
        value = manifest.value(pointer)
        while True:
            file = manifest.location(pointer).file  # the table, for a value that the item of a flow gives
            newest = self.history.last_change(commit, file, *manifest.lines(pointer))
            before = self._before(newest, manifest, pointer, value) if newest is not None else None
            if before is None:
                return newest
            commit, manifest = before

    def _before(
        self, commit: CommitInfo, manifest: Manifest, pointer: str, value: Any
    ) -> tuple[str, Manifest] | None:
        """Return the parent and the document in it that had the same value before ``commit``."""
        for parent in commit.parents:
            for entry in self.history.replaced(parent, commit.commit):
                older = self._document(entry.path, entry.object_id, manifest)
                if older is not None and older.value(pointer) == value:
                    return parent, older
        return None

    def _document(self, file: str, blob: str, wanted: Manifest) -> Manifest | None:
        parsed = self._parsed_blob(blob)
        for document in parsed.documents if parsed is not None else []:
            if (document.kind, document.name) == (wanted.kind, wanted.name):
                return Manifest(file, document)
        return None


class Causes:
    """Finds the commits that changed a run config since the revision that was applied last (``base``).

    ``files`` maps each manifest (``Kind/name``) to its file at ``base``.
    """

    def __init__(self, authors: Authors, desired: DesiredState, base: str, files: Mapping[str, str]) -> None:
        self.authors = authors
        self.history = authors.history
        self.desired = desired
        self.base = base
        self.head = desired.revision.commit
        self.files = files
        self._known: dict[tuple[Origin | None, Origin | None], CommitInfo | None] = {}

    def of(self, old: Origin | None, new: Origin | None) -> CommitInfo | None:
        """Return the commit that replaced a value from ``old`` by one from ``new``."""
        if (old, new) not in self._known:
            self._known[old, new] = self._only or self._writer(new) or self._remover(old, new) or self._newest
        return self._known[old, new]

    @cached_property
    def _newest(self) -> CommitInfo | None:
        return self.history.info(self.head)

    @cached_property
    def _only(self) -> CommitInfo | None:
        """The commit after ``base`` if it is the only one, so that no search is needed."""
        newest = self._newest
        return newest if newest is not None and newest.parents == (self.base,) else None

    def _writer(self, new: Origin | None) -> CommitInfo | None:
        """Return the commit that wrote the new value, if it is newer than ``base``."""
        key = _key(new)
        manifest = self.desired.manifests.get(key)
        if new is None or manifest is None or key in self.desired.stale:
            return None
        found = self.authors.of(self.head, manifest, new.pointer)
        return None if found is None or self.history.is_part_of(found.commit, self.base) else found

    def _remover(self, old: Origin | None, new: Origin | None) -> CommitInfo | None:
        """Return the last commit since ``base`` that touched the documents of both values."""
        now = (self.desired.manifests.get(_key(origin)) for origin in (old, new))
        files = {manifest.file for manifest in now if manifest is not None}
        files |= {self.files[key] for origin in (old, new) if (key := _key(origin)) in self.files}
        return self.history.last_touching(self.base, self.head, sorted(files)) if files else None


def _key(origin: Origin | None) -> str:
    return f"{origin.kind}/{origin.name}" if origin is not None else ""
