"""A host over SSH: one connection for all threads, opened on first use and again after it was lost."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from reconciler.errors import ReconcilerError, TransientError
from reconciler.execution.hosts.base import (
    CommandResult,
    SentinelFilter,
    after_sentinel,
    framed,
    new_sentinel,
    remote_shell,
    shell_never_started,
)
from reconciler.execution.hosts.ssh import opening
from reconciler.execution.hosts.ssh.channel import (
    ChannelTransfer,
    DeadlineGuard,
    FeedError,
    NoAnswerError,
    SessionLimit,
    kill,
)
from reconciler.model.connections import Connection

_CLOSE_TIMEOUT = 0.5
"""Seconds that closing waits for a thread that is opening the connection."""

_LOSS_DELAY = 2.0
"""Seconds in which a lost connection reports its end; it ends the commands on it a moment earlier."""

_REFUSALS = 5
"""How often a server that refuses the only command is asked again."""


class SshHost:
    """Another machine, over SSH with fabric; see :class:`~reconciler.execution.hosts.base.Host`."""

    is_local = False

    def __init__(self, connection: Connection) -> None:
        self.name = connection.name
        self.commands = 0
        self._connection = connection
        self._counting = threading.Lock()
        self._opening = threading.Lock()
        self._opened: Any = None
        self._failure: tuple[float, ReconcilerError] | None = None
        self._channel_opening = threading.Lock()
        self._sessions = SessionLimit()
        self._deadlines = DeadlineGuard()

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
        AccessError
            The host refuses the login, or is not known to be the right one.
        TransientError
            It cannot be reached, the connection was lost during the command, or the timeout passed.
        """
        sentinel, kept = new_sentinel(), io.BytesIO()
        output = SentinelFilter(sentinel, sink if sink is not None else kept)
        feed = chain([framed(script, sentinel, reads_data=data is not None)], data or ())
        with self._session(timeout) as channel:
            transfer = ChannelTransfer(
                channel,
                feed,
                output,
                timeout,
                renewed=data is not None or sink is not None,
                to_the_end=sink is not None,
            )
            code = self._transfer(transfer, channel)
        errors = bytes(transfer.errors)
        if code is None:
            raise self._lost(channel)
        if not output.began:
            raise shell_never_started(self.name, code, output.noise, errors)
        stderr = after_sentinel(errors, sentinel) or b""
        stdout = kept.getvalue().decode(errors="replace")
        return CommandResult(code, stdout, stderr.decode(errors="replace"))

    def close(self) -> None:
        """Close the connection; the next command opens it again.

        A connection that another thread is just opening is left to that thread, so that a silent host cannot
        delay the end of the program.
        """
        if self._opening.acquire(timeout=_CLOSE_TIMEOUT):
            try:
                self._drop(self._opened)
            finally:
                self._opening.release()

    # one command --------------------------------------------------------------------------------------

    def _transfer(self, transfer: ChannelTransfer, channel: Any) -> int | None:
        """Return the exit code of the script, or None if the connection was lost."""
        from paramiko import SSHException

        try:
            with (
                self._deadlines.watching(channel.get_transport(), lambda: transfer.due),
                self._agent_forwarded(channel),
            ):
                channel.exec_command(remote_shell(self._connection.login_shell))
                return transfer.run()
        except NoAnswerError:
            kill(channel)
            raise self._no_answer(transfer.timeout) from None
        except FeedError as error:  # the script must not continue with half of its data
            kill(channel)
            raise error.error from None
        except (SSHException, EOFError, OSError) as error:
            if time.monotonic() >= transfer.due:
                raise self._no_answer(transfer.timeout) from error
            raise self._lost(channel, error) from error

    @contextlib.contextmanager
    def _agent_forwarded(self, channel: Any) -> Iterator[None]:
        """Give the command access to our SSH agent, if the connection allows it."""
        if not self._connection.forward_agent:
            yield
            return
        from paramiko.agent import AgentRequestHandler

        handler = AgentRequestHandler(channel)
        try:
            yield
        finally:
            handler.close()

    def _no_answer(self, timeout: float) -> TransientError:
        return TransientError(f"{self.name} did not answer within {timeout:g} s")

    def _lost(self, channel: Any, error: Exception | None = None) -> TransientError:
        transport = channel.get_transport()
        transport.join(_LOSS_DELAY)
        event = "the shell was killed" if transport.is_active() else "the connection was lost"
        detail = f": {error}" if error is not None and str(error) else ""
        return TransientError(f"{event} on {self.name} during a command{detail}")

    # channels -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _session(self, timeout: float) -> Iterator[Any]:
        """Open a channel for one command, and close it at the end."""
        channel = self._open_channel(timeout)
        with self._counting:
            self.commands += 1
        try:
            yield channel
        finally:
            with contextlib.suppress(EOFError, OSError):
                if channel.get_transport().is_active():
                    channel.close()
            self._sessions.release()

    def _open_channel(self, timeout: float) -> Any:
        from paramiko import ChannelException, SSHException

        due = time.monotonic() + timeout
        refusals = losses = 0
        while True:
            opened = self._connected()
            if not self._sessions.acquire(due):
                raise TransientError(f"{self.name} runs as many commands as it allows; none ended in time")
            left = min(self._connection.connect_timeout, max(1.0, due - time.monotonic()))
            try:
                # One at a time: of two refusals, paramiko gives the reason to one thread only.
                if not self._channel_opening.acquire(timeout=left):
                    raise TimeoutError("it does not answer")
                try:
                    return opened.transport.open_session(timeout=left)
                finally:
                    self._channel_opening.release()
            except ChannelException as error:
                refusals += not self._sessions.refused()
                if refusals > _REFUSALS or time.monotonic() > due:
                    raise TransientError(
                        f"{self.name} refuses to run a command: {error}",
                        hint="the account may have no shell, or the server's MaxSessions is used up",
                    ) from error
                time.sleep(0.1)
            except (SSHException, EOFError, OSError) as error:
                self._sessions.release()
                losses += 1
                with self._opening:
                    if self._opened is opened:
                        self._drop(opened)
                if time.monotonic() >= due:
                    raise self._no_answer(timeout) from error
                if losses > 1:
                    message = f"no command can be started on {self.name}: {error or type(error).__name__}"
                    raise TransientError(message) from error

    # the connection -----------------------------------------------------------------------------------

    def _connected(self) -> Any:
        """Return the open connection. If several threads need a new one, one of them opens it for all."""
        opened, asked = self._opened, time.monotonic()
        if opened is not None and opened.is_connected:
            return opened
        with self._opening:
            if self._opened is not None and self._opened.is_connected:
                return self._opened
            if self._failure is not None and self._failure[0] > asked:
                failed = self._failure[1]
                raise type(failed)(failed.message, hint=failed.hint)
            self._drop(self._opened)
            try:
                self._opened = opening.open_connection(self._connection)
            except ReconcilerError as error:
                self._failure = (time.monotonic(), error)
                raise
            self._sessions.reset()
            return self._opened

    def _drop(self, opened: Any) -> None:
        self._opened = None
        opening.close(opened)
