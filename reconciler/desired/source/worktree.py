"""The writing side of git: one changed file of a checked-out branch, first simulated, then committed.

A simulation creates a commit object that no branch contains: index, work tree and refs stay as they are.
The commit itself is the user's ``git commit`` of this one file, with their identity, hooks and signing.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from reconciler.desired.source.command import first_line, not_started, users_environment
from reconciler.desired.source.git import Source
from reconciler.desired.source.objects import TreeEntry
from reconciler.errors import InputError, RefusedError, WorldError
from reconciler.files import atomic_file
from reconciler.model.desired import Revision

_IN_PROGRESS = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}
_SIMULATION_IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "reconcile"), ("EMAIL", "trial@localhost"))
}
_TAIL = 15
"""Lines of the output of git or of a hook that an error repeats."""


class FileEdit(msgspec.Struct, frozen=True):
    """New content of one file; ``before`` is None for a file that does not exist yet.

    ``file`` is relative to the folder of ``reconciler.yaml``.
    """

    file: str
    before: bytes | None
    after: bytes


class Upstream(msgspec.Struct, frozen=True):
    """The target of a push: a remote and one of its refs."""

    remote: str
    ref: str

    def __str__(self) -> str:
        return f"{self.remote}/{self.ref.removeprefix('refs/heads/')}"


class WorkTree:
    """The checked-out branch of a local repository, ready for a commit.

    Raises
    ------
    InputError
        There is no checkout (a bare or remote repository), or ``--branch`` names another branch.
    RefusedError
        HEAD is detached, or a merge, rebase, cherry-pick or revert is in progress.
    """

    def __init__(self, source: Source) -> None:
        if source.work_tree is None:
            raise InputError(
                "this command commits, so it needs a checkout; the source is a bare or remote repository",
                hint="clone the repository and run the command there with --push",
            )
        self.source = source
        self.root = source.work_tree
        self.branch = self._branch()
        for marker, what in _IN_PROGRESS.items():
            if (source.git_dir / marker).exists():
                raise RefusedError(
                    f"a {what} is in progress in {self.root}",
                    hint=f"finish it, or abort it with `git {what} --abort`",
                )

    def _branch(self) -> str:
        result = self.source.run("symbolic-ref", "-q", "--short", "HEAD", check=False)
        branch = result.stdout.decode(errors="surrogateescape").strip()
        if not self.source.reads_head():
            raise InputError(
                f"branch '{self.source.branch}' is not checked out, so reconciler cannot commit to it",
                hint=f"omit --branch, or run `git switch {self.source.branch}` first",
            )
        if not branch:
            raise RefusedError(
                "HEAD is detached: a commit would not belong to any branch",
                hint="switch to a branch first: `git switch BRANCH`",
            )
        return branch

    # reading ------------------------------------------------------------------------------------------

    def read(self, revision: Revision, file: str) -> bytes | None:
        """Return the content of a file without local changes; None if neither HEAD nor the disk has it.

        Raises
        ------
        RefusedError
            The file has uncommitted changes, is untracked, or is not a plain file.
        """
        full, path = self.source.inside(file), self._path(file)
        entry = self.source.entry(revision.commit, file)
        if self._has_changes(full):
            raise RefusedError(
                f"{file} has uncommitted changes",
                hint=f"see `git diff HEAD -- {full}`; commit the changes, or discard them with "
                f"`git restore --staged --worktree -- {full}`",
            )
        self._check_kind(file, path, entry)
        return path.read_bytes() if entry is not None else None

    def _has_changes(self, full: str) -> bool:
        place = f":(literal){full}"
        raw = self.source.run("status", "--porcelain", "--untracked-files=no", "--", place, cwd=self.root)
        return bool(raw.stdout.strip())

    def _check_kind(self, file: str, path: Path, entry: TreeEntry | None) -> None:
        if any((self.root / parent).is_symlink() for parent in path.relative_to(self.root).parents):
            raise RefusedError(f"{file} is behind a symlink", hint="replace the symlink by a real folder")
        exists = os.path.lexists(path)
        if entry is None and exists:
            raise RefusedError(
                f"{file} exists, but git does not track it",
                hint="commit it, or move it away",
            )
        if entry is not None and (not entry.is_file or not path.is_file() or path.is_symlink()):
            raise RefusedError(f"{file} is not a plain file here", hint=f"see `git status -- {file}`")

    def _path(self, file: str) -> Path:
        return self.root / self.source.inside(file)

    # trying -------------------------------------------------------------------------------------------

    def simulate(self, revision: Revision, edit: FileEdit) -> str:
        """Return the id of a new commit, ``revision`` with the edit, that no branch contains."""
        full = self.source.inside(edit.file)
        with tempfile.TemporaryDirectory(prefix="reconcile-trial-") as scratch:
            aside = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
            blob = self._run("hash-object", "-w", "--stdin", f"--path={full}", stdin=edit.after)
            self._run("read-tree", revision.commit, env=aside)
            entry = self.source.entry(revision.commit, edit.file)
            mode = entry.mode if entry is not None else "100644"
            self._run("update-index", "--add", "--cacheinfo", f"{mode},{blob},{full}", env=aside)
            tree = self._run("write-tree", env=aside)
        return self._run("commit-tree", tree, "-p", revision.commit, "-m", "trial", env=_SIMULATION_IDENTITY)

    def diff(self, base: str, commit: str, file: str) -> bytes:
        """Return the unified diff of a file between two commits."""
        place = f":(literal){self.source.inside(file)}"
        return self.source.run(
            "diff-tree", "-p", "--abbrev=7", "--no-ext-diff", "--no-textconv", base, commit, "--", place
        ).stdout

    # committing ---------------------------------------------------------------------------------------

    def commit(self, revision: Revision, edit: FileEdit, message: str) -> str:
        """Write the file and commit only this file; return the id of the commit.

        Raises
        ------
        RefusedError
            The branch or the file has changed since it was read, or another git command is running.
        WorldError
            git or a hook refused; the file is restored.
        """
        if (self.source.git_dir / "index.lock").exists():
            raise RefusedError(
                f"another git command is running in {self.root}",
                hint=f"wait for it to end; if none is running, remove {self.source.git_dir / 'index.lock'}",
            )
        if self.head() != revision.commit or self.read(revision, edit.file) != edit.before:
            raise RefusedError(
                f"{self.branch} or {edit.file} has changed in the meantime", hint="run the command again"
            )
        made = _make_folders(self._path(edit.file).parent)
        try:
            self._write(edit.file, edit.after)
            self._commit(edit, message)
        except BaseException:
            if self.head() == revision.commit:
                self._undo(edit, made)
            raise
        return self.head()

    def head(self) -> str:
        """Return the id of the commit that is checked out."""
        return self.source.revision("HEAD").commit

    def blob(self, commit: str, file: str) -> str | None:
        """Return the blob id of a file in a commit."""
        entry = self.source.entry(commit, file)
        return entry.object_id if entry is not None else None

    def _write(self, file: str, content: bytes) -> None:
        """Write a file atomically: at any instant it has its old or its new content."""
        path = self._path(file)
        try:
            with atomic_file(path) as stream:
                stream.write(content)
                if path.exists():
                    os.fchmod(stream.fileno(), stat.S_IMODE(path.stat().st_mode))
        except OSError as error:
            raise WorldError(f"cannot write {path}: {error.strerror}") from error

    def _commit(self, edit: FileEdit, message: str) -> None:
        place = f":(literal){self.source.inside(edit.file)}"
        if edit.before is None:
            self._run("add", "--", place)
        self._run("commit", "--quiet", "--only", f"--message={message}", "--", place)

    def _undo(self, edit: FileEdit, made: list[Path]) -> None:
        if edit.before is not None:
            self._write(edit.file, edit.before)
            return
        self._path(edit.file).unlink(missing_ok=True)
        with suppress(WorldError):  # the user must see the first error, not this one
            self._run("update-index", "--force-remove", "--", self.source.inside(edit.file))
        for folder in reversed(made):
            with suppress(OSError):  # another process put something there
                folder.rmdir()

    # pushing ------------------------------------------------------------------------------------------

    def upstream(self) -> Upstream:
        """Return the target to which the branch is pushed.

        Raises
        ------
        InputError
            It does not have an upstream.
        """
        keys = (f"branch.{self.branch}.remote", f"branch.{self.branch}.merge")
        remote, ref = (
            self.source.run("config", "--get", key, check=False).stdout.decode().strip() for key in keys
        )
        if not remote or not ref:
            raise InputError(
                f"branch '{self.branch}' does not have an upstream, so --push has no target",
                hint=f"run `git push --set-upstream origin {self.branch}` once; nothing was changed",
            )
        return Upstream(remote, ref)

    def push(self, upstream: Upstream) -> None:
        """Push the branch.

        Raises
        ------
        WorldError
            git or the remote refused; the local commit stays.
        """
        self._run("push", "--quiet", upstream.remote, f"HEAD:{upstream.ref}")

    def _run(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """Run git as the user would, without a timeout because of hooks and remotes; return its output."""
        try:
            done = subprocess.run(
                ["git", "-C", str(self.root), *arguments],
                input=stdin,
                capture_output=True,
                env={**users_environment(), **(env or {})},
                check=False,
            )
        except OSError as error:
            raise not_started(error) from error
        if done.returncode != 0:
            raise _failure(f"git {arguments[0]}", done)
        return done.stdout.decode(errors="surrogateescape").strip()


def _make_folders(folder: Path) -> list[Path]:
    """Create a folder and its parents; return the new ones, the topmost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorldError(f"cannot create {folder}: {error.strerror}") from error
    return missing[::-1]


def _failure(what: str, done: subprocess.CompletedProcess[bytes]) -> WorldError:
    """Return an error with the output of git and the hooks; of long output, the end."""
    text = (done.stdout + done.stderr).decode(errors="replace")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) <= 1:
        return WorldError(f"{what} failed: {first_line(text.encode()) or f'exit code {done.returncode}'}")
    cut = ["..."] if len(lines) > _TAIL else []
    return WorldError("\n  ".join([f"{what} failed:", *cut, *lines[-_TAIL:]]))
