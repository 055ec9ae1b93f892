"""One script over one channel of a connection: fed and drained at the same time, with a deadline."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Iterator
from typing import Any

from reconciler.execution.hosts.base import SignCutter

# How many commands run at the same time on one connection: as many as the server allows.


class Slots:
    """Places for commands. There is no limit until the server refuses one (its ``MaxSessions``)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0
        self._limit: int | None = None

    def take(self, due: float) -> bool:
        """Wait for a free place, at most until ``due`` (monotonic seconds); False if there was none."""
        with self._changed:
            free = self._changed.wait_for(self._is_free, timeout=max(0.0, due - time.monotonic()))
            if free:
                self._taken += 1
            return free

    def give_back(self) -> None:
        """Leave a place."""
        with self._changed:
            self._taken -= 1
            self._changed.notify()

    def refused(self) -> bool:
        """Leave a place that the server refused; False if no other command held one."""
        with self._changed:
            self._taken -= 1
            others = self._taken
            self._limit = max(1, min(others, self._limit or others))
            return others > 0

    def forget_limit(self) -> None:
        """It is another connection now."""
        with self._changed:
            self._limit = None
            self._changed.notify_all()

    def _is_free(self) -> bool:
        return self._limit is None or self._taken < self._limit


_CHUNK = 1 << 15
_GLANCE = 0.01
"""Seconds between two looks for room to send more: unlike input, that gives no sign."""
_LINGER = 1.0
"""Seconds without output after which a command that has ended is over, though a child holds its output."""


class NoAnswerError(Exception):
    """The deadline is over."""


class FeedError(Exception):
    """What the caller's data raised; it is no error of the connection."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Talk:
    """What goes to and comes from a channel.

    ``due`` is the deadline in monotonic seconds; it moves on with the stream if ``renewed``.
    ``all_of_it``: wait for the end of the output, even when the command has ended.
    """

    def __init__(
        self,
        channel: Any,
        feed: Iterator[bytes],
        output: SignCutter,
        timeout: float,
        *,
        renewed: bool,
        all_of_it: bool,
    ) -> None:
        self.errors = bytearray()
        self.due = time.monotonic() + timeout
        self._channel = channel
        self._feed = feed
        self._pending = memoryview(b"")
        self._fed = False
        self._output = output
        self.timeout = timeout
        self._renewed = renewed
        self._all_of_it = all_of_it
        self._moved = time.monotonic()
        self._poll = select.poll()

    def hold(self) -> int | None:
        """Go on until the command is over; return its exit code, None if the connection was lost before.

        Raises
        ------
        NoAnswerError
            The deadline is over.
        FeedError
            The data could not be had.
        """
        self._channel.settimeout(0.0)
        self._poll.register(self._channel.fileno(), select.POLLIN)
        while not self._step():
            pass
        code: int = self._channel.exit_status
        return code if code >= 0 else None

    def _step(self) -> bool:
        """Move some bytes, or wait for some; True when nothing more will come."""
        over = self._over()  # before the last look for output
        moved = self._drain() | self._send()
        now = time.monotonic()
        if over:
            return True
        if moved:
            self._moved = now
            if self._renewed:
                self.due = now + self.timeout
        elif now >= self.due:
            raise NoAnswerError
        else:
            self._poll.poll(1000 * self._patience(now))
        return False

    def _patience(self, now: float) -> float:
        if not self._fed:
            return _GLANCE
        # The end of a command, unlike that of its output, gives no sign.
        return max(0.001, min(_LINGER / 4, self.due - now))

    def _over(self) -> bool:
        channel = self._channel
        if channel.closed or (channel.eof_received and channel.exit_status_ready()):
            return True
        lingers = not self._all_of_it and time.monotonic() > self._moved + _LINGER
        return lingers and bool(channel.exit_status_ready())

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
            self._pending = memoryview(self._next_chunk())
            self._fed = not self._pending
        try:
            return self._send_some()
        except TimeoutError:  # the room is gone again
            return False
        except OSError:  # it has read all that it wanted
            self._fed = True
            return False

    def _next_chunk(self) -> bytes:
        try:
            return next((chunk for chunk in self._feed if chunk), b"")
        except Exception as error:
            raise FeedError(error) from error

    def _send_some(self) -> bool:
        if self._fed:
            self._channel.shutdown_write()
            return True
        sent = self._channel.send(self._pending[:_CHUNK])
        self._pending = self._pending[sent:]
        return bool(sent)


def kill(channel: Any) -> None:
    """Kill the command of a channel, with its process group, and close the channel; do not wait for it."""
    from paramiko import Message

    message = Message()
    message.add_byte(bytes([98]))  # SSH_MSG_CHANNEL_REQUEST
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string("KILL")

    def send() -> None:
        with contextlib.suppress(Exception):  # it is gone already
            channel.get_transport()._send_user_message(message)
            channel.close()

    # The connection may be stuck, and sending with it.
    threading.Thread(target=send, daemon=True).start()


class Watchdog:
    """Closes a connection in which a command hangs beyond its deadline where it cannot look at the clock."""

    def __init__(self, grace: float = 1.0) -> None:
        self._grace = grace
        self._changed = threading.Condition()
        self._watched: dict[object, Any] = {}
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, transport: Any, due: Any) -> Iterator[None]:
        """Watch for the time of the block; ``due()`` is its deadline in monotonic seconds."""
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
