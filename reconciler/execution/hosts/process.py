"""A script given to a child process: feeding, draining and ending it, whatever it does."""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, Any, BinaryIO

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import (
    CommandResult,
    SignCutter,
    after_sign,
    framed,
    never_began,
    new_sign,
)

_CHUNK = 1 << 16
_running: set[subprocess.Popen[bytes]] = set()
_GLANCE = 0.2
"""Seconds between two looks whether a process has ended although something holds its pipes open."""


def run_script(
    name: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    script: str,
    timeout: float,
    data: Iterable[bytes] | None = None,
    sink: BinaryIO | None = None,
) -> CommandResult:
    """Run a script in a child process that is a shell, or leads to one; see ``Host.run``.

    Raises
    ------
    TransientError
        It cannot be started, or there was no answer in time: the whole process group is dead then.
    """
    sign, reads_data = new_sign(), data is not None
    kept = io.BytesIO()
    cutter = SignCutter(sign, sink if sink is not None else kept)
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
    feed = chain([framed(script, sign, reads_data=reads_data)], data or ())
    talk = _Conversation(process, feed, cutter, timeout, renewed=reads_data or sink is not None)
    try:
        talk.hold()
    except _NoAnswerError as error:
        raise TransientError(f"{name} gave no answer in {timeout:g} s") from error
    finally:
        end_group(process)
        _running.discard(process)
    errors = bytes(talk.errors)
    if not cutter.began:
        raise never_began(name, process.returncode, cutter.noise, errors)
    said = after_sign(errors, sign) or b""
    out = kept.getvalue().decode(errors="replace")
    return CommandResult(process.returncode, out, said.decode(errors="replace"))


class _NoAnswerError(Exception):
    pass


class _Conversation:
    """Feeds a process and drains it at the same time, so that neither side waits for the other for ever."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        feed: Iterator[bytes],
        output: SignCutter,
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

    def hold(self) -> None:
        """Go on until the process has ended and all that it printed is read."""
        process = self.process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        with self._selector:
            self._watch(process.stdin, selectors.EVENT_WRITE, self._write)
            self._watch(process.stdout, selectors.EVENT_READ, self._read_output)
            self._watch(process.stderr, selectors.EVENT_READ, self._read_errors)
            while self._selector.get_map():
                if not self._step():
                    break
        self._wait()

    def _step(self) -> bool:
        """Move some bytes; False when the process is gone and only a child of it holds the pipes."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _NoAnswerError
        events = self._selector.select(min(left, _GLANCE))
        for key, _ in events:
            key.data(key.fileobj)
        if events and self._renewed:
            self._deadline = time.monotonic() + self._timeout
        return bool(events) or self.process.poll() is None

    def _wait(self) -> None:
        try:
            self.process.wait(max(0.1, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise _NoAnswerError from error

    def _watch(self, pipe: IO[bytes], event: int, action: Any) -> None:
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, event, action)

    def _leave(self, pipe: IO[bytes]) -> None:
        self._selector.unregister(pipe)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()

    def _write(self, pipe: IO[bytes]) -> None:
        if not self._pending:
            chunk = next((chunk for chunk in self._feed if chunk), None)
            if chunk is None:
                self._leave(pipe)
                return
            self._pending = memoryview(chunk)
        try:
            written = os.write(pipe.fileno(), self._pending[:_CHUNK])
        except BlockingIOError:
            return
        except BrokenPipeError:  # it has read all that it wanted
            self._leave(pipe)
            return
        self._pending = self._pending[written:]

    def _read_output(self, pipe: IO[bytes]) -> None:
        self._output.write(self._read(pipe))

    def _read_errors(self, pipe: IO[bytes]) -> None:
        self.errors += self._read(pipe)

    def _read(self, pipe: IO[bytes]) -> bytes:
        try:
            chunk = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return b""
        if not chunk:
            self._leave(pipe)
        return chunk


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group, with the group; nobody waits for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def kill_running() -> None:
    """Kill all commands that run now, with their groups; for a program that ends although they hang."""
    for process in list(_running):
        kill_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a command that still runs, with its process group; do not wait for what has left the group."""
    if process.poll() is None:
        kill_group(process)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # what it never read is still in the pipe
                pipe.close()
