"""The standard streams: neither an old encoding nor a closed pipe ends a command or changes its exit code."""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_ESCAPE = "reconciler_escape"
"""The error handler that writes what cannot be encoded as an escape sequence."""

_ASCII = "ascii_escaped"
"""The codec of ASCII under another name: click rewraps a stream whose encoding is ``ascii`` as UTF-8."""


@contextmanager
def tolerant_streams() -> Iterator[None]:
    """Replace stdout and stderr while a command runs.

    - Characters that a stream cannot encode are written as ``\\xe9`` or ``\\u4e16``, so that no name is lost.
    - When the reader closes the pipe (``| head``), the rest of the output is discarded: the command completes
      its work, and its exit code stays meaningful.
    - A stream that is closed from the start (``>&-``) discards its output, and its number is not reused for
      a file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one
    old = sys.stdin, sys.stdout, sys.stderr
    # The type checker does not know that each of the three is None if it was closed at the start.
    sys.stdin = sys.stdin or open(0, closefd=False)  # type: ignore[redundant-expr, unused-ignore]  # noqa: SIM115
    sys.stdout, sys.stderr = _tolerant(sys.stdout, 1), _tolerant(sys.stderr, 2)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = old


def stdout_is_abandoned() -> bool:
    """Return whether the reader of stdout has closed the pipe: what runs until it is stopped can end."""
    buffer = getattr(sys.stdout, "buffer", None)
    return bool(getattr(getattr(buffer, "raw", None), "abandoned", False))


class _Descriptor(io.RawIOBase):
    """A file descriptor that discards what is written after its reader has gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.abandoned = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        """Write, and wait for a reader that is slow on a non-blocking pipe."""
        while not self.abandoned:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError as error:  # EIO: the terminal has been closed
                if error.errno != errno.EPIPE and not (error.errno == errno.EIO and self.isatty()):
                    raise
                self.abandoned = True
        return len(data)


def _tolerant(stream: Any, descriptor: int) -> Any:
    encoding = "utf-8"
    if stream is not None:
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError, AttributeError):
            return stream  # a substitute without a file, as in some tests
        with suppress(OSError, ValueError):
            stream.flush()
        encoding = getattr(stream, "encoding", None) or encoding
        if codecs.lookup(encoding).name == "ascii":
            codecs.register(_ascii_codec)
            encoding = _ASCII
    buffer = io.BufferedWriter(_Descriptor(descriptor))
    return _ShownText(buffer, encoding=encoding, errors=_ESCAPE, line_buffering=True)


_CONTROL = re.compile(
    r"\x1b\[(?!(?:[0-9;]*;)?8[;m])[0-9;]*m"  # colors stay, but not text that is concealed
    r"|([\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069])"
)
_COMMAND = re.compile(r"^([ \t]*)(?=::[a-z]|##\[|##vso\[)", re.MULTILINE)
_READS_COMMANDS = ("GITHUB_ACTIONS", "TF_BUILD")
"""Variables of services whose logs obey lines such as ``::error::`` and ``##vso[``."""


def shown(text: str) -> str:
    r"""Return text that a terminal and a log show and do not obey.

    Control characters and those that change the direction of text become escapes, ``\u202e``, which JSON
    reads as the character itself. In the log of a service that obeys commands, these are preceded by ``\``.
    """
    if not text.isprintable():
        text = _CONTROL.sub(lambda found: found[0] if found[1] is None else f"\\u{ord(found[1]):04x}", text)
    if any(map(os.environ.get, _READS_COMMANDS)):
        text = _COMMAND.sub(r"\1\\", text)
    return text


class _ShownText(io.TextIOWrapper):
    """A text stream that passes everything through :func:`shown`."""

    def write(self, text: str) -> int:
        """Write text; what is not for terminals is escaped."""
        super().write(shown(text))
        return len(text)


class Controlling:
    """The same stream for a program part that moves the cursor itself, such as a progress bar."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text as it is."""
        if isinstance(self._stream, io.TextIOWrapper):
            return io.TextIOWrapper.write(self._stream, text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redraw_line(text: str = "") -> None:
    """Replace the line of the terminal that stderr is by a text; without one, clear it."""
    Controlling(sys.stderr).write(f"\r\x1b[K{shown(text)}")
    sys.stderr.flush()


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return ``\\xe9`` for a byte that Python could not decode; otherwise do as backslashreplace."""
    if isinstance(error, UnicodeEncodeError):
        code = ord(error.object[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"\\x{code - 0xDC00:02x}", error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error(_ESCAPE, _escaped)


def _ascii_codec(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII:
        return None
    found = codecs.lookup("ascii")
    return codecs.CodecInfo(
        found.encode,
        found.decode,
        found.streamreader,
        found.streamwriter,
        found.incrementalencoder,
        found.incrementaldecoder,
        name=_ASCII,
    )
