"""Which commit made a run config change: not always the one that wrote the value that counts now.

Where a stronger rule was removed, or rules got another order, the value is old and the change is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from reconciler.desired.authorship import Authors
from reconciler.desired.history import CommitInfo
from reconciler.model.desired import DesiredState
from reconciler.model.settings import Origin


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
