"""The source: a git repository, read from its object database and never from a checkout.

The only module that talks to git. Plumbing that a reconcile needs every time runs the ``git`` command
directly (2 ms); GitPython, whose import costs more than that, does what is rare: cloning and fetching
mirrors of remote sources, and reading who made a commit.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from reconciler.errors import InputError, TransientError, WorldError
from reconciler.model.desired import Revision

FETCH_TIMEOUT = 120.0
"""Seconds that cloning or fetching a remote source may take."""

_COMMAND_TIMEOUT = 60.0
_SYMLINK, _SUBMODULE = "120000", "160000"


class Entry(msgspec.Struct, frozen=True):
    """One file of a tree; ``path`` is relative to the directory that was listed."""

    path: str
    mode: str
    object_id: str

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file, neither symlink nor submodule."""
        return self.mode not in (_SYMLINK, _SUBMODULE)

    @property
    def what(self) -> str:
        """What it is, for a message."""
        return {_SYMLINK: "symlink", _SUBMODULE: "submodule"}.get(self.mode, "file")


class CommitInfo(msgspec.Struct, frozen=True):
    """Who made a commit, and when (ISO 8601)."""

    commit: str
    author: str
    date: str
    subject: str


class Source:
    """A repository, a branch and a subdirectory of it."""

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
        """
        wanted = commit or self.branch or "HEAD"
        names = [f"{wanted}^{{commit}}", f"{wanted}^{{commit}}:{self.path}"]
        result = self._run("rev-parse", "--verify", "-q", names[0], check=False)
        if result.returncode != 0:
            raise self._no_such_revision(wanted)
        commit_id = result.stdout.decode().strip()
        tree = self.tree_id(commit_id, "")
        if tree is None:
            raise InputError(
                f"{wanted} has no directory '{self.path}'", hint="check --path; it is relative to --repo"
            )
        return Revision(self._branch_name(commit), commit_id, self.path, tree)

    def _no_such_revision(self, wanted: str) -> InputError:
        if wanted == "HEAD":
            return InputError(
                f"the repository {self.git_dir} has no commit yet", hint="git add and git commit first"
            )
        branches = (
            self._run("for-each-ref", "--format=%(refname:short)", "refs/heads").stdout.decode().split()
        )
        return InputError(
            f"there is no branch or commit '{wanted}'", hint="branches: " + (", ".join(branches) or "none")
        )

    def _branch_name(self, commit: str | None) -> str:
        if self.branch and not commit:
            return self.branch
        result = self._run("symbolic-ref", "-q", "--short", "HEAD", check=False)
        return result.stdout.decode().strip() or "HEAD"

    def tree_id(self, commit: str, directory: str) -> str | None:
        """Return the tree id of a directory (relative to ``path``), or None if there is none."""
        result = self._run("rev-parse", "--verify", "-q", f"{commit}:{self._inside(directory)}", check=False)
        found = result.stdout.decode().strip()
        if result.returncode != 0 or not found:
            return None
        kind = self._run("cat-file", "-t", found).stdout.decode().strip()
        return found if kind == "tree" else None

    def entry(self, commit: str, path: str) -> Entry | None:
        """Return one file or directory of the revision, or None."""
        raw = self._run("ls-tree", "-z", commit, "--", f":(literal){self._inside(path)}", check=False)
        entries = list(_parse_listing(raw.stdout, ""))
        return Entry(path, entries[0].mode, entries[0].object_id) if entries else None

    def files(self, commit: str, directory: str) -> list[Entry]:
        """Return everything below a directory; empty if there is none. Paths are relative to ``path``."""
        tree = self.tree_id(commit, directory)
        if tree is None:
            return []
        raw = self._run("ls-tree", "-r", "-z", tree).stdout
        return list(_parse_listing(raw, f"{directory.strip('/')}/" if directory.strip("/") else ""))

    def top_level_names(self, tree: str) -> set[str]:
        """Return the names directly below a tree."""
        raw = self._run("ls-tree", "--name-only", "-z", tree).stdout.decode(errors="surrogateescape")
        return {name for name in raw.split("\0") if name}

    def blobs(self, object_ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (object id, content) of many blobs with one git process."""
        wanted = list(object_ids)
        if not wanted:
            return
        raw = self._run("cat-file", "--batch", stdin="\n".join(wanted).encode() + b"\n").stdout
        stream = io.BytesIO(raw)
        for object_id in wanted:
            header = stream.readline().split()
            if len(header) != 3:
                raise WorldError(f"git has lost the object {object_id}", hint="run `git fsck`")
            yield object_id, stream.read(int(header[2]))
            stream.read(1)

    def extract(self, tree: str, target: Path) -> None:
        """Write the files of a tree below ``target``, completely or not at all.

        Raises
        ------
        InputError
            The tree has a symlink or submodule.
        """
        if target.exists():
            return
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        raw = self._run("archive", "--format=tar", tree).stdout
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            for member in archive:
                if not (member.isfile() or member.isdir()):
                    raise InputError(f"'{member.name}' in the code of this repository is no plain file")
            archive.extractall(partial, filter="data")
        try:
            partial.rename(target)
        except OSError:  # somebody else was faster: the content is the same
            shutil.rmtree(partial, ignore_errors=True)
            if not target.exists():
                raise

    def root_commit(self) -> str:
        """Return the first commit of the history; empty for a shallow clone, which does not have it."""
        if (self.git_dir / "shallow").exists():
            return ""
        wanted = self.branch or "HEAD"
        roots = self._run("rev-list", "--max-parents=0", wanted).stdout.decode().split()
        return roots[-1] if roots else ""

    def uncommitted(self, directories: Iterable[str]) -> list[str]:
        """Return the files in these places whose changes are not part of any commit."""
        if self.work_tree is None:
            return []
        places = [f":(literal){self._inside(directory)}" for directory in directories]
        raw = self._run(
            "status", "--porcelain", "-z", "--untracked-files=all", "--", *places, cwd=self.work_tree
        )
        fields = raw.stdout.decode(errors="replace").split("\0")
        return [field[3:] for field in fields if len(field) > 3 and field[2] == " "]

    def commit_info(self, commit: str) -> CommitInfo:
        """Return who made a commit."""
        import git

        found = git.Repo(self.git_dir).commit(commit)
        author = f"{found.author.name} <{found.author.email}>"
        return CommitInfo(found.hexsha, author, found.authored_datetime.isoformat(), str(found.summary))

    def _inside(self, directory: str) -> str:
        return "/".join(part for part in (self.path, directory.strip("/")) if part)

    def _run(
        self, *arguments: str, stdin: bytes | None = None, check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        where = ["-C", str(cwd)] if cwd is not None else [f"--git-dir={self.git_dir}"]
        return _git([*where, *arguments], stdin=stdin, check=check)


def open_source(location: str, branch: str | None, path: str, mirrors: Path) -> Source:
    """Open a local repository, or the mirror of a remote one after fetching it.

    Raises
    ------
    InputError
        ``location`` is no repository.
    TransientError
        The remote cannot be reached in time; a mirror that exists is left as it was.
    """
    if _is_remote(location):
        return Source(_fetch_mirror(location, mirrors), None, branch, path)
    directory = Path(location).expanduser()
    if not directory.is_dir():
        raise InputError(f"there is no directory {location}", hint="--repo takes a git repository or a URL")
    result = _git(
        ["-C", str(directory), "rev-parse", "--absolute-git-dir", "--is-bare-repository", "--show-prefix"],
        check=False,
    )
    if result.returncode != 0:
        raise InputError(
            f"{directory.resolve()} is not inside a git repository: {_first_line(result.stderr)}",
            hint="run `git init` and commit your manifests, or give --repo",
        )
    git_dir, bare, *prefix = result.stdout.decode().splitlines()
    inside = "/".join(part.strip("/") for part in (prefix[0] if prefix else "", path) if part.strip("/"))
    work_tree = None if bare == "true" else _work_tree(directory)
    return Source(Path(git_dir), work_tree, branch, inside)


def _work_tree(directory: Path) -> Path:
    return Path(_git(["-C", str(directory), "rev-parse", "--show-toplevel"]).stdout.decode().strip())


def _is_remote(location: str) -> bool:
    return "://" in location or (":" in location.split("/")[0] and not Path(location).exists())


def _fetch_mirror(url: str, mirrors: Path) -> Path:
    """Clone the remote once as a bare mirror, then fetch what is new. Both have a deadline."""
    import git

    target = mirrors / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.git"
    environment = {"GIT_TERMINAL_PROMPT": "0"}
    try:
        if target.exists():
            mirror = git.Repo(target)
            with mirror.git.custom_environment(**environment):
                mirror.git.fetch(
                    "--prune", "--quiet", "origin", "+refs/*:refs/*", kill_after_timeout=FETCH_TIMEOUT
                )
            return target
        mirrors.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        runner = git.Git(str(mirrors))
        runner.update_environment(**environment)
        runner.clone("--mirror", "--quiet", "--", url, str(partial), kill_after_timeout=FETCH_TIMEOUT)
        partial.rename(target)
        return target
    except git.exc.GitCommandError as error:
        reason = _first_line(str(error.stderr).encode()) or str(error)
        raise TransientError(
            f"cannot fetch {url}: {reason.strip()}",
            hint="check the URL, the network and your credentials; nothing has changed",
        ) from error


_UNWANTED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")


def _git(
    arguments: list[str], *, stdin: bytes | None = None, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    # Inside a git hook these variables name another repository than the one that the user gave.
    environment = {key: value for key, value in os.environ.items() if key not in _UNWANTED}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        result = subprocess.run(
            ["git", *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=environment,
            timeout=_COMMAND_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise WorldError("the command `git` is not installed", hint="install git") from error
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"git {arguments[1]} gave no answer in {_COMMAND_TIMEOUT:.0f} s") from error
    if check and result.returncode != 0:
        command = " ".join(arguments[1:3])
        raise WorldError(f"git {command} failed: {_first_line(result.stderr)}")
    return result


def _first_line(text: bytes) -> str:
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[0].strip().removeprefix("stderr: ").strip("'") if lines else ""


def _parse_listing(raw: bytes, prefix: str) -> Iterator[Entry]:
    for line in raw.decode(errors="surrogateescape").split("\0"):
        if line:
            facts, _, path = line.partition("\t")
            mode, _, object_id = facts.split(" ")[:3]
            yield Entry(prefix + path, mode, object_id)
