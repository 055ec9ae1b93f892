"""What tests share: a real git repository, an environment that knows nothing of its user, a small project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent

AUTHOR = "Ada Tester <ada@example.invalid>"

# Variables of the user's shell that would change what the program, git or jobflow do.
_FOREIGN_PREFIXES = ("RECONCILER_", "GIT_", "JOBFLOW_", "XDG_")
_FOREIGN_NAMES = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "EMAIL")


def isolate(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Give this process, and so its children, an empty home and no settings of the user."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN_PREFIXES) or name in _FOREIGN_NAMES:
            monkeypatch.delenv(name)
    home.mkdir(parents=True, exist_ok=True)
    for name, value in _clean_variables(home).items():
        monkeypatch.setenv(name, value)


@contextmanager
def isolated_module(
    root: Path, factory: pytest.TempPathFactory, command: Path
) -> Iterator[pytest.MonkeyPatch]:
    """Do the same for a fixture of a module; programs and jobs run by ``command``, see ``warm_python``."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root / "home")
        patch.setattr(sys, "executable", str(command))
        patch.setenv("MPLCONFIGDIR", str(factory.getbasetemp() / "matplotlib"))
        yield patch


def _clean_variables(home: Path) -> dict[str, str]:
    name, address = _split_author(AUTHOR)
    return {
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": address,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": address,
    }


def _split_author(author: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.+) <(.+)>", author)
    if found is None:
        raise ValueError(f"not 'Name <mail>': {author!r}")
    return found[1], found[2]


class Repository:
    """A real git repository with a work tree; branch ``main``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.run("init", "--quiet", "--initial-branch=main")

    def run(self, *arguments: str) -> str:
        """Run git here and return what it prints, without the last newline; raises when git fails."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.removesuffix("\n")

    def write(self, path: str, text: str | bytes) -> Path:
        """Write a file exactly as given, with its directories."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def write_yaml(self, path: str, text: str) -> Path:
        """Write an indented block of a test: without its first newline and its common indentation."""
        return self.write(path, dedent(text.removeprefix("\n")))

    def remove(self, path: str) -> None:
        """Remove a file."""
        (self.path / path).unlink()

    def move(self, old: str, new: str) -> None:
        """Move a file."""
        target = self.path / new
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.path / old).rename(target)

    def commit(self, message: str = "change", author: str = AUTHOR) -> str:
        """Commit the whole work tree, changed or not, and return the commit's id."""
        self.run("add", "--all")
        self.run("commit", "--quiet", "--allow-empty", f"--message={message}", f"--author={author}")
        return self.head

    @property
    def head(self) -> str:
        """The id of the last commit."""
        return self.run("rev-parse", "HEAD")


def minimal_project(repository: Repository, work_dir: Path) -> None:
    """Write ``reconciler.yaml``: a project with two local shell workers, ``w1`` (the default) and ``w2``."""
    repository.write_yaml(
        "reconciler.yaml",
        f"""
        apiVersion: reconciler/v1
        kind: Project
        metadata: {{name: minimal}}
        spec:
          defaults: {{worker: w1}}
        ---
        apiVersion: reconciler/v1
        kind: Worker
        metadata: {{name: w1}}
        spec: {{type: local, scheduler_type: shell, work_dir: "{work_dir / "w1"}", max_jobs: 4}}
        ---
        apiVersion: reconciler/v1
        kind: Worker
        metadata: {{name: w2}}
        spec: {{type: local, scheduler_type: shell, work_dir: "{work_dir / "w2"}", max_jobs: 4}}
        """,
    )


class Reconcile:
    """Call it to run ``python -m reconciler ...`` as a real process."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd

    def __call__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Return the finished process; ``env`` is added to the environment, ``timeout`` is in seconds."""
        return subprocess.run(
            [sys.executable, "-m", "reconciler", *arguments],
            cwd=cwd or self.cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


HEAVY = ("jobflow", "fabric", "networkx", "numpy", "qtoolkit", "jsonschema")
"""Packages that a quick verb must not import."""


def imported_packages(arguments: Sequence[str], cwd: Path) -> set[str]:
    """Run ``python -m reconciler`` with ``arguments`` and return the top-level packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "reconciler", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines: Iterable[str] = done.stderr.splitlines()
    names = (line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:"))
    return {name.partition(".")[0] for name in names}


def no_small_disk(said: str) -> NoReturn:
    """End a test that needs a small disk of its own. Root can mount one, so there it is a failure."""
    if os.geteuid() == 0:
        pytest.fail(f"cannot mount a small disk: {said}")
    pytest.skip("this system lets nobody but root mount a small disk")
