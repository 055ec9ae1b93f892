"""A host over SSH: one connection for all threads, opened when it is needed and again when it was lost."""

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
    SignCutter,
    after_sign,
    framed,
    never_began,
    new_sign,
)
from reconciler.execution.hosts.ssh import opening
from reconciler.execution.hosts.ssh.channel import FeedError, NoAnswerError, Slots, Talk, Watchdog, kill
from reconciler.model.connections import Connection

_CLOSING = 0.5
"""Seconds that closing waits for another thread."""

_PARTING = 2.0
"""Seconds for a lost connection to say so: it ends the commands on it a moment earlier."""

_REFUSALS = 5
"""How often a server that allows no command at all is asked again."""


class SshHost:
    """Another machine, over SSH by fabric; see :class:`~reconciler.execution.hosts.base.Host`."""

    is_local = False

    def __init__(self, connection: Connection) -> None:
        self.name = connection.name
        self.commands = 0
        self._connection = connection
        self._counting = threading.Lock()
        self._opening = threading.Lock()
        self._opened: Any = None
        self._failure: tuple[float, ReconcilerError] | None = None
        self._asking = threading.Lock()
        self._slots = Slots()
        self._watchdog = Watchdog()

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
            The host lets us not in, or is not known to be the right one.
        TransientError
            It cannot be reached, the connection was lost half-way, or there was no answer in time.
        """
        sign, kept = new_sign(), io.BytesIO()
        cutter = SignCutter(sign, sink if sink is not None else kept)
        feed = chain([framed(script, sign, reads_data=data is not None)], data or ())
        with self._session(timeout) as channel:
            talk = Talk(
                channel,
                feed,
                cutter,
                timeout,
                renewed=data is not None or sink is not None,
                all_of_it=sink is not None,
            )
            code = self._hold(talk, channel)
        errors = bytes(talk.errors)
        if code is None:
            raise self._lost(channel)
        if not cutter.began:
            raise never_began(self.name, code, cutter.noise, errors)
        said = after_sign(errors, sign) or b""
        return CommandResult(code, kept.getvalue().decode(errors="replace"), said.decode(errors="replace"))

    def close(self) -> None:
        """Let go of the connection; the next command opens it again.

        One that another thread is just opening is left to that thread: nobody waits for a silent host to end.
        """
        if self._opening.acquire(timeout=_CLOSING):
            try:
                self._drop(self._opened)
            finally:
                self._opening.release()

    def _hold(self, talk: Talk, channel: Any) -> int | None:
        from paramiko import SSHException

        try:
            with (
                self._watchdog.watching(channel.get_transport(), lambda: talk.due),
                self._agent_forwarded(channel),
            ):
                command = "exec bash -l -s" if self._connection.login_shell else "exec bash -s"
                channel.exec_command(command)
                return talk.hold()
        except NoAnswerError:
            kill(channel)
            raise self._silent(talk.timeout) from None
        except FeedError as error:  # the caller's, about its own data: what has begun must not go on
            kill(channel)
            raise error.error from None
        except (SSHException, EOFError, OSError) as error:
            if time.monotonic() >= talk.due:
                raise self._silent(talk.timeout) from error
            raise self._lost(channel, error) from error

    def _silent(self, timeout: float) -> TransientError:
        return TransientError(f"{self.name} gave no answer in {timeout:g} s")

    def _lost(self, channel: Any, error: Exception | None = None) -> TransientError:
        transport = channel.get_transport()
        transport.join(_PARTING)
        alive = transport.is_active()
        what = "the shell was killed" if alive else "the connection was lost"
        said = f": {error}" if error is not None and str(error) else ""
        return TransientError(f"{what} on {self.name} while a command ran{said}")

    @contextlib.contextmanager
    def _session(self, timeout: float) -> Iterator[Any]:
        """Give a channel for one command; it is closed, and its place free again, at the end."""
        channel = self._channel(timeout)
        with self._counting:
            self.commands += 1
        try:
            yield channel
        finally:
            with contextlib.suppress(EOFError, OSError):
                if channel.get_transport().is_active():
                    channel.close()
            self._slots.give_back()

    def _channel(self, timeout: float) -> Any:
        from paramiko import ChannelException, SSHException

        due = time.monotonic() + timeout
        refusals = losses = 0
        while True:
            opened = self._connected()
            if not self._slots.take(due):
                raise TransientError(f"{self.name} runs as many commands as it allows; none ended in time")
            try:
                return self._new_channel(opened.transport, due)
            except ChannelException as error:
                refusals += not self._slots.refused()
                if refusals > _REFUSALS or time.monotonic() > due:
                    raise self._no_session(error) from error
                time.sleep(0.1)
            except (SSHException, EOFError, OSError) as error:
                self._slots.give_back()
                losses += 1
                self._drop_if(opened)
                if time.monotonic() >= due:
                    raise self._silent(timeout) from error
                if losses > 1:
                    message = f"no command can be started on {self.name}: {error or type(error).__name__}"
                    raise TransientError(message) from error

    def _new_channel(self, transport: Any, due: float) -> Any:
        left = min(self._connection.connect_timeout, max(1.0, due - time.monotonic()))
        # One at a time: of two refusals, paramiko gives the reason to one thread only.
        if not self._asking.acquire(timeout=left):
            raise TimeoutError("there is no answer")
        try:
            return transport.open_session(timeout=left)
        finally:
            self._asking.release()

    @contextlib.contextmanager
    def _agent_forwarded(self, channel: Any) -> Iterator[None]:
        """Let the command use our agent, where the connection says so."""
        if not self._connection.forward_agent:
            yield
            return
        from paramiko.agent import AgentRequestHandler

        handler = AgentRequestHandler(channel)
        try:
            yield
        finally:
            handler.close()

    def _no_session(self, error: Exception) -> TransientError:
        return TransientError(
            f"{self.name} refuses to run a command: {error}",
            hint="the account may have no shell, or the server's MaxSessions is used up",
        )

    def _connected(self) -> Any:
        """Return the open connection; of many threads that need a new one, one opens it for all."""
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
            self._slots.forget_limit()
            return self._opened

    def _drop_if(self, opened: Any) -> None:
        with self._opening:
            if self._opened is opened:
                self._drop(opened)

    def _drop(self, opened: Any) -> None:
        self._opened = None
        opening.close(opened)
