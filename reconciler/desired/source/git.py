"""The source: a git repository, read from its object database and never from a checkout.

Every reconcile reads through the ``git`` command (2 ms for each call). GitPython, whose import takes longer
than all of these calls, keeps the mirrors of remote sources; see :mod:`reconciler.desired.source.mirror`.
"""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from reconciler.desired.source.command import first_line, is_remote, run_git
from reconciler.diagnostics import did_you_mean
from reconciler.errors import (
    InputError,
    LostError,
    RefusedError,
    TransientError,
    UnfitError,
    WorldError,
)
from reconciler.model.desired import Revision

_SYMLINK, _SUBMODULE = "120000", "160000"
_OBJECT_TYPES = frozenset(("commit", "tree", "blob", "tag"))


class TreeEntry(msgspec.Struct, frozen=True):
    """One file of a tree; ``path`` is relative to the directory that was listed."""

    path: str
    mode: str
    object_id: str

    @property
    def is_file(self) -> bool:
        """Return whether it is a plain file, neither symlink nor submodule."""
        return self.mode not in (_SYMLINK, _SUBMODULE)

    @property
    def what(self) -> str:
        """The kind of entry, for a message."""
        return {_SYMLINK: "symlink", _SUBMODULE: "submodule"}.get(self.mode, "file")


