"""The source: a git repository, read from its object database and never from a checkout.

Every reconcile reads through the ``git`` command (2 ms for each call). GitPython, whose import takes longer
than all of these calls, keeps the mirrors of remote sources; see :mod:`reconciler.desired.source.mirror`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from reconciler.desired.policy_file import LocalPolicy
from reconciler.desired.source.command import first_line, is_remote, printable, run_git, without_password
from reconciler.desired.source.objects import DIRECTORY, ObjectDatabase, TreeEntry, parse_listing
from reconciler.desired.source.signatures import Signatures
from reconciler.diagnostics import did_you_mean
from reconciler.errors import (
    InputError,
    RefusedError,
    WorldError,
)
from reconciler.model.desired import Revision
from reconciler.model.policy import SourceRules, Verify


class Head(msgspec.Struct, frozen=True):
    """What HEAD of a repository is.

    ``branch`` is empty if HEAD is detached. During a rebase or bisect, which detach HEAD for a while, it is
    the branch that ``operation`` started from.
    """

    branch: str
    operation: str = ""


_STARTED_FROM = {
    "rebase-merge/head-name": "rebase",
    "rebase-apply/head-name": "rebase",
    "BISECT_START": "bisect",
}
"""Files of a git directory that hold the branch from which an operation started."""


class Source(ObjectDatabase):
    """A repository, a branch and a subdirectory. Without a branch it reads the one that is checked out.

    ``url`` is the remote of which ``git_dir`` is a mirror. ``policy`` limits what the repository may do;
    a remote may do nothing until one is given. ``verified_dir`` keeps which commits had the signatures
    that it requires.
    """

    def __init__(
        self, git_dir: Path, work_tree: Path | None, branch: str | None, path: str, url: str | None = None
    ) -> None:
        super().__init__(git_dir, url)
        self.work_tree = work_tree
        self.branch = None if branch == "HEAD" else branch
        self.path = path.strip("/")
        self.policy = LocalPolicy(url or "")
        self.verified_dir: Path | None = None
        self._signatures: Signatures | None = None

    @property
    def rules(self) -> SourceRules | None:
        """What the policy of the user lets this source do; None if that is everything."""
        return self.policy.rules

    def signer(self, commit: str) -> str:
        """Return who signed for a commit; empty if the policy does not ask for signatures.

        Raises
        ------
        UnverifiedError
            It lacks the signature that the policy requires.
        """
        rules = self.rules
        if rules is None or rules.verify is Verify.NONE:
            return ""
        if self._signatures is None:
            known = self.verified_dir / self.policy.digest if self.verified_dir is not None else None
            self._signatures = Signatures(self.run, self.common_dir() / "shallow", rules, known)
        return self._signatures.signer(commit)

    def commit_time(self, commit: str) -> float:
        """Return when a commit was made, as it says itself, in seconds since the epoch."""
        return float(self.run("show", "-s", "--format=%ct", commit).stdout)

    def revision(self, commit: str | None = None) -> Revision:
        """Resolve the branch (or ``commit``) to one commit. A branch comes before a tag of the same name.

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
        read = branch = wanted
        if commit or self.branch is None:
            branch = self.head().branch
            if not commit and branch:
                read = branch  # not HEAD, which git may move between two commands
        names = [f"{name}^{{commit}}" for name in (f"refs/heads/{read}", wanted)]
        if "{" in wanted + read or "}" in wanted + read:  # git cannot find a path behind such a name
            found = [*self.objects(*names), None, None]
        else:
            found = self.objects(*names, *(f"{name}:{self.path}" for name in names))
        number = 0 if found[0] is not None else 1
        resolved, tree = found[number], found[number + 2]
        if resolved is None:
            raise self._no_such_revision(wanted)
        if tree is None:
            (tree,) = self.objects(f"{resolved[0]}:{self.path}")
        shown = printable(wanted)
        if tree is None or tree[1] != "tree":
            entry = self.entry(resolved[0], "") if self.path else None
            if entry is not None:
                raise InputError(
                    f"{shown}: '{printable(self.path)}' is a {entry.what}, not a folder of this repository",
                    hint="check --path; it is relative to --repo",
                )
            removed_by = self.removed_by(resolved[0], self.path)
            if removed_by is not None:
                raise gone(f"{shown} no longer has the directory '{printable(self.path)}'", removed_by)
            raise InputError(
                f"{shown} does not have a directory '{printable(self.path)}'",
                hint="check --path; it is relative to --repo",
            )
        place = printable(self.path)
        return Revision(printable(branch) or "HEAD", resolved[0], place, tree[0], self.policy.digest)

    def revision_id(self, wanted: str) -> str:
        """Return the commit id of a branch or other name. Raises InputError if it does not exist."""
        branch, other = self.objects(f"refs/heads/{wanted}^{{commit}}", f"{wanted}^{{commit}}")
        found = branch or other
        if found is None:
            raise self._no_such_revision(wanted)
        return found[0]

    def _no_such_revision(self, wanted: str) -> InputError:
        if wanted == "HEAD":
            if self.url is not None:
                return InputError(
                    f"the default branch of {self.url} does not have a commit",
                    hint="push a commit, or name another branch with --branch",
                )
            return InputError(
                f"the repository {self.git_dir} does not have a commit yet",
                hint="run `git add` and `git commit` first",
            )
        raw = self.run(
            "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes"
        ).stdout
        known = printable(raw).split("\n")
        remedy = "list the branches with `git branch`"
        if self.url is not None:
            remedy = f"list the branches with `git ls-remote --heads {self.url}`"
        hint = did_you_mean(printable(wanted), [name for name in known if name]) or remedy
        return InputError(f"there is no branch or commit '{printable(wanted)}'", hint=hint)

    def removed_by(self, commit: str, path: str) -> str | None:
        """Return the commit (shortened) that removed a path; None if none did.

        ``path`` is relative to the root of the repository.
        """
        place = f":(literal){path}"
        raw = self.run("log", "-1", "--no-patch", "--format=%H %P", commit, "--", place).stdout
        removing, *parents = raw.decode().split() or [""]
        if not parents:
            return None
        after, *before = self.objects(*(f"{found}:{path}" for found in (removing, *parents)))
        return removing[:7] if after is None and any(before) else None

    def nearest_folder_with(self, names: Iterable[str]) -> str:
        """Return the folder from ``path`` upwards that has a file of one of these names in the revision.

        It is ``path`` itself if none has one, if there is no commit yet, or if such a file was removed on the
        way up: another project further up does not take the place of a removed one.
        """
        try:
            commit = self.revision_id(self.branch or "HEAD")
        except InputError:  # told when the revision is read
            return self.path
        folder = self.path
        while True:
            files = [f"{folder}/{name}".lstrip("/") for name in names]
            if any(self.objects(*(f"{commit}:{file}" for file in files))):
                return folder
            if not folder or any(self.removed_by(commit, file) for file in files):
                return self.path
            folder = folder.rpartition("/")[0]

    def branch_name(self) -> str:
        """Return the branch that is read, by default the checked-out one; ``HEAD`` if that is detached."""
        return printable(self.branch or self.head().branch) or "HEAD"

    def head(self) -> Head:
        """Return the checked-out branch, or the one from which a rebase or bisect in progress started."""
        result = self.run("symbolic-ref", "-q", "HEAD", check=False)
        branch = os.fsdecode(result.stdout.rstrip(b"\n")).removeprefix("refs/heads/")
        if branch:
            return Head(branch)
        for file, operation in _STARTED_FROM.items():
            with contextlib.suppress(OSError):
                name = os.fsdecode((self.git_dir / file).read_bytes().strip()).removeprefix("refs/heads/")
                if self.tip(name) is not None:
                    return Head(name, operation)
        return Head("")

    def followable(self) -> str | None:
        """Return the name of the branch that is read; None for a commit, a tag or a detached HEAD.

        A remote-tracking branch counts as a branch: ``origin/main``.
        """
        if self.branch is None:
            return self.head().branch or None
        name = self.branch
        for prefix in ("refs/heads/", "heads/", "refs/remotes/", "remotes/"):
            name = name.removeprefix(prefix)
        return name if self.tip(name) is not None else None

    def tip(self, branch: str) -> str | None:
        """Return the commit of a local or remote-tracking branch; None if there is no such branch."""
        if not branch or any(character.isspace() or character in "~^:?*[\\" for character in branch):
            return None
        found = self.objects(f"refs/heads/{branch}", f"refs/remotes/{branch}")
        return next((one[0] for one in found if one is not None), None)

    def contains(self, branch: str, commit: str) -> bool:
        """Return whether a commit is part of the history of a branch."""
        tip = self.tip(branch)
        return tip is not None and self.knows(commit) and self.follows(tip, commit)

    def reads_head(self) -> bool:
        """Return whether the source reads the branch of the work tree."""
        return self.branch is None or self.branch == self.head().branch

    def tree_id(self, commit: str, directory: str) -> str | None:
        """Return the tree id of a directory (relative to ``path``), or None if it does not exist."""
        (found,) = self.objects(f"{commit}:{self.inside(directory)}")
        return found[0] if found is not None and found[1] == "tree" else None

    def entry(self, commit: str, path: str) -> TreeEntry | None:
        """Return one file or directory of the revision, or None."""
        raw = self.run("ls-tree", "-z", commit, "--", f":(literal){self.inside(path)}", check=False)
        entries = list(parse_listing(raw.stdout, ""))
        return TreeEntry(path, entries[0].mode, entries[0].object_id) if entries else None

    def files(self, commit: str, directory: str) -> list[TreeEntry]:
        """Return all files below a directory; none if it does not exist. Paths are relative to ``path``."""
        tree = self.tree_id(commit, directory)
        if tree is None:
            return []
        raw = self.listed("ls-tree", "-r", "-z", tree)
        return list(parse_listing(raw, f"{directory.strip('/')}/" if directory.strip("/") else ""))

    def files_below(self, commit: str, directories: Iterable[str]) -> list[TreeEntry]:
        """Return all files below several directories, with one command; see :meth:`files`."""
        names = {directory.strip("/") for directory in directories}
        if "" in names:
            return self.files(commit, "")
        places = [f":(literal){self.inside(name)}" for name in sorted(names)]
        raw = self.listed("ls-tree", "-r", "-z", commit, "--", *places) if places else b""
        root = f"{self.path}/" if self.path else ""
        found = (TreeEntry(e.path.removeprefix(root), e.mode, e.object_id) for e in parse_listing(raw, ""))
        below = tuple(f"{name}/" for name in names)
        return [entry for entry in found if entry.path.startswith(below)]

    def earlier_versions(self, commit: str, path: str, limit: int) -> Iterator[str]:
        """Yield at most ``limit`` blob ids that a file had before, the newest first."""
        place = f":(literal){self.inside(path)}"
        raw = self.run(
            "log",
            "--raw",
            "--no-abbrev",
            "--no-renames",
            "--format=",
            f"--max-count={limit}",
            commit,
            "--",
            place,
        )
        for line in raw.stdout.decode(errors="replace").splitlines():
            blob = line.split()[2]
            if blob.strip("0"):
                yield blob

    def directories(self, commit: str) -> list[str]:
        """Return all directories of a revision, relative to ``path``."""
        raw = self.listed("ls-tree", "-r", "-d", "-z", f"{commit}:{self.path}")
        return [entry.path for entry in parse_listing(raw, "") if entry.mode == DIRECTORY]

    def root_commits(self) -> list[str]:
        """Return the first commits of the history, oldest last; none for a shallow clone."""
        if self._is_shallow():
            return []
        head = self.revision_id(self.branch or "HEAD")
        return self.run("rev-list", "--max-parents=0", head).stdout.decode().split()

    def _is_shallow(self) -> bool:
        return (self.common_dir() / "shallow").exists()

    def follows(self, commit: str, earlier: str) -> bool:
        """Return whether ``earlier`` is part of the history of ``commit``; a commit that is gone is not.

        A shallow clone may lack the commits between them. There the answer is False only if the opposite is
        certain: ``commit`` is part of the history of ``earlier``.
        """

        def contains(descendant: str, ancestor: str) -> bool:
            return self.run("merge-base", "--is-ancestor", ancestor, descendant, check=False).returncode == 0

        return contains(commit, earlier) or (self._is_shallow() and not contains(earlier, commit))

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
        fields = printable(raw.stdout).split("\0")
        return [field[3:] for field in fields if len(field) > 3 and field[2] == " "]

    def inside(self, directory: str) -> str:
        """Return a path relative to ``path`` as git has it, relative to the root of the repository."""
        return "/".join(part for part in (self.path, directory.strip("/")) if part)


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

        return Source(
            mirror_of(location, mirrors, fetch=fetch), None, branch, path, without_password(location)
        )
    directory = Path(location).expanduser()
    if not directory.is_dir():
        raise InputError(
            f"the directory {printable(location)} does not exist",
            hint="--repo expects a git repository or a URL",
        )
    # A repository without a work tree is used only if it was named itself, not if it is found above.
    is_git_dir = all((directory / name).exists() for name in ("HEAD", "objects", "refs"))
    if is_git_dir and _is_tracked(directory.resolve()):
        raise InputError(
            f"the folder {printable(location)} has the files of a git repository, with settings that can run "
            "programs, among those of the repository around it",
            hint="name the repository around it with --repo, and the folder of reconciler.yaml with --path",
        )
    where = [f"--git-dir={directory}"] if is_git_dir else ["-C", str(directory)]
    questions = ["--absolute-git-dir", "--is-bare-repository", "--show-cdup", "--show-prefix"]
    result = run_git([*where, "rev-parse", *(questions[:2] if is_git_dir else questions)], check=False)
    if result.returncode != 0:
        raise _not_usable(directory, result.stderr)
    git_dir, bare, *tree = os.fsdecode(result.stdout).splitlines()
    up, prefix = tree if len(tree) == 2 else (None, "")  # neither of them inside the .git directory
    inside = "/".join(part.strip("/") for part in (prefix, path) if part.strip("/"))
    work_tree = None if bare == "true" or up is None else (directory / up).resolve()
    return Source(Path(git_dir), work_tree, branch, inside)


