"""Scripts over the channels of one connection: transfer with a deadline, and a limit on how many run."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Iterator
from typing import Any

from reconciler.execution.hosts.base import SentinelFilter

_CHUNK = 1 << 15
_SEND_INTERVAL = 0.01
"""Seconds between two checks for room to send more; unlike new output, it causes no event."""
_LINGER = 1.0
"""Seconds without output after which an ended command is done although a child keeps its output open."""


class NoAnswerError(Exception):
    """The deadline passed."""


class FeedError(Exception):
    """The caller's data raised ``error``, which says nothing about the connection."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class ChannelTransfer:
    """Feeds and drains one channel.

    ``due`` is the deadline in monotonic seconds; with ``renewed`` it moves on with each progress.
    With ``to_the_end``, the output is read to its end even after the command has ended.
    """

    def __init__(
        self,
        channel: Any,
        feed: Iterator[bytes],
        output: SentinelFilter,
        timeout: float,
        *,
        renewed: bool,
        to_the_end: bool,
    ) -> None:
        self.errors = bytearray()
        self.due = time.monotonic() + timeout
        self.timeout = timeout
        self._channel = channel
        self._feed = feed
        self._pending = memoryview(b"")
        self._fed = False
        self._output = output
        self._renewed = renewed
        self._to_the_end = to_the_end

    def run(self) -> int | None:
        """Return the exit code of the command, or None if the connection was lost before its end.

        Raises
        ------
        NoAnswerError
            The deadline passed.
        FeedError
            The data raised an exception.
        """
        channel = self._channel
        channel.settimeout(0.0)
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        last_progress = time.monotonic()
        while True:
            # Checked before the last look for output, so that none is missed.
            ended = channel.closed or (channel.eof_received and channel.exit_status_ready())
            lingers = not self._to_the_end and time.monotonic() > last_progress + _LINGER
            over = ended or (lingers and channel.exit_status_ready())
            progress = self._drain() | self._send()
            now = time.monotonic()
            if over:
                code: int = channel.exit_status
                return code if code >= 0 else None
            if progress:
                last_progress = now
                if self._renewed:
                    self.due = now + self.timeout
            elif now >= self.due:
                raise NoAnswerError
            elif not self._fed:
                poll.poll(1000 * _SEND_INTERVAL)
            else:  # the end of a command, unlike that of its output, causes no event
                poll.poll(1000 * max(0.001, min(_LINGER / 4, self.due - now)))

    def _drain(self) -> bool:
        channel, moved = self._channel, False
        while channel.recv_ready():
            self._output.write(channel.recv(_CHUNK))
            moved = True
        while channel.recv_stderr_ready():
            self.errors += channel.recv_stderr(_CHUNK)
            moved = True
        return moved

    def _send(self) -> bool:
        if self._fed or not self._channel.send_ready():
            return False
        if not self._pending:
            try:
                self._pending = memoryview(next((chunk for chunk in self._feed if chunk), b""))
            except Exception as error:
                raise FeedError(error) from error
            self._fed = not self._pending
        try:
            if self._fed:
                self._channel.shutdown_write()
                return True
            sent = self._channel.send(self._pending[:_CHUNK])
        except TimeoutError:  # the room is used up again
            return False
        except OSError:  # the command reads no more of its input
            self._fed = True
            return False
        self._pending = self._pending[sent:]
        return bool(sent)


def kill(channel: Any) -> None:
    """Kill the command of a channel with its process group and close the channel, without waiting."""
    from paramiko import Message

    message = Message()
    message.add_byte(bytes([98]))  # SSH_MSG_CHANNEL_REQUEST
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string("KILL")

    def send() -> None:
        with contextlib.suppress(Exception):  # the command or the connection is gone already
            channel.get_transport()._send_user_message(message)
            channel.close()

    # In a thread, since a stuck connection blocks sending.
    threading.Thread(target=send, daemon=True).start()


class SessionLimit:
    """The number of commands that run at the same time on one connection.

    It is unlimited until the server refuses a command (its ``MaxSessions``).
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._limit: int | None = None

    def acquire(self, due: float) -> bool:
        """Wait until one more command may run; return False if none could before ``due`` (monotonic)."""
        with self._changed:
            free = self._changed.wait_for(
                lambda: self._limit is None or self._running < self._limit,
                timeout=max(0.0, due - time.monotonic()),
            )
            if free:
                self._running += 1
            return free

    def release(self) -> None:
        """Note that a command has ended."""
        with self._changed:
            self._running -= 1
            self._changed.notify()

    def refused(self) -> bool:
        """Note that the server refused a command; return False if no other command was running."""
        with self._changed:
            self._running -= 1
            others = self._running
            self._limit = max(1, min(others, self._limit or others))
            return others > 0

    def reset(self) -> None:
        """Forget the limit of a former connection."""
        with self._changed:
            self._limit = None
            self._changed.notify_all()


class DeadlineGuard:
    """Closes the connection of a command that hangs, past its deadline, inside of paramiko."""

    def __init__(self, grace: float = 1.0) -> None:
        self._grace = grace
        self._changed = threading.Condition()
        self._watched: dict[object, Any] = {}
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, transport: Any, due: Any) -> Iterator[None]:
        """Guard the block; ``due()`` returns its deadline in monotonic seconds."""
        token = object()
        with self._changed:
            self._watched[token] = (transport, due)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, daemon=True, name="ssh deadlines")
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._watched[token]

    def _watch(self) -> None:
        while True:
            with self._changed:
                if not self._watched and not self._changed.wait_for(lambda: bool(self._watched), timeout=30):
                    self._thread = None
                    return
                watched = list(self._watched.values())
            now = time.monotonic()
            for transport, due in watched:
                if now > due() + self._grace:
                    transport.close()
            time.sleep(0.25)
