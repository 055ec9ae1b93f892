"""Mirrors of remote sources, kept in the cache of the user. The only module that uses GitPython."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

import git

from reconciler.desired.source.command import (
    GIT_PASSWORD,
    GIT_USER,
    HARDENED,
    first_line,
    printable,
    reading_environment,
    without_password,
    without_secrets,
)
from reconciler.errors import TransientError, WorldError

FETCH_TIMEOUT = 120.0
"""Seconds that cloning or fetching a remote source may take."""

_HEAD = "refs/reconciler/HEAD"
"""Where a mirror keeps the commit that the HEAD of its remote had at the last fetch."""

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
    plain, secrets = without_secrets(url)
    target, former = _place(plain, mirrors), _place(url, mirrors)
    if target.exists() and not fetch:
        return target
    try:
        mirrors.mkdir(mode=0o700, parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("w") as lock:
            # Only one process at a time fetches into a mirror. git inherits the lock, so it is held until
            # git has ended, even if this program is killed before. So locks of git that exist now were left
            # by a dead one.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if former != target and former.exists():  # of an earlier version, with the secrets in its config
                shutil.rmtree(former)
            _Remote(plain, target, lock.fileno(), secrets, without_password(url)).update()
    except OSError as error:
        raise WorldError(f"cannot write the mirror {target}: {error.strerror}") from error
    return target


def _place(url: str, mirrors: Path) -> Path:
    return mirrors / f"{hashlib.sha256(url.encode(errors='surrogateescape')).hexdigest()[:24]}.git"


_HELPER = (
    f'!f() {{ [ "$1" != get ] || printf "username=%s\\npassword=%s\\n" "${GIT_USER}" "${GIT_PASSWORD}"; }}; f'
)
"""A credential helper of git, which gets its answers from the environment."""


class _Remote:
    def __init__(self, url: str, target: Path, lock: int, secrets: dict[str, str], shown: str) -> None:
        self.url = url
        self._shown = shown
        self._secrets = secrets
        self.target = target
        self._lock = lock

    def update(self) -> None:
        if self.target.exists() and not self._is_repository():
            shutil.rmtree(self.target)
        if not self.target.exists():
            partial = self.target.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            self._git("clone", "--mirror", "--quiet", "--", self.url, str(partial))
            partial.rename(self.target)
            return
        for stale in [*self.target.glob("*.lock"), *self.target.glob("refs/**/*.lock")]:
            stale.unlink(missing_ok=True)
        for folder in ("objects/info", "objects/pack", "logs", "worktrees"):
            for stale in self.target.glob(f"{folder}/**/*.lock"):
                stale.unlink(missing_ok=True)
        here = f"--git-dir={self.target}"
        fetch = [
            here,
            "fetch",
            "--prune",
            "--quiet",
            "--no-auto-maintenance",
            "--no-write-fetch-head",
            "origin",
        ]
        try:
            self._git(*fetch, *_MIRRORED, f"+HEAD:{_HEAD}")
        except TransientError as error:
            if "remote ref HEAD" not in error.message:  # the branch that HEAD names does not exist there
                raise
            self._git(*fetch, *_MIRRORED)
        if self._id(_HEAD) != self._id("HEAD"):
            self._follow_head()

    def _follow_head(self) -> None:
        """Make HEAD of the mirror the same branch as that of the remote; called only if they may differ."""
        here = f"--git-dir={self.target}"
        for line in self._git(here, "ls-remote", "--symref", "origin", "HEAD").splitlines():
            value, _, name = line.partition("\t")
            if name == "HEAD" and value.startswith("ref: refs/heads/"):
                self._git(here, "symbolic-ref", "HEAD", value.removeprefix("ref: "))
                return
            if name == "HEAD":
                self._git(here, "update-ref", "--no-deref", "HEAD", value)
                return

    def _is_repository(self) -> bool:
        try:
            self._git(f"--git-dir={self.target}", "rev-parse", "--git-dir")
        except TransientError:
            return False
        return True

    def _id(self, name: str) -> str:
        try:
            return self._git(
                f"--git-dir={self.target}", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"
            )
        except TransientError:
            return ""

    def _git(self, *arguments: str) -> str:
        """Run git with a deadline and return its output. Raises TransientError if it fails."""
        environment = reading_environment() | self._secrets
        helper = ["-c", "credential.helper=", "-c", f"credential.helper={_HELPER}"] if self._secrets else []
        removed = [f"--unset={name}" for name in os.environ if name not in environment]
        try:
            output = git.Git(str(self.target.parent)).execute(
                [
                    "env",
                    *removed,
                    "git",
                    *HARDENED,
                    *helper,
                    *arguments,
                ],  # GitPython adds variables, but removes none
                env=environment,
                kill_after_timeout=FETCH_TIMEOUT,
                stdout_as_string=False,
                pass_fds=(self._lock,),
            )
        except git.exc.GitCommandError as error:
            reason = first_line(os.fsencode(str(error.stderr))) or "it did not answer in time"
            raise TransientError(
                without_password(f"cannot fetch {self._shown}: {reason}"),
                hint="check the URL, the network and your credentials; nothing was changed",
            ) from error
        return printable(output).strip()
