"""Build processes: how they start, what they see of the environment, and the messages to and from them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.build.messages import HEADER, LARGEST, frame
from reconciler.errors import TransientError
from reconciler.execution.hosts.local import clean_environment, end_group, kill_group


class BuildProcess:
    """A process of :mod:`reconciler.build.server`. It sends an empty message when it has imported everything.

    It has the variables ``env`` from its start: packages read their settings when they are imported.
    Neither :meth:`send` nor :meth:`take` waits; :func:`wait_for` does.

    Raises
    ------
    TransientError
        The machine is out of resources for another process or its files.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.env = dict(env or {})
        self.ended = False
        self._received = bytearray()
        self._unsent = bytearray()
        try:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "reconciler.build.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=_environment() | self.env,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise TransientError(
                f"the build process cannot be started: {error.strerror}",
                hint="check the limits of this machine: memory, processes, open files, temporary files",
            ) from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)

    @property
    def is_alive(self) -> bool:
        """Return whether it is still running."""
        return self._process.poll() is None

    def send(self, message: bytes) -> None:
        """Send a message as far as the process takes it now; :func:`wait_for` sends the rest."""
        self._unsent += frame(message)
        self._write()

    def take(self) -> bytes | None:
        """Return the next message that has been received completely, or None."""
        if len(self._received) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._received)
        if length > LARGEST:
            self.kill()
            self.ended = True
            return None
        end = HEADER.size + length
        if len(self._received) < end:
            return None
        message = bytes(self._received[HEADER.size : end])
        del self._received[:end]
        return message

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._input, self._unsent[: 1 << 16])]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # its end is noticed by reading, after the answers that it has given
            self._unsent.clear()

    def last_words(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and the last line of its error output."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return code, lines[-1] if lines else ""

    def kill(self) -> None:
        """Kill it and all that it started, without waiting."""
        kill_group(self._process)

    def close(self) -> None:
        """End it and all that it started."""
        end_group(self._process)
        self._errors.close()


def wait_for(processes: Sequence[BuildProcess], seconds: float) -> None:
    """Wait until one of the processes has sent something or has ended, and send what is not yet sent."""
    deadline = time.monotonic() + seconds
    while True:
        reading = {process._output: process for process in processes}
        writing = {process._input: process for process in processes if process._unsent}
        ready, free, _ = select.select([*reading], [*writing], [], max(0.0, deadline - time.monotonic()))
        for pipe in free:
            writing[pipe]._write()
        for pipe in ready:
            chunk = os.read(pipe, 1 << 20)
            reading[pipe]._received += chunk
            reading[pipe].ended |= not chunk
        if ready or time.monotonic() >= deadline:
            return


PASSED_ON = "RECONCILER_BUILD_ENV"
"""The variable that names, separated by commas, the variables that the code of flows needs."""

_FOR_BUILDS = frozenset(
    [
        *(
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "MPLCONFIGDIR",
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
            "XDG_DATA_HOME",
        ),
        *("JOBFLOW_CONFIG_FILE", "ATOMATE2_CONFIG_FILE", "PMG_CONFIG_FILE", "PMG_VASP_PSP_DIR"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    ]
)


def _environment() -> dict[str, str]:
    """Return the environment of the build process, which runs the code of the repository.

    It has what a job has, where packages are configured, and what the user passes on: no secret by accident.
    Its PYTHONPATH never means the current directory.
    """
    named = {name.strip() for name in os.environ.get(PASSED_ON, "").split(",")}
    given = {key: value for key, value in os.environ.items() if key in _FOR_BUILDS | named}
    environment = clean_environment(os.environ) | given | {"PYTHONDONTWRITEBYTECODE": "1"}
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(path).is_absolute()]
    return environment | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})


class SpareProcess:
    """One build process in reserve, which has already imported jobflow when a flow must be built."""

    def __init__(self) -> None:
        self._process: BuildProcess | None = None

    def warm(self) -> None:
        """Start a process unless there is one; it imports in the background."""
        if self._process is not None and not self._process.is_alive:
            self.close()
        if self._process is None:
            self._process = BuildProcess()

    def take(self) -> BuildProcess:
        """Return a process that belongs to the caller from now on."""
        self.warm()
        process, self._process = self._process, None
        assert process is not None
        return process

    def kill(self) -> None:
        """Kill the process in reserve, without waiting."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the spare process."""
        if self._process is not None:
            self._process.close()
            self._process = None