class Source:
    """A repository, a branch and a subdirectory."""

    def __init__(self, git_dir: Path, work_tree: Path | None, branch: str | None, path: str) -> None:
        self.git_dir = git_dir
        self.work_tree = work_tree
        self.branch = branch
        self.path = path.strip("/")

    def revision(self, commit: str | None = None) -> Revision:
        """Resolve the branch (or ``commit``) to one commit.

        Raises
        ------
        InputError
            The branch or the subdirectory does not exist.
        RefusedError
            The subdirectory existed once. Its removal does not mean that all its flows should end.
        """
        wanted = commit or self.branch or "HEAD"
        if "\n" in wanted or "\n" in self.path:
            raise InputError("the name of a branch or folder cannot contain a line break")
        found, tree = self._objects(f"{wanted}^{{commit}}", f"{wanted}^{{commit}}:{self.path}")
        if found is None:
            raise self._no_such_revision(wanted)
        if tree is None or tree[1] != "tree":
            removed_by = None if tree else self.removed_by(found[0], self.path)
            if removed_by is not None:
                raise gone(f"{wanted} no longer has the directory '{self.path}'", removed_by)
            raise InputError(
                f"{wanted} does not have a directory '{self.path}'",
                hint="check --path; it is relative to --repo",
            )
        branch = self._checked_out() if commit else self.branch_name()
        return Revision(branch, found[0], self.path, tree[0])

    def _objects(self, *names: str) -> list[tuple[str, str] | None]:
        """Return (object id, type) of each name, or None if it does not exist; one command for all."""
        raw = self.run(
            "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin="\n".join(names).encode()
        )
        lines = raw.stdout.decode(errors="replace").splitlines()
        fields = (line.rpartition(" ") for line in lines)
        return [(head, kind) if kind in _OBJECT_TYPES else None for head, _, kind in fields]

    def _no_such_revision(self, wanted: str) -> InputError:
        if wanted == "HEAD":
            return InputError(
                f"the repository {self.git_dir} does not have a commit yet",
                hint="run `git add` and `git commit` first",
            )
        raw = self.run(
            "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes"
        ).stdout
        known = raw.decode(errors="replace").split()
        hint = did_you_mean(wanted, known) or "list the branches with `git branch`"
        return InputError(f"there is no branch or commit '{wanted}'", hint=hint)

    def removed_by(self, commit: str, path: str) -> str | None:
        """Return the commit (shortened) that removed a path; None if it never existed.

        ``path`` is relative to the root of the repository.
        """
        raw = self.run("log", "-1", "--format=%h", commit, "--", f":(literal){path}").stdout
        return raw.decode().strip() or None

    def branch_name(self) -> str:
        """Return the branch that is read, by default the checked-out one; ``HEAD`` if that is detached."""
        return self.branch or self._checked_out()

    def _checked_out(self) -> str:
        result = self.run("symbolic-ref", "-q", "--short", "HEAD", check=False)
        return result.stdout.decode().strip() or "HEAD"

    def reads_head(self) -> bool:
        """Return whether the source reads the branch of the work tree."""
        return self.branch is None or self.branch in ("HEAD", self._checked_out())

    def tree_id(self, commit: str, directory: str) -> str | None:
        """Return the tree id of a directory (relative to ``path``), or None if it does not exist."""
        (found,) = self._objects(f"{commit}:{self.inside(directory)}")
        return found[0] if found is not None and found[1] == "tree" else None

    def entry(self, commit: str, path: str) -> TreeEntry | None:
        """Return one file or directory of the revision, or None."""
        raw = self.run("ls-tree", "-z", commit, "--", f":(literal){self.inside(path)}", check=False)
        entries = list(_parse_listing(raw.stdout, ""))
        return TreeEntry(path, entries[0].mode, entries[0].object_id) if entries else None

    def files(self, commit: str, directory: str) -> list[TreeEntry]:
        """Return all files below a directory; none if it does not exist. Paths are relative to ``path``."""
        tree = self.tree_id(commit, directory)
        if tree is None:
            return []
        raw = self.run("ls-tree", "-r", "-z", tree).stdout
        return list(_parse_listing(raw, f"{directory.strip('/')}/" if directory.strip("/") else ""))

    def files_below(self, commit: str, directories: Iterable[str]) -> list[TreeEntry]:
        """Return all files below several directories, with one command; see :meth:`files`."""
        names = {directory.strip("/") for directory in directories}
        if "" in names:
            return self.files(commit, "")
        places = [f":(literal){self.inside(name)}" for name in sorted(names)]
        raw = self.run("ls-tree", "-r", "-z", commit, "--", *places).stdout if places else b""
        root = f"{self.path}/" if self.path else ""
        found = (TreeEntry(e.path.removeprefix(root), e.mode, e.object_id) for e in _parse_listing(raw, ""))
        below = tuple(f"{name}/" for name in names)
        return [entry for entry in found if entry.path.startswith(below)]

    def earlier_versions(self, commit: str, path: str, limit: int) -> Iterator[str]:
        """Yield at most ``limit`` blob ids that a file had before, the newest first."""
        place = f":(literal){self.inside(path)}"
        raw = self.run(
            "log", "--raw", "--no-abbrev", "--format=", f"--max-count={limit}", commit, "--", place
        )
        for line in raw.stdout.decode(errors="replace").splitlines():
            blob = line.split()[2]
            if blob.strip("0"):
                yield blob

    def top_level_names(self, tree: str) -> set[str]:
        """Return the names directly below a tree."""
        raw = self.run("ls-tree", "--name-only", "-z", tree).stdout.decode(errors="surrogateescape")
        return {name for name in raw.split("\0") if name}

    def blobs(self, object_ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (object id, content) of many blobs with one git process.

        Raises
        ------
        LostError
            The repository does not have one of them.
        """
        wanted = list(object_ids)
        if not wanted:
            return
        raw = self.run("cat-file", "--batch", stdin="\n".join(wanted).encode() + b"\n").stdout
        stream = io.BytesIO(raw)
        for object_id in wanted:
            header = stream.readline().split()
            if len(header) != 3:
                raise self._lost(f"the object {object_id}")
            yield object_id, stream.read(int(header[2]))
            stream.read(1)

    def code(self, tree: str) -> Iterator[tuple[str, bool, bytes]]:
        """Yield (path, is executable, content) of the files of a tree.

        Raises
        ------
        UnfitError
            The tree has a symlink or submodule.
        LostError
            The repository does not have all of the tree.
        """
        import tarfile

        raw = self._archived(tree)
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            for member in archive:
                if member.isdir():
                    continue
                content = archive.extractfile(member) if member.isfile() else None
                if content is None or ".." in Path(member.name).parts:
                    raise UnfitError(f"'{member.name}' in the code of this repository is not a plain file")
                yield member.name, bool(member.mode & 0o100), content.read()

    def _archived(self, tree: str) -> bytes:
        try:
            return self.run("archive", "--format=tar", tree).stdout
        except TransientError:
            raise
        except WorldError as error:
            if self._lacks(tree):
                raise self._lost(f"the code {tree}") from error
            raise

    def _lacks(self, tree: str) -> bool:
        """Return whether this repository answers, but does not have all objects of a tree."""
        if self._objects(tree) == [None]:
            return True
        listed = self.run("rev-list", "--objects", "--missing=print", tree).stdout
        return any(line.startswith(b"?") for line in listed.splitlines())

    def _lost(self, what: str) -> WorldError:
        """Return the error for a missing object: lost, or not yet fetched by a partial clone."""
        if self.run("config", "--get-regexp", r"^remote\..*\.promisor$", check=False).stdout:
            return TransientError(
                f"git cannot fetch {what}", hint="this clone is partial: check that its remote answers"
            )
        shallow = (self.git_dir / "shallow").exists()
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

    def common_dir(self) -> Path:
        """Return the directory that holds the branches; for a linked work tree, that of the main one."""
        raw = self.run("rev-parse", "--git-common-dir").stdout
        return (self.git_dir / raw.decode(errors="surrogateescape").rstrip("\n")).resolve()

    def root_commit(self) -> str:
        """Return the first commit of the history; empty for a shallow clone, which does not have it."""
        if (self.git_dir / "shallow").exists():
            return ""
        wanted = self.branch or "HEAD"
        roots = self.run("rev-list", "--max-parents=0", wanted).stdout.decode().split()
        return roots[-1] if roots else ""

    def follows(self, commit: str, earlier: str) -> bool:
        """Return whether ``earlier`` is part of the history of ``commit``; a commit that is gone is not.

        A shallow clone cannot tell, so the answer is True.
        """
        result = self.run("merge-base", "--is-ancestor", earlier, commit, check=False)
        return result.returncode == 0 or (self.git_dir / "shallow").exists()

    def knows(self, commit: str) -> bool:
        """Return whether this repository has a commit."""
        (found,) = self._objects(f"{commit}^{{commit}}")
        return found is not None

    def missing_commits(self, commit: str, branch: str) -> int:
        """Return how many commits of ``branch`` are not part of the history of ``commit``."""
        raw = self.run("rev-list", "--count", branch, f"^{commit}", "--").stdout
        return int(raw)

    def uncommitted(self, directories: Iterable[str]) -> list[str]:
        """Return the files in these directories that have uncommitted changes."""
        if self.work_tree is None:
            return []
        places = [f":(literal){self.inside(directory)}" for directory in directories]
        raw = self.run(
            "status", "--porcelain", "-z", "--untracked-files=all", "--", *places, cwd=self.work_tree
        )
        fields = raw.stdout.decode(errors="replace").split("\0")
        return [field[3:] for field in fields if len(field) > 3 and field[2] == " "]

    def inside(self, directory: str) -> str:
        """Return a path relative to ``path`` as git has it, relative to the root of the repository."""
        return "/".join(part for part in (self.path, directory.strip("/")) if part)

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
        return run_git([*where, *arguments], stdin=stdin, check=check)


def open_source(location: str, branch: str | None, path: str, mirrors: Path, *, fetch: bool = True) -> Source:
    """Open a local repository, or the mirror of a remote one after a fetch.

    Without ``fetch`` an existing mirror is used as it is, for callers that only need to identify it.

    Raises
    ------
    InputError
        ``location`` is not a repository.
    TransientError
        The remote cannot be reached in time; a mirror that exists is left as it was.
    """
    if is_remote(location):
        from reconciler.desired.source.mirror import mirror_of

        return Source(mirror_of(location, mirrors, fetch=fetch), None, branch, path)
    directory = Path(location).expanduser()
    if not directory.is_dir():
        raise InputError(
            f"the directory {location} does not exist", hint="--repo expects a git repository or a URL"
        )
    questions = ("--absolute-git-dir", "--is-bare-repository", "--show-cdup", "--show-prefix")
    result = run_git(["-C", str(directory), "rev-parse", *questions], check=False)
    if result.returncode != 0:
        raise InputError(
            f"{directory.resolve()} is not inside a git repository: {first_line(result.stderr)}",
            hint="run `git init` and commit your manifests, or name a repository with --repo",
        )
    git_dir, bare, *tree = result.stdout.decode(errors="surrogateescape").splitlines()
    up, prefix = tree if len(tree) == 2 else (None, "")  # neither of them inside the .git directory
    inside = "/".join(part.strip("/") for part in (prefix, path) if part.strip("/"))
    work_tree = None if bare == "true" or up is None else (directory / up).resolve()
    return Source(Path(git_dir), work_tree, branch, inside)


def gone(what: str, removed_by: str) -> RefusedError:
    """Return the refusal to treat a missing ``reconciler.yaml`` as the wish that all its flows end."""
    return RefusedError(
        f"refused: {what}: commit {removed_by} removed it. Treating it as empty would cancel all its flows, "
        "so nothing was changed",
        hint="restore it, or name its new place with --path. To end all its flows, commit a reconciler.yaml "
        "without flows there, and add --allow-prune",
    )


def _parse_listing(raw: bytes, prefix: str) -> Iterator[TreeEntry]:
    for line in raw.decode(errors="surrogateescape").split("\0"):
        if line:
            facts, _, path = line.partition("\t")
            mode, _, object_id = facts.split(" ")[:3]
            yield TreeEntry(prefix + path, mode, object_id)
