"""Who set a value: the commit that gave it the content that it has, and its author.

``git blame`` names whoever touched the line last, so also whoever moved the file, put rules in another
order or changed the indentation. Here such a commit is passed over: while the same document had the same
value before, wherever it stood, the search goes on there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler.desired.git import Source
from reconciler.desired.history import CommitInfo, History
from reconciler.model.manifests import Manifest, ParsedFile


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
