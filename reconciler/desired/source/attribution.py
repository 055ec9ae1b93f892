"""Who set a value, and which commit made a run config change.

``git blame`` names whoever touched the line last, so also whoever moved the file, put rules in another
order or changed the indentation. Here such a commit is passed over: while the same document had the same
value before, wherever it stood, the search goes on there.

Where a stronger rule was removed, or rules got another order, the value is old and the change is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from reconciler.desired.source.git import Source
from reconciler.desired.source.history import CommitInfo, History
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Manifest, ParsedFile
from reconciler.model.settings import Origin

# Who set a value: the commit that gave it the content that it has, and its author.


class Authors:
    """Answers who set the values of a revision. ``parsed_blob`` gives the documents of a blob."""

    def __init__(self, source: Source, parsed_blob: Callable[[str], ParsedFile | None]) -> None:
        self.history = History(source)
        self._parsed_blob = parsed_blob
        self._known: dict[tuple[str, str | None, str | None, str], CommitInfo | None] = {}

    def of(self, commit: str, manifest: Manifest, pointer: str) -> CommitInfo | None:
        """Return who gave the value at ``pointer`` the content that it has in ``commit``.

        None if the file of the manifest is not that of this commit.
        """
        key = (commit, manifest.kind, manifest.name, pointer)
        if key not in self._known:
            self._known[key] = self._search(commit, manifest, pointer)
        return self._known[key]

    def _search(self, commit: str, manifest: Manifest, pointer: str) -> CommitInfo | None:
        value = manifest.value(pointer)
        while True:
            writers = self.history.line_commits(commit, manifest.file, *manifest.lines(pointer))
            if not writers:
                return None
            newest = self.history.info(self.history.newest(writers))
            before = self._before(newest, manifest, pointer, value) if newest is not None else None
            if before is None:
                return newest
            commit, manifest = before

    def _before(
        self, commit: CommitInfo, manifest: Manifest, pointer: str, value: Any
    ) -> tuple[str, Manifest] | None:
        """Return the parent, and the document there, that had the same value before ``commit``."""
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


# Which commit made a run config change: not always the one that wrote the value that counts now.


class Causes:
    """Looks among the commits between the revision applied last (``base``) and the desired one.

    ``files`` says where each manifest (``Kind/name``) stood at ``base``.
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
        """Return the commit by which a value from ``old`` gave way to one from ``new``."""
        if (old, new) not in self._known:
            self._known[old, new] = self._only or self._writer(new) or self._remover(old, new) or self._newest
        return self._known[old, new]

    @cached_property
    def _newest(self) -> CommitInfo | None:
        return self.history.info(self.head)

    @cached_property
    def _only(self) -> CommitInfo | None:
        """The one commit since ``base``, if it is one: then there is nothing to search."""
        newest = self._newest
        return newest if newest is not None and newest.parents == (self.base,) else None

    def _writer(self, new: Origin | None) -> CommitInfo | None:
        """Return who wrote the new value, if that was since ``base``."""
        key = _key(new)
        manifest = self.desired.manifests.get(key)
        if new is None or manifest is None or key in self.desired.stale:
            return None
        found = self.authors.of(self.head, manifest, new.pointer)
        return None if found is None or self.history.is_part_of(found.commit, self.base) else found

    def _remover(self, old: Origin | None, new: Origin | None) -> CommitInfo | None:
        """Return who last touched the documents of both values since ``base``."""
        now = (self.desired.manifests.get(_key(origin)) for origin in (old, new))
        files = {manifest.file for manifest in now if manifest is not None}
        files |= {self.files[key] for origin in (old, new) if (key := _key(origin)) in self.files}
        return self.history.last_touching(self.base, self.head, sorted(files)) if files else None


def _key(origin: Origin | None) -> str:
    return f"{origin.kind}/{origin.name}" if origin is not None else ""
