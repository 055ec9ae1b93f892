"""What every verb starts from: the global options, the source, the state directory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from reconciler.errors import InputError

if TYPE_CHECKING:  # the shell asks for completions at every key: source and store are imported when used
    from reconciler.actual.store import Store
    from reconciler.desired.source.git import Source
    from reconciler.model.desired import Revision
import getpass

from reconciler.errors import ReconcilerError

FORMATS = ("table", "wide", "json", "yaml", "name", "markdown", "mermaid", "dot", "png")


class Options(msgspec.Struct):
    """The global options; they may stand before or after the verb."""

    repo: str = "."
    branch: str | None = None
    path: str = ""
    state_dir: str | None = None
    output: str = "table"
    quiet: bool = False
    verbose: int = 0
    color: str = "auto"


class Context:
    """The options of one run, and the terminal manners that follow from them."""

    def __init__(self, options: Options) -> None:
        self.options = options

    # terminal -----------------------------------------------------------------------------------------

    def colored(self, stream: Any = None) -> bool:
        """Whether to colour what goes to ``stream`` (default stdout)."""
        if self.options.color != "auto":
            return self.options.color == "always"
        stream = stream or sys.stdout
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def style(self, text: str, **styles: Any) -> str:
        """Return the text coloured for stdout, or as it is."""
        return click.style(text, **styles) if self.colored() else text

    def say(self, line: str) -> None:
        """Narrate on stderr, unless --quiet."""
        if not self.options.quiet:
            click.echo(line, err=True)

    def detail(self, line: str) -> None:
        """Narrate on stderr with --verbose only."""
        if self.options.verbose and not self.options.quiet:
            click.echo(line, err=True)

    # source and store ---------------------------------------------------------------------------------

    def source(self, *, fetch: bool = True) -> Source:
        """Open the repository that --repo, --branch and --path name; a remote one as it is now."""
        from reconciler.desired.source.git import open_source

        options = self.options
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reconciler"
        return open_source(options.repo, options.branch, options.path, cache / "mirrors", fetch=fetch)

    def notice_uncommitted(self, source: Source) -> None:
        """Say on stderr which manifests are not committed, so not part of the revision."""
        if self.options.quiet or not source.reads_head():
            return
        changed = [path for path in source.uncommitted([""]) if path.endswith((".yaml", ".yml"))]
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            self.say(f"note: not committed, so not part of this revision: {', '.join(changed[:3])}{more}")

    def state_dir(self, source: Source | None = None, revision: Revision | None = None) -> Path:
        """Return the state directory: as given, else by the name of the project."""
        from reconciler.actual.state_dir import default_state_dir

        if self.options.state_dir:
            return Path(self.options.state_dir).expanduser().absolute()
        if os.environ.get("RECONCILER_STATE_DIR"):
            return default_state_dir("")
        source = source or self.source(fetch=False)
        return default_state_dir(_project_name(source, revision or source.revision()))

    @contextmanager
    def store(self, *, must_exist: bool = False, read_only: bool = False) -> Iterator[Store]:
        """Open the store; with ``must_exist`` refuse to make an empty one.

        ``read_only``: it never waits for one that writes, and cannot write itself.

        Raises
        ------
        InputError
            Nothing was ever applied there.
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


def mute_stdout() -> None:
    """Let what is printed from now on go nowhere, since nobody reads it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def opened(
    state_dir: Path,
    migrating: Callable[[str], None] | None = None,
    *,
    read_only: bool = False,
    leased: bool = False,
) -> Iterator[Store]:
    """Open a store and give it back. Nobody else may look into its directory.

    With ``migrating``, which is told what happens, one of an older schema is migrated first;
    ``leased``: under the lease that this process has.

    Raises
    ------
    InputError
        The schema is too new, or older and not to be migrated.
    RefusedError
        It must be migrated, but another process has the lease.
    """
    from reconciler.actual.migrations import OutdatedError, migrate_leased, migrate_state
    from reconciler.actual.store import Store

    with suppress(OSError):  # the store says what is wrong with it
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


def _project_name(source: Source, revision: Revision) -> str:
    """Return the project's name; remembered by blob id, so that nothing is parsed twice."""
    from reconciler.desired.documents import PROJECT_FILES
    from reconciler.desired.state import project_name

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reconciler" / "projects"
    for name in PROJECT_FILES:
        entry = source.entry(revision.commit, name)
        if entry is None:
            continue
        known = cache / entry.object_id
        if known.exists():
            return known.read_text()
        found = project_name(source, revision)
        cache.mkdir(parents=True, exist_ok=True)
        partial = known.with_name(f".{known.name}.{os.getpid()}")
        partial.write_text(found)
        partial.replace(known)
        return found
    return project_name(source, revision)


# Who is at the command line: for the record of what people asked for.


def user_identity(context: Context) -> str:
    """Return ``login (Name <mail>)``; without an identity in git just the login."""
    login, identity = _login(), _identity(context)
    return f"{login} ({identity})" if identity else login


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return f"uid {os.getuid()}"


def _identity(context: Context) -> str:
    """Return the identity that a commit here would have; git must not guess one."""
    try:
        done = context.source(fetch=False).run(
            "-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT", check=False
        )
    except ReconcilerError:
        return ""
    text = done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""
    return text[: text.rfind(">") + 1]
