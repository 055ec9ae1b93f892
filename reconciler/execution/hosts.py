"""Hosts: where commands run and files lie. This version knows one, the machine it runs on."""

from __future__ import annotations

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
            It gave no answer within ``timeout`` seconds.
        """
        process = subprocess.Popen(
            ["/bin/bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(os.environ),
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
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
        """Return the content of a file; None if it does not exist."""
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

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
        """Return the names in a directory; empty if it does not exist."""
        try:
            return [path.name for path in Path(directory).iterdir()]
        except FileNotFoundError:
            return []

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; those that are gone already are no error."""
        for path in paths:
            Path(path).unlink(missing_ok=True)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a job may inherit: who and where the user is, the search path, language and modules."""
    return {
        key: value
        for key, value in environment.items()
        if key in _INHERITED or key.startswith(_INHERITED_PREFIXES)
    }
