"""A program on a real terminal: what it writes there, read as it comes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program whose stdin, stdout and stderr are a terminal of its own."""

    def __init__(
        self, command: Sequence[str], cwd: Path, *, env: Mapping[str, str] | None = None,
        rows: int = 24, columns: int = 160,
    ) -> None:  # fmt: skip
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        os.close(slave)
        self.raw = ""

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def text(self) -> str:
        """All that was written so far, line by line, without colours and moves of the cursor."""
        return _plain(self.raw)

    def until(self, pattern: str, seconds: float = 120.0, *, after: int = 0) -> float:
        """Wait until something was written, from a place in ``raw`` on; return when that was (monotonic)."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, _plain(self.raw[after:])):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in:\n{self.text}"
            assert self._read(min(left, 1.0)) is not None, f"it ended without {pattern!r}:\n{self.text}"
        return time.monotonic()

    def type(self, keys: str) -> None:
        """Press keys; ``\\x03`` is Ctrl-C."""
        os.write(self._master, keys.encode())

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for the end of the program, reading on; return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(0.1) is not None or self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
        return self.process.wait(seconds)

    def close(self) -> None:
        """End the program, if it still runs, and the terminal."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> str | None:
        """Read what there is; None if nobody is left to write."""
        if not select.select([self._master], [], [], seconds)[0]:
            return ""
        try:
            text = os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the last one who had the other end open has closed it
            return None
        self.raw += text
        return text


def _plain(raw: str) -> str:
    return _CONTROL.sub("", raw).replace("\r", "\n")
