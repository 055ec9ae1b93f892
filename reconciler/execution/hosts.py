"""Hosts: where commands run and files lie. This version knows one, the machine it runs on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from reconciler.errors import TransientError

_INHERITED = frozenset(
    ["HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"]
)
_INHERITED_PREFIXES = ("LC_", "MODULE", "LMOD_")


class CommandResult(msgspec.Struct, frozen=True):
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


class LocalHost:
    """This machine."""

    name = "localhost"

    def run(self, command: str, timeout: float) -> CommandResult:
        """Run a shell command with a clean environment and a deadline.

        The whole process group dies at the deadline. The reconciler's own environment (it may hold
        secrets) does not reach the command, nor the jobs that it starts.

        Raises
        ------
        TransientError
            It cannot be started, or gave no answer within ``timeout`` seconds.
        """
        try:
            process = subprocess.Popen(
                ["/bin/bash", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=clean_environment(os.environ),
                start_new_session=True,
            )
        except OSError as error:
            raise TransientError(f"{self.name} cannot run a command: {error.strerror}") from error
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            end_group(process)
            raise TransientError(f"{self.name} gave no answer in {timeout:g} s") from error
        return CommandResult(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def expand(self, path: str) -> str:
        """Return an absolute path for one that may begin with ``~``."""
        return str(Path(path).expanduser().absolute())

    def write(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files, with their directories; the last one of a batch is there only if all others are.

        Raises
        ------
        TransientError
            The disk is full or not writable.
        """
        for name, data in files:
            path = Path(name)
            partial = path.with_name(f".{path.name}.partial")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                partial.write_bytes(data)
                partial.replace(path)
            except OSError as error:
                raise TransientError(f"cannot write {path}: {error.strerror}") from error

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None if it does not exist.

        Raises
        ------
        TransientError
            It exists, or may exist, but cannot be read now.
        """
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise TransientError(f"cannot read {path}: {error.strerror}") from error

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of this name.

        Raises
        ------
        TransientError
            It cannot be told now.
        """
        try:
            return Path(path).exists()
        except OSError as error:
            raise TransientError(f"cannot look at {path}: {error.strerror}") from error

    def make_directory(self, path: str) -> bool:
        """Make a directory whose parent exists; False if it is there already. Of two callers one gets True.

        Raises
        ------
        TransientError
            It cannot be made now.
        """
        try:
            Path(path).mkdir()
        except FileExistsError:
            return False
        except OSError as error:
            raise TransientError(f"cannot make {path}: {error.strerror}") from error
        return True

    def tail(self, path: str, size: int) -> str:
        """Return the last ``size`` bytes of a file as text; empty if it does not exist."""
        try:
            with Path(path).open("rb") as stream:
                stream.seek(0, os.SEEK_END)
                stream.seek(max(0, stream.tell() - size))
                return stream.read().decode(errors="replace")
        except OSError:
            return ""

    def listing(self, directory: str) -> list[str]:
        """Return the names in a directory; empty if it does not exist.

        Raises
        ------
        TransientError
            It cannot be read now: that is no proof that it is empty.
        """
        try:
            return [path.name for path in Path(directory).iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TransientError(f"cannot list {directory}: {error.strerror}") from error

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; those that are gone already are no error.

        Raises
        ------
        TransientError
            One cannot be removed now.
        """
        for path in paths:
            try:
                Path(path).unlink(missing_ok=True)
            except OSError as error:
                raise TransientError(f"cannot remove {path}: {error.strerror}") from error


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and its process group, without waiting for what has left the group but holds a pipe."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # what it never read is still in the pipe
                pipe.close()


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a job may inherit: who and where the user is, the search path, language and modules."""
    return {
        key: value
        for key, value in environment.items()
        if key in _INHERITED or key.startswith(_INHERITED_PREFIXES)
    }
