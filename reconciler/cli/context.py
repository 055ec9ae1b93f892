"""What every command starts from: the global options, the source, the state directory, the user."""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from reconciler.errors import ForeignStateError, InputError, ReconcilerError, WorldError
from reconciler.files import write_atomically

if TYPE_CHECKING:  # imported when used: shell completion runs this module at each press of the tab key
    from reconciler.actual.store import Store
    from reconciler.desired.source.git import Source
    from reconciler.model.desired import Revision


class Options(msgspec.Struct):
    """The global options."""

    repo: str = "."
    branch: str | None = None
    path: str = ""
    state_dir: str | None = None
    policy: str | None = None
    output: str = "table"
    quiet: bool = False
    verbose: int = 0
    color: str = "auto"


class Context:
    """The options of one call, and what follows from them: colors, verbosity, source and store."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def colored(self, stream: Any = None) -> bool:
        """Return whether to color what goes to ``stream`` (default stdout)."""
        if self.options.color != "auto":
            return self.options.color == "always"
        stream = stream or sys.stdout
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def style(self, text: str, **styles: Any) -> str:
        """Return the text colored for stdout, if stdout is colored."""
        return click.style(text, **styles) if self.colored() else text

    def say(self, line: str) -> None:
        """Print a message on stderr, unless --quiet."""
        if not self.options.quiet:
            click.echo(line, err=True)

    def detail(self, line: str) -> None:
        """Print a message on stderr, only with --verbose."""
        if self.options.verbose:
            self.say(line)

    def source(self, *, fetch: bool = True) -> Source:
        """Open the repository of --repo, --branch and --path; ``fetch`` updates the mirror of a remote.

        Without --path the project is that of the directory, or of the nearest one above it.
        """
        from reconciler.desired.policy_file import local_policy
        from reconciler.desired.source.git import open_source

        options = self.options
        mirrors = _cache_dir() / "mirrors"
        source = open_source(options.repo, options.branch, options.path, mirrors, fetch=fetch)
        place = options.repo if source.url is not None else str(source.work_tree or source.git_dir)
        source.policy = local_policy(place, options.policy)
        source.verified_dir = _cache_dir() / "verified"
        if source.path and not options.path:
            from reconciler.desired.documents import PROJECT_FILES

            source.path = source.nearest_folder_with(PROJECT_FILES)
        return source

    def notice_uncommitted(self, source: Source) -> None:
        """Name on stderr the manifests that are not committed and thus not part of the revision."""
        if self.options.quiet or not source.reads_head():
            return
        changed = [path for path in source.uncommitted([""]) if path.endswith((".yaml", ".yml"))]
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            self.say(f"note: not committed, so not part of this revision: {', '.join(changed[:3])}{more}")

    def state_dir(self, source: Source | None = None, revision: Revision | None = None) -> Path:
        """Return the state directory: --state-dir, else the variable, else by the project's name.

        If there is no state of that name, a state of this repository with the project's former name counts.
        """
        return self._state_dirs(source, revision)[0]

    def own_state_dir(self, source: Source | None = None, revision: Revision | None = None) -> Path:
        """Return the state directory, for a command that writes to it.

        The directory of a project that was renamed gets the new name, unless another process uses it.
        """
        found, named = self._state_dirs(source, revision)
        if found == named:
            return found
        from reconciler.actual.state_dir import Lease

        try:
            with Lease(found) as lease:
                lease.acquire(time.time())
                found.rename(named)
        except (ReconcilerError, OSError) as error:
            self.detail(f"the state stays in {found}: {error}")
            return found
        self.say(f"project '{found.name}' is now named '{named.name}': its state has moved to {named}")
        return named

    def _state_dirs(self, source: Source | None, revision: Revision | None) -> tuple[Path, Path]:
        """Return the state directory, and the one that has the name of the project."""
        from reconciler.actual.state_dir import default_state_dir, lmdb_dir

        if self.options.state_dir:
            given = Path(self.options.state_dir).expanduser().absolute()
            _require_utf_8(given)
            return given, given
        if os.environ.get("RECONCILER_STATE_DIR"):
            given = default_state_dir("")
            _require_utf_8(given)
            return given, given
        source = source or self.source(fetch=False)
        revision = revision or source.revision()
        named = default_state_dir(_project_name(source, revision))
        _require_utf_8(named)
        if (lmdb_dir(named) / "data.mdb").exists():
            return named, named
        return _state_of_former_name(source, revision, named) or named, named

    @contextmanager
    def store(self, *, must_exist: bool = False, read_only: bool = False) -> Iterator[Store]:
        """Open the store; with ``must_exist`` refuse to create an empty one.

        With ``read_only`` the store never waits for a writer, and cannot be written.

        Raises
        ------
        InputError
            Nothing was applied to this state directory yet.
        ForeignStateError
            The state belongs to another repository than that of --repo. A command that only reads a state
            which the user names by --state-dir or the variable prints a note instead.
        """
        from reconciler.actual.store import Store

        state_dir = self.state_dir()
        if must_exist and not Store.exists(state_dir):
            raise InputError(
                f"there is no state in {state_dir} yet",
                hint="run `reconcile --once` first, or give --state-dir",
            )
        with opened(state_dir, read_only=read_only) as store:
            self._check_owner(store, read_only=read_only)
            yield store

    def _check_owner(self, store: Store, *, read_only: bool) -> None:
        try:
            with store.read() as view:
                lineage, last = view.lineage(), view.last_revision()
            if lineage is None or not lineage.roots:
                return
            source = self.source(fetch=False)
            if last is not None and source.knows(last.commit):
                return
            roots = source.root_commits()
        except ReconcilerError:  # no repository here, or it or the lineage cannot be read
            return
        if not lineage.is_foreign(roots):
            return
        text = (
            f"the state in {store.path} belongs to {lineage.shown()}, not to the repository in "
            f"{self.options.repo} (root {roots[-1][:7]})"
        )
        named = self.options.state_dir or os.environ.get("RECONCILER_STATE_DIR")
        if read_only and named:
            self.say(f"note: {text}")
            return
        raise ForeignStateError(
            text, hint="name its repository with --repo, or the state of this repository with --state-dir"
        )


@contextmanager
def opened(
    state_dir: Path,
    migrating: Callable[[str], None] | None = None,
    *,
    read_only: bool = False,
    leased: bool = False,
) -> Iterator[Store]:
    """Open the store of a state directory, which is created with mode 0700 if it does not exist.

    Parameters
    ----------
    migrating
        Receives the messages of a migration. Without it, a store of an older schema is not migrated.
    leased
        Whether this process holds the lease already, so that a migration must not take it.

    Raises
    ------
    InputError
        The schema is too new, or older and not to be migrated.
    RefusedError
        The store must be migrated, but another process holds the lease.
    """
    from reconciler.actual.migrations import OutdatedError, migrate_leased, migrate_state
    from reconciler.actual.state_dir import require_private
    from reconciler.actual.store import Store

    _require_utf_8(state_dir)
    with suppress(OSError):  # Store reports what is wrong with the directory
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_private(state_dir)
    try:
        store = Store(state_dir, read_only=read_only)
    except OutdatedError:
        if migrating is None:
            raise
        migrate = migrate_leased if leased else migrate_state
        migrate(state_dir, time.time(), migrating)
        store = Store(state_dir, read_only=read_only)
    try:
        yield store
    finally:
        store.close()


def _state_of_former_name(source: Source, revision: Revision, named: Path) -> Path | None:
    """Return the state that a project had before it was renamed; the last applied one if there are several.

    It belongs to this repository, follows the same branch, and was applied from the same folder, at a commit
    before this revision.
    """
    from reconciler.actual.store import Store

    found: list[tuple[float, Path]] = []
    roots: list[str] | None = None
    try:
        others = sorted(one for one in named.parent.iterdir() if one != named and Store.exists(one))
    except OSError:
        return None
    for state_dir in others:
        try:
            with opened(state_dir, read_only=True) as store, store.read() as view:
                lineage, last, followed = view.lineage(), view.last_revision(), view.followed()
            if lineage is None or last is None or last.path != revision.path:
                continue
            if (followed or last.branch) != revision.branch or not source.knows(last.commit):
                continue
            roots = roots if roots is not None else source.root_commits()
            if set(roots) & set(lineage.roots) and source.follows(revision.commit, last.commit):
                found.append((last.time, state_dir))
        except ReconcilerError:  # it is damaged, or has another schema
            continue
    return max(found)[1] if found else None


def _require_utf_8(path: Path) -> None:
    """Refuse a path that LMDB cannot open."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise InputError(
            f"the path {shown} is not UTF-8, so LMDB cannot open a state there",
            hint="choose another directory with --state-dir, RECONCILER_STATE_DIR or TMPDIR",
        ) from error


