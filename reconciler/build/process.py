"""The process that builds flows, seen from outside: its pipes, its deadline and its end."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time

from reconciler.errors import TransientError
from reconciler.execution.hosts.local import end_group, kill_group


class BuildProcess:
    """A process of :mod:`reconciler.build.server`. It says a line when it has imported everything.

    The first line that it is sent says where the user's code is; so it can be started before that is known.

    Raises
    ------
    TransientError
        The machine has no room for another process, or for its files.
    """

    def __init__(self) -> None:
        self._pending = b""
        try:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
            self._process = self._started()
        except OSError as error:
            raise TransientError(
                f"the process that builds flows cannot be started: {error.strerror}",
                hint="check the limits of this machine: memory, processes, open files, temporary files",
            ) from error

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "reconciler.build.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send(self, line: bytes) -> None:
        """Send a line. Raises BrokenPipeError when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def read_line(self, limit: float) -> bytes | None:
        """Return the next line that it says, None if it ended. Raises TimeoutError after ``limit`` s."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        deadline = time.monotonic() + limit
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            chunk = os.read(pipe, 1 << 20)
            if not chunk:
                return None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def last_words(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and the last line of what it wrote to stderr."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return code, lines[-1] if lines else ""

    def kill(self) -> None:
        """Kill it with all that it started; does not wait."""
        kill_group(self._process)

    def close(self) -> None:
        """End it with all that it started."""
        end_group(self._process)
        self._errors.close()


class SpareProcess:
    """One build process in reserve: it has imported jobflow already when a flow is to be built."""

    def __init__(self) -> None:
        self._process: BuildProcess | None = None

    def warm(self) -> None:
        """Start one unless there is one; it imports while others work."""
        if self._process is not None and not self._process.is_alive:
            self.close()
        if self._process is None:
            self._process = BuildProcess()

    def take(self) -> BuildProcess:
        """Return a process that is somebody else's from now on."""
        self.warm()
        process, self._process = self._process, None
        assert process is not None
        return process

    def kill(self) -> None:
        """Kill the one in reserve; does not wait."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the one in reserve."""
        if self._process is not None:
            self._process.close()
            self._process = None
