"""One call of the ``git`` command, with an environment that does not lead it to another repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from reconciler.errors import TransientError, WorldError

COMMAND_TIMEOUT = 60.0
"""Seconds after which a call of git is given up."""

_UNWANTED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")


def git_environment() -> dict[str, str]:
    """Return the environment of this process without the variables that select another repository.

    Inside a git hook these variables name a repository other than the one that the user gave.
    """
    return {key: value for key, value in os.environ.items() if key not in _UNWANTED}


def run_git(
    arguments: list[str], *, stdin: bytes | None = None, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a git command that only reads, without prompts and in English; return its result as bytes.

    Raises
    ------
    WorldError
        git failed, and ``check`` is set.
    TransientError
        git gave no answer in time, or cannot be started now.
    """
    environment = git_environment() | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        result = subprocess.run(
            ["git", *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=environment,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise not_started(error) from error
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"git {arguments[1]} did not answer within {COMMAND_TIMEOUT:.0f} s") from error
    if check and result.returncode != 0:
        command = " ".join(arguments[1:3])
        raise WorldError(f"git {command} failed: {first_line(result.stderr)}")
    return result


def not_started(error: OSError) -> WorldError:
    """Return the error when git cannot be started: it is missing, or resources are exhausted."""
    if isinstance(error, FileNotFoundError):
        return WorldError("the command `git` is not installed", hint="install git")
    return TransientError(
        f"git cannot be started: {error.strerror}",
        hint="check the limits of this machine: memory, processes, open files",
    )


def first_line(text: bytes) -> str:
    """Return the first line of git's error output."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[0].strip().removeprefix("stderr: ").strip("'") if lines else ""


def is_remote(location: str) -> bool:
    """Return whether a location is a URL or ``host:path``, rather than a directory of this machine."""
    return "://" in location or (":" in location.split("/")[0] and not Path(location).exists())