def _is_tracked(git_dir: Path) -> bool:
    """Return whether the files of a git directory are files of a repository around it: a branch has them."""
    head = f":(literal){git_dir.name}/HEAD"
    found = run_git(["-C", str(git_dir.parent), "ls-files", "-z", "--", head], check=False)
    return bool(found.stdout)


def _not_usable(directory: Path, stderr: bytes) -> WorldError | InputError:
    """Return the error for a directory in which git does not answer."""
    place, reason = printable(str(directory.resolve())), first_line(stderr)
    if b"dubious ownership" in stderr:
        named = re.search(rb"repository at '(.*)'", stderr)
        owned = printable(named[1]) if named else place
        return InputError(
            f"git does not trust {owned}, because it belongs to another user",
            hint=f"if you trust it, run `git config --global --add safe.directory {shlex.quote(owned)}`",
        )
    if b"safe.bareRepository" in stderr:
        return InputError(
            f"{place} is inside a git repository without a work tree",
            hint="name the repository itself with --repo",
        )
    if b"not a git repository" in stderr:
        return InputError(
            f"{place} is not inside a git repository: {reason}",
            hint="run `git init` and commit your manifests, or name a repository with --repo",
        )
    return WorldError(f"git cannot read the repository of {place}: {reason}")


def gone(what: str, removed_by: str) -> RefusedError:
    """Return the refusal to treat a missing ``reconciler.yaml`` as the wish that all its flows end."""
    return RefusedError(
        f"refused: {what}: commit {removed_by} removed it. Treating it as empty would cancel all its flows, "
        "so nothing was changed",
        hint="restore it, or name its new place with --path. To end all its flows, commit a reconciler.yaml "
        "without flows there, and add --allow-prune",
    )
