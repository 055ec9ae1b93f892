"""Mirrors of remote sources, kept in the cache of the user. The only module that uses GitPython."""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from pathlib import Path

import git

from reconciler.desired.source.command import first_line
from reconciler.errors import TransientError, WorldError

FETCH_TIMEOUT = 120.0
"""Seconds that cloning or fetching a remote source may take."""

_MIRRORED = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


def mirror_of(url: str, mirrors: Path, *, fetch: bool) -> Path:
    """Return the bare mirror of a remote: it is cloned once, and later only updated.

    Raises
    ------
    TransientError
        The remote did not answer in time, or answered with an error; an existing mirror stays as it was.
    WorldError
        The mirror cannot be written.
    """
    target = mirrors / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.git"
    if target.exists() and not fetch:
        return target
    try:
        mirrors.mkdir(mode=0o700, parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two fetches at once would get in the way of each other's refs
            _update_mirror(url, target)
    except OSError as error:
        raise WorldError(f"cannot write the mirror {target}: {error.strerror}") from error
    return target


def _update_mirror(url: str, target: Path) -> None:
    runner = git.Git(str(target if target.exists() else target.parent))
    runner.update_environment(GIT_TERMINAL_PROMPT="0", LC_ALL="C")
    try:
        if target.exists():
            runner.fetch("--prune", "--quiet", "origin", *_MIRRORED, kill_after_timeout=FETCH_TIMEOUT)
        else:
            partial = target.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            runner.clone("--mirror", "--quiet", "--", url, str(partial), kill_after_timeout=FETCH_TIMEOUT)
            partial.rename(target)
    except git.exc.GitCommandError as error:
        reason = first_line(str(error.stderr).encode()) or "it did not answer in time"
        raise TransientError(
            _without_password(f"cannot fetch {url}: {reason.strip()}"),
            hint="check the URL, the network and your credentials; nothing was changed",
        ) from error


def _without_password(text: str) -> str:
    """Hide the credentials before the host of a URL; git itself repeats them in its messages."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)
