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

from reconciler.errors import InputError, ReconcilerError
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
        """Open the repository of --repo, --branch and --path; ``fetch`` updates the mirror of a remote."""
        from reconciler.desired.source.git import open_source

        options = self.options
        return open_source(options.repo, options.branch, options.path, _cache_dir() / "mirrors", fetch=fetch)

    def notice_uncommitted(self, source: Source) -> None:
        """Name on stderr the manifests that are not committed and thus not part of the revision."""
        if self.options.quiet or not source.reads_head():
            return
        changed = [path for path in source.uncommitted([""]) if path.endswith((".yaml", ".yml"))]
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            self.say(f"note: not committed, so not part of this revision: {', '.join(changed[:3])}{more}")

    def state_dir(self, source: Source | None = None, revision: Revision | None = None) -> Path:
        """Return the state directory: --state-dir, else the variable, else by the project's name."""
        from reconciler.actual.state_dir import default_state_dir

        if self.options.state_dir:
            return Path(self.options.state_dir).expanduser().absolute()
        if os.environ.get("RECONCILER_STATE_DIR"):
            return default_state_dir("")
        source = source or self.source(fetch=False)
        return default_state_dir(_project_name(source, revision or source.revision()))

    @contextmanager
    def store(self, *, must_exist: bool = False, read_only: bool = False) -> Iterator[Store]:
        """Open the store; with ``must_exist`` refuse to create an empty one.

        With ``read_only`` the store never waits for a writer, and cannot be written.

        Raises
        ------
        InputError
            Nothing was applied to this state directory yet.
        """
        from reconciler.actual.store import Store

        state_dir = self.state_dir()
        if must_exist and not Store.exists(state_dir):
            raise InputError(
                f"there is no state in {state_dir} yet",
                hint="run `reconcile --once` first, or give --state-dir",
            )
        with opened(state_dir, read_only=read_only) as store:
            yield store


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
    from reconciler.actual.store import Store

    with suppress(OSError):  # Store reports what is wrong with the directory
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
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

    for name in PROJECT_FILES:
        entry = source.entry(revision.commit, name)
        if entry is None:
            continue
        known = _cache_dir() / "projects" / entry.object_id
        if known.exists():
            return known.read_text()
        found = project_name(source, revision)
        known.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(known, found.encode(), sync=False)
        return found
    return project_name(source, revision)