def user_identity(context: Context) -> str:
    """Return the user who runs this command, for events: ``login (Name <mail>)``, or just the login.

    Name and mail are those that git would put into a commit here; git must not guess them.
    """
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        login = f"uid {os.getuid()}"
    import subprocess

    from reconciler.desired.source.command import COMMAND_TIMEOUT, users_environment

    try:
        git_dir = context.source(fetch=False).git_dir
        done = subprocess.run(
            ["git", f"--git-dir={git_dir}", "-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT"],
            env=users_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT,
            check=False,
        )  # fmt: skip
    except (ReconcilerError, OSError, subprocess.TimeoutExpired):
        return login
    text = done.stdout.decode(errors="backslashreplace").strip() if done.returncode == 0 else ""
    identity = text[: text.rfind(">") + 1]  # without the time that follows
    return f"{login} ({identity})" if identity else login


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reconciler"


def _project_name(source: Source, revision: Revision) -> str:
    """Return the project's name, cached by the blob id of the project file so that it is parsed once."""
    from reconciler.desired.documents import PROJECT_FILES
    from reconciler.desired.state import project_name
    from reconciler.desired.values import is_name

    for name in PROJECT_FILES:
        entry = source.entry(revision.commit, name)
        if entry is None:
            continue
        known = _cache_dir() / "projects" / entry.object_id
        if known.exists() and is_name(name := known.read_text()):
            return name
        found = project_name(source, revision)
        with suppress(OSError, WorldError):  # without a cache the file is parsed again
            known.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(known, found.encode(), sync=False)
        return found
    return project_name(source, revision)
