"""This machine as a host, and scripts in child processes: fed, drained and ended, whatever they do."""

from __future__ import annotations

import contextlib
import io
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import (
    CLEAN_BASH,
    CommandResult,
    SentinelFilter,
    after_sentinel,
    framed,
    new_sentinel,
    shell_never_started,
)

_INHERITED = frozenset(
    [
        *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
        # Where the clients of a scheduler find it. In a job, the other SLURM_* variables describe that job.
        *("SLURM_CONF", "PBS_CONF_FILE", "PBS_SERVER", "PBS_DEFAULT", "PBS_HOME", "PBS_EXEC"),
        *("SGE_ROOT", "SGE_CELL", "SGE_CLUSTER_NAME", "SGE_QMASTER_PORT", "SGE_EXECD_PORT", "SGE_ARCH"),
    ]
)
_INHERITED_PREFIXES = ("LC_", "MODULE", "LMOD_")
_MODULES = re.compile(
    r"BASH_ENV|BASH_FUNC_(module|ml|_module_raw|_mlshdbg|switchml|clear(LMOD|Mt|MT))(%%|\(\))"
)
"""How the environment brings the function ``module`` along: exported functions, or a file that defines it."""

_CHUNK = 1 << 16
_CHECK_INTERVAL = 0.2
"""Seconds between two checks whether a process has ended although a child of it keeps its pipes open."""

_running: set[subprocess.Popen[bytes]] = set()


class LocalHost:
    """This machine. Commands get a clean environment, since that of the reconciler may hold secrets."""

    name = "localhost"
    is_local = True

    def __init__(self) -> None:
        self.commands = 0

    def run(
        self,
        script: str,
        timeout: float,
        *,
        data: Iterable[bytes] | None = None,
        sink: BinaryIO | None = None,
    ) -> CommandResult:
        """Run a bash script to its end; see :class:`~reconciler.execution.hosts.base.Host`.

        Raises
        ------
        TransientError
            bash cannot be started, or the timeout passed: the whole process group is killed then.
        """
        self.commands += 1
        environment = clean_environment(os.environ)
        return run_script(self.name, ["/bin/bash", *CLEAN_BASH[1:]], environment, script, timeout, data, sink)

    def close(self) -> None:
        """Do nothing: there is no connection."""


def expand(path: str) -> str:
    """Return a path of this machine, which can begin with ``~``, as an absolute path."""
    return str(Path(path).expanduser().absolute())


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a job may inherit: user, search path, language, modules, scheduler."""
    return {
        key: value
        for key, value in environment.items()
        if key in _INHERITED or key.startswith(_INHERITED_PREFIXES) or _MODULES.fullmatch(key)
    }


def run_script(
    name: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    script: str,
    timeout: float,
    data: Iterable[bytes] | None = None,
    sink: BinaryIO | None = None,
) -> CommandResult:
    """Run a script in a child process that is a shell, or leads to one (``ssh``); see ``Host.run``.

    Raises
    ------
    TransientError
        The process cannot be started, or the timeout passed: the whole process group is killed then.
    """
    sentinel, reads_data = new_sentinel(), data is not None
    kept = io.BytesIO()
    output = SentinelFilter(sentinel, sink if sink is not None else kept)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise TransientError(f"{name} cannot run a command: {error.strerror}") from error
    _running.add(process)
    feed = chain([framed(script, sentinel, reads_data=reads_data)], data or ())
    streams = _ProcessStreams(process, feed, output, timeout, renewed=reads_data or sink is not None)
    try:
        streams.transfer()
    except _TimeoutError as error:
        raise TransientError(f"{name} did not answer within {timeout:g} s") from error
    finally:
        end_group(process)
        _running.discard(process)
    errors = bytes(streams.errors)
    if not output.began:
        raise shell_never_started(name, process.returncode, output.noise, errors)
    stderr = after_sentinel(errors, sentinel) or b""
    stdout = kept.getvalue().decode(errors="replace")
    return CommandResult(process.returncode, stdout, stderr.decode(errors="replace"))


class _TimeoutError(Exception):
    pass


class _ProcessStreams:
    """Feeds and drains a process at the same time, so that neither side can block the other forever.

    With ``renewed``, the timeout starts again with each progress.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        feed: Iterator[bytes],
        output: SentinelFilter,
        timeout: float,
        *,
        renewed: bool,
    ) -> None:
        self.process = process
        self.errors = bytearray()
        self._feed = feed
        self._pending = memoryview(b"")
        self._output = output
        self._timeout = timeout
        self._renewed = renewed
        self._deadline = time.monotonic() + timeout
        self._selector = selectors.DefaultSelector()

    def transfer(self) -> None:
        """Return when the process has ended and all its output is read.

        A process that has ended while a child of it keeps the pipes open counts as done.

        Raises
        ------
        _TimeoutError
            The timeout passed.
        """
        process = self.process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        with self._selector:
            for pipe, event, action in (
                (process.stdin, selectors.EVENT_WRITE, self._write),
                (process.stdout, selectors.EVENT_READ, lambda pipe: self._output.write(self._read(pipe))),
                (process.stderr, selectors.EVENT_READ, lambda pipe: self.errors.extend(self._read(pipe))),
            ):
                os.set_blocking(pipe.fileno(), False)
                self._selector.register(pipe, event, action)
            while self._selector.get_map():
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise _TimeoutError
                events = self._selector.select(min(left, _CHECK_INTERVAL))
                for key, _ in events:
                    key.data(key.fileobj)
                if events and self._renewed:
                    self._deadline = time.monotonic() + self._timeout
                if not events and process.poll() is not None:
                    break
        try:
            process.wait(max(0.1, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise _TimeoutError from error

    def _write(self, pipe: IO[bytes]) -> None:
        if not self._pending:
            chunk = next((chunk for chunk in self._feed if chunk), None)
            if chunk is None:
                self._finish(pipe)
                return
            self._pending = memoryview(chunk)
        try:
            written = os.write(pipe.fileno(), self._pending[:_CHUNK])
        except BlockingIOError:
            return
        except BrokenPipeError:  # the process reads no more of its input
            self._finish(pipe)
            return
        self._pending = self._pending[written:]

    def _read(self, pipe: IO[bytes]) -> bytes:
        try:
            chunk = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return b""
        if not chunk:
            self._finish(pipe)
        return chunk

    def _finish(self, pipe: IO[Any]) -> None:
        self._selector.unregister(pipe)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group that a process leads, without waiting for it to end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def kill_running() -> None:
    """Kill all running commands with their groups, when the program ends although they hang."""
    for process in list(_running):
        kill_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process group whose leader still runs; do not wait for processes that have left the group."""
    if process.poll() is None:
        kill_group(process)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # input that it never read is still in the pipe
                pipe.close()
