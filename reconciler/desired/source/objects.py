"""The object database of a repository: files, trees and code, exactly as they were committed."""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from reconciler.desired.source.command import (
    common_dir,
    first_line,
    list_by_git,
    printable,
    run_git,
    streaming_git,
)
from reconciler.errors import LostError, TransientError, UnfitError, WorldError

_SYMLINK, _SUBMODULE, _EXECUTABLE, DIRECTORY = "120000", "160000", "100755", "040000"
_OBJECT_TYPES = frozenset(("commit", "tree", "blob", "tag"))
_LFS_POINTER = re.compile(rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/spec/")
_LFS_SIZES = range(60, 1025)
"""Sizes in bytes of the pointer files of Git LFS; its specification allows less than 1024."""


_ASKED_AHEAD = 100
"""Objects that git is asked for at once: their names must fit into a pipe while the answers wait."""

_CHUNK = 1 << 16

MOST_LISTED = 32 << 20
"""Bytes of the longest list of files: about 300,000 files."""

_MOST_CHANGES = 100_000
"""How many changed files and folders are compared; if there are more, everything is read."""

_EMPTY_TREE = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
"""The id of a folder without files, by the length of the ids of a repository. Git knows it everywhere."""

MOST_READ = 512 << 20
"""Bytes of the largest code tree, and of the files that are read at a time."""


class TreeEntry(msgspec.Struct, frozen=True):
    """One file of a tree; ``path`` is relative to the directory that was listed."""

    path: str
    mode: str
    object_id: str

    @property
    def is_file(self) -> bool:
        """Return whether it is a plain file, neither symlink nor submodule."""
        return self.mode not in (_SYMLINK, _SUBMODULE, DIRECTORY)

    @property
    def executable(self) -> bool:
        """Return whether a checkout would make the file executable."""
        return self.mode == _EXECUTABLE

    @property
    def what(self) -> str:
        """The kind of entry, for a message."""
        return {_SYMLINK: "symlink", _SUBMODULE: "submodule", DIRECTORY: "folder"}.get(self.mode, "file")


class FileChange(msgspec.Struct, frozen=True):
    """A file that differs between two trees; None where a tree does not have it."""

    path: str
    old: TreeEntry | None
    new: TreeEntry | None


class UnfitEntry(msgspec.Struct, frozen=True):
    """An entry of a code tree that cannot be sent to a worker; ``what`` is its kind."""

    path: str
    what: str


UNFIT_HINTS = {
    "symlink": "replace the symlink by the file that it points to",
    "submodule": "copy the files of the submodule into this repository, or install them on the worker",
    "pointer of Git LFS": "commit the file itself, without Git LFS; reconciler reads only what git stores",
    "folder": "name a single file",
}
"""The remedy for each kind of entry that cannot be used as a file."""


class ObjectDatabase:
    """Reads the objects of one repository. ``url`` is the remote of which ``git_dir`` is a mirror."""

    def __init__(self, git_dir: Path, url: str | None = None) -> None:
        self.git_dir = git_dir
        self.url = url
        self._unfit: dict[str, list[UnfitEntry]] = {}

    def run(
        self, *arguments: str, stdin: bytes | None = None, check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git on this repository; see :func:`run_git`.

        Raises
        ------
        WorldError
            git failed, and ``check`` is set.
        TransientError
            git gave no answer in time, or cannot be started now.
        """
        where = ["-C", str(cwd)] if cwd is not None else [f"--git-dir={self.git_dir}"]
        return run_git([*where, *arguments], git_dir=self.git_dir, stdin=stdin, check=check)

    def listed(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Return what a git command lists, of a bounded length; see :func:`list_by_git`.

        Raises
        ------
        UnfitError
            The list is too long.
        WorldError, TransientError
            git failed.
        """
        where = [f"--git-dir={self.git_dir}", *arguments]
        done = list_by_git(where, MOST_LISTED, git_dir=self.git_dir, stdin=stdin)
        if done.returncode != 0:
            raise WorldError(f"git {arguments[0]} failed: {first_line(done.stderr)}")
        return done.stdout

    def common_dir(self) -> Path:
        """Return the directory that holds the branches; for a linked work tree, that of the main one."""
        return common_dir(self.git_dir)

    def objects(self, *names: str) -> list[tuple[str, str] | None]:
        """Return (object id, type) of each name, or None if it does not exist; one command for all."""
        raw = self.run(
            "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=os.fsencode("\n".join(names))
        )
        lines = raw.stdout.decode(errors="replace").split("\n")
        fields = [line.rpartition(" ") for line in lines[: len(names)]]
        return [(head, kind) if kind in _OBJECT_TYPES else None for head, _, kind in fields]

    def knows(self, commit: str) -> bool:
        """Return whether this repository has a commit."""
        (found,) = self.objects(f"{commit}^{{commit}}")
        return found is not None

    def top_level_names(self, tree: str) -> set[str]:
        """Return the names directly below a tree."""
        raw = self.run("ls-tree", "--name-only", "-z", tree).stdout.decode(errors="surrogateescape")
        return {name for name in raw.split("\0") if name}

    def changed_files(self, old: str, new: str) -> list[FileChange] | None:
        """Return the files that differ between two trees, by path.

        None if a tree is gone, or if they are too many. Each command compares the folders of one level: git
        itself keeps all that it finds in memory until it has compared everything.
        """
        if None in self.objects(old, new):
            return None
        changes: list[FileChange] = []
        pairs = [("", old, new)]
        while pairs:
            asked = "".join(f"{before} {after}\n" for _, before, after in pairs)
            try:
                raw = self.listed("diff-tree", "--stdin", "-z", "--raw", "--no-renames", stdin=asked.encode())
                found, below = list(_compared(raw, pairs)), []
            except TransientError:
                raise
            except (WorldError, UnfitError, ValueError):
                return None
            for path, before, after in found:
                folders = [one is not None and one.mode == DIRECTORY for one in (before, after)]
                if any(folders):
                    ids = [one.object_id if one is not None else "" for one in (before, after)]
                    none = _EMPTY_TREE[len(old)]
                    place = [ids[side] if folders[side] else none for side in (0, 1)]
                    below.append((f"{path}/", place[0], place[1]))
                files = [
                    one if one is not None and one.mode != DIRECTORY else None for one in (before, after)
                ]
                if any(files):
                    changes.append(FileChange(path, files[0], files[1]))
            pairs = below
            if len(changes) + len(pairs) > _MOST_CHANGES:
                return None
        return sorted(changes, key=lambda change: change.path)

    def blobs(self, object_ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (object id, content) of many blobs with one git process.

        Raises
        ------
        LostError
            The repository does not have one of them.
        UnfitError
            Together they are larger than what may be in memory; nothing of them was read.
        """
        wanted = list(object_ids)
        if not wanted:
            return
        _require_size(sum(self.sizes(wanted).values()), "the files that are needed")
        raw = self.run("cat-file", "--batch", stdin="\n".join(wanted).encode() + b"\n").stdout
        stream = io.BytesIO(raw)
        for object_id in wanted:
            header = stream.readline().split()
            if len(header) != 3:
                raise self._lost(f"the object {object_id}")
            yield object_id, stream.read(int(header[2]))
            stream.read(1)

    def sizes(self, object_ids: Iterable[str]) -> dict[str, int]:
        """Return the size in bytes of each blob that the repository has, without reading it."""
        form = "--batch-check=%(objectname) %(objectsize)"
        raw = self.run("cat-file", form, stdin="\n".join(object_ids).encode() + b"\n").stdout
        fields = (line.split(" ") for line in raw.decode(errors="replace").splitlines())
        return {blob: int(size) for blob, size, *_ in fields if size.isdigit()}

    def heads(self, object_ids: Iterable[str], limit: int) -> Iterator[tuple[str, int, bytes]]:
        """Yield (object id, size, first bytes) of many blobs; of each, at most ``limit`` bytes are in memory.

        Raises
        ------
        LostError
            The repository does not have one of them.
        TransientError
            git gave no answer in time.
        """
        wanted = list(object_ids)
        if not wanted:
            return
        batch = [f"--git-dir={self.git_dir}", "cat-file", "--batch"]
        with streaming_git(batch, git_dir=self.git_dir) as (names, answers):
            for number, object_id in enumerate(wanted):
                if number % _ASKED_AHEAD == 0:
                    names.write(
                        "".join(f"{one}\n" for one in wanted[number : number + _ASKED_AHEAD]).encode()
                    )
                    names.flush()
                header = answers.readline().split()
                if len(header) == 2:
                    raise self._lost(f"the object {object_id}")
                size = int(header[2]) if len(header) == 3 else -1
                data = answers.read(min(size, limit)) if size >= 0 else b""
                left = size + 1 - len(data)  # with the line break after the content
                while left > 0 and (chunk := answers.read(min(left, _CHUNK))):
                    left -= len(chunk)
                if size < 0 or left:
                    raise TransientError("git cat-file did not answer in time")
                yield object_id, size, data

    def code(self, tree: str) -> Iterator[tuple[str, bool, bytes]]:
        """Yield (path, is executable, content) of the files of a tree, exactly as they were committed.

        No attribute or setting of git (``export-ignore``, ``ident``, ``core.autocrlf``, encodings) applies.

        Raises
        ------
        UnfitError
            The tree has a symlink, a submodule or a pointer of Git LFS, or is too large.
        LostError
            The repository does not have all of the tree.
        """
        entries = self._listed(tree)
        try:
            contents = dict(self.blobs({entry.object_id for entry in entries if entry.is_file}))
        except TransientError:
            raise
        except WorldError as error:
            if self._lacks(tree):
                raise self._lost(f"the code {tree}") from error
            raise
        for entry in entries:
            what = "pointer of Git LFS" if entry.is_file else entry.what
            if not entry.is_file or _is_lfs_pointer(contents[entry.object_id]):
                raise UnfitError(
                    f"'{printable(entry.path)}' in the code of this repository is a {what}",
                    hint=UNFIT_HINTS[what],
                )
        for entry in entries:
            yield entry.path, entry.executable, contents[entry.object_id]

    def unfit_entries(self, tree: str) -> list[UnfitEntry]:
        """Return the entries of a code tree that cannot be sent to a worker, by path.

        Raises
        ------
        LostError
            The repository does not have all of the tree.
        """
        if tree not in self._unfit:
            entries = self._listed(tree)
            pointers = self.lfs_pointers(entry.object_id for entry in entries if entry.is_file)
            self._unfit[tree] = [
                UnfitEntry(printable(entry.path), "pointer of Git LFS" if entry.is_file else entry.what)
                for entry in entries
                if not entry.is_file or entry.object_id in pointers
            ]
        return self._unfit[tree]

    def _listed(self, tree: str) -> list[TreeEntry]:
        """Return the files of a code tree with the exact bytes of their paths (as by ``os.fsdecode``).

        Raises UnfitError if it is too large to be sent: the same blob can be in it a thousand times.
        """
        long = [] if self._is_partial() else ["--long"]  # which would fetch each blob for its size
        try:
            raw = self.listed("ls-tree", "-r", *long, "-z", tree)
        except TransientError:
            raise
        except WorldError as error:
            if self._lacks(tree):
                raise self._lost(f"the code {tree}") from error
            raise
        entries = list(parse_listing(raw, "", os.fsdecode))
        facts = (line.partition(b"\t")[0].split() for line in raw.split(b"\0") if line)
        _require_size(sum(int(size) for *_, size in facts if long and size.isdigit()), "the code")
        for entry in entries:
            if ".." in entry.path.split("/"):
                raise UnfitError(f"'{printable(entry.path)}' is not a path that can be sent to a worker")
        return entries

    def lfs_pointers(self, object_ids: Iterable[str]) -> set[str]:
        """Return those blobs that are pointers of Git LFS instead of the content of a file.

        A partial clone would have to fetch each blob for this, so there the answer is none.
        """
        wanted = sorted(set(object_ids))
        if not wanted or self._is_partial():
            return set()
        small = [blob for blob, size in self.sizes(wanted).items() if size in _LFS_SIZES]
        return {blob for blob, data in self.blobs(small) if _is_lfs_pointer(data)}

    def _is_partial(self) -> bool:
        found = self.run("config", "--get-regexp", r"^remote\..*\.promisor$", check=False)
        return bool(found.stdout)

    def _lacks(self, tree: str) -> bool:
        """Return whether this repository answers, but does not have all objects of a tree."""
        if self.objects(tree) == [None]:
            return True
        listed = self.run("rev-list", "--objects", "--missing=print", tree).stdout
        return any(line.startswith(b"?") for line in listed.splitlines())

    def _lost(self, what: str) -> WorldError:
        """Return the error for a missing object: lost, or not yet fetched by a partial clone."""
        if self._is_partial():
            return TransientError(
                f"git cannot fetch {what}", hint="this clone is partial: check that its remote answers"
            )
        if self.url is not None:
            return LostError(
                f"the mirror of {self.url} does not have {what}",
                hint=f"if the remote still has it, remove the mirror {self.git_dir} and try again",
            )
        shallow = (common_dir(self.git_dir) / "shallow").exists()
        fetch = "git fetch --unshallow" if shallow else "git fetch"
        return LostError(
            f"git has lost {what}", hint=f"restore it with `{fetch}`, or check the repository with `git fsck`"
        )

    def extract(self, tree: str, target: Path) -> None:
        """Write the files of a tree to ``target``, completely or not at all.

        Raises
        ------
        InputError
            The tree has a symlink or submodule.
        WorldError
            The disk is full, or not writable.
        """
        import shutil

        if target.exists():
            return
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            for path, executable, data in self.code(tree):
                file = partial / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
                file.chmod(0o755 if executable else 0o644)
            partial.rename(target)
        except OSError as error:
            if not target.exists():  # else another process was faster: the content is the same
                raise WorldError(f"cannot write {target}: {error.strerror}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _compared(
    raw: bytes, pairs: Sequence[tuple[str, str, str]]
) -> Iterator[tuple[str, TreeEntry | None, TreeEntry | None]]:
    """Yield (path, old entry, new entry) of the answer of ``git diff-tree --stdin`` about pairs of trees.

    Raises ValueError if an answer is missing.
    """
    number = -1
    fields = iter(raw.split(b"\0"))
    for field in fields:
        *headers, facts = field.split(b"\n")  # the two trees stand before the first entry of their pair
        number += len(headers)
        if not facts:
            break
        name = printable(next(fields))
        path = f"{pairs[number][0]}{name}"
        before, after, old_id, new_id = facts.decode().lstrip(":").split(" ")[:4]
        old = TreeEntry(path, before, old_id) if old_id.strip("0") else None
        yield path, old, TreeEntry(path, after, new_id) if new_id.strip("0") else None
    if number != len(pairs) - 1:
        raise ValueError("git does not have all of the trees")


def _require_size(size: int, what: str) -> None:
    if size > MOST_READ:
        raise UnfitError(
            f"{what} of this repository has {size:,} bytes; the limit is {MOST_READ:,}",
            hint="keep large data outside of git, and name its place on the worker",
        )


def _is_lfs_pointer(data: bytes) -> bool:
    return len(data) in _LFS_SIZES and _LFS_POINTER.match(data) is not None


def parse_listing(raw: bytes, prefix: str, decode: Callable[[bytes], str] = printable) -> Iterator[TreeEntry]:
    """Yield the entries of ``git ls-tree -z``; by default, paths are text for messages and the store."""
    for line in raw.split(b"\0"):
        if line:
            facts, _, path = line.partition(b"\t")
            mode, _, object_id = facts.decode().split(" ")[:3]
            yield TreeEntry(prefix + decode(path), mode, object_id)
