"""The history of a source: who wrote which line, what a commit replaced, who touched a file last."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reconciler.desired.source.git import Source, TreeEntry


class CommitInfo(msgspec.Struct, frozen=True):
    """One commit: who made it, when (seconds since the epoch), and what it says of itself."""

    commit: str
    parents: tuple[str, ...]
    author: str
    time: float
    summary: str


_FORMAT = "--format=%H%x00%P%x00%aN <%aE>%x00%at%x00%s"


class History:
    """Questions to the history of one repository. A commit never changes, so answers are kept."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._known: dict[str, CommitInfo | None] = {}

    def info(self, commit: str) -> CommitInfo | None:
        """Return a commit, or None if the repository does not have it (any more)."""
        if commit not in self._known:
            self._known[commit] = self._last("--max-count=1", commit, "--")
        return self._known[commit]

    def _last(self, *arguments: str) -> CommitInfo | None:
        raw = self.source.run("log", _FORMAT, *arguments, check=False).stdout
        fields = raw.decode(errors="replace").rstrip("\n").split("\0")
        if len(fields) != 5:
            return None
        commit, parents, author, time, summary = fields
        return CommitInfo(commit, tuple(parents.split()), author, float(time), summary)

    def last_touching(self, after: str, commit: str, files: Sequence[str]) -> CommitInfo | None:
        """Return the newest commit that ``commit`` has and ``after`` has not, and that touched ``files``."""
        places = [f":(literal){self.source.inside(file)}" for file in files]
        return self._last("--max-count=1", commit, f"^{after}", "--", *places)

    def is_part_of(self, commit: str, later: str) -> bool:
        """Whether ``commit`` is ``later`` or one of its ancestors."""
        return self.source.run("merge-base", "--is-ancestor", commit, later, check=False).returncode == 0

    def line_commits(self, commit: str, file: str, first: int, last: int) -> list[str]:
        """Return the commits that wrote these lines of a file as of ``commit``; empty if there are none."""
        raw = self.source.run(
            "blame",
            "--porcelain",
            "-L",
            f"{first},{last}",
            commit,
            "--",
            self.source.inside(file),
            check=False,
        ).stdout.decode(errors="replace")
        headers = (line.split(" ") for line in raw.splitlines() if not line.startswith("\t"))
        return sorted({words[0] for words in headers if len(words[0]) >= 40 and len(words) >= 3})

    def last_with(self, commit: str, file: str, blob: str) -> str | None:
        """Return the newest commit, down from ``commit``, in which a file has this content."""
        if self._has(commit, file, blob):
            return commit
        place = f":(literal){self.source.inside(file)}"
        changed = self._last("--max-count=1", f"--find-object={blob}", commit, "--", place)
        parents = changed.parents if changed is not None else ()
        return next((parent for parent in parents if self._has(parent, file, blob)), None)

    def _has(self, commit: str, file: str, blob: str) -> bool:
        entry = self.source.entry(commit, file)
        return entry is not None and entry.object_id == blob

    def newest(self, commits: Sequence[str]) -> str:
        """Return the one that is no ancestor of another; clocks may be wrong, descent is not."""
        if len(commits) == 1:
            return commits[0]
        raw = self.source.run("rev-list", "--topo-order", "--max-count=1", *commits).stdout
        return raw.decode().strip()

    def replaced(self, parent: str, commit: str) -> list[TreeEntry]:
        """Return the YAML files of ``parent`` that ``commit`` has changed, moved or removed."""
        where = [f":(literal){self.source.path}"] if self.source.path else []
        raw = self.source.run(
            "diff-tree",
            "-r",
            "-z",
            "--no-renames",
            "--diff-filter=MDT",
            parent,
            commit,
            "--",
            *where,
            check=False,
        ).stdout.decode(errors="surrogateescape")
        fields = raw.split("\0")
        pairs = zip(fields[::2], fields[1::2], strict=False)
        return [TreeEntry(self._below(path), *_old(facts)) for facts, path in pairs if _is_yaml(path)]

    def _below(self, path: str) -> str:
        return path.removeprefix(f"{self.source.path}/") if self.source.path else path


def _old(facts: str) -> tuple[str, str]:
    """``:100644 100755 <old blob> <new blob> M`` is how git says it."""
    mode, _, blob = facts.lstrip(":").split(" ")[:3]
    return mode, blob


def _is_yaml(path: str) -> bool:
    return path.endswith((".yaml", ".yml"))
