"""Files: written so that they exist completely or not at all, and their sizes for people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(
    path: Path, *, mode: int = 0o666, sync: bool = True, partial: Path | None = None
) -> Iterator[BinaryIO]:
    """Give a stream; at the end, what was written takes the name ``path``.

    After an exception, ``path`` is as it was and nothing else is left. ``mode`` is reduced by the umask.
    ``sync`` makes the content durable first. ``partial`` is where the file grows, on the same file system; by
    default it grows beside ``path``, under a hidden name.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    partial = partial or path.with_name(f".{path.name}.{os.getpid()}.partial")
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(partial, flags, mode), "w+b") as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666, sync: bool = True) -> None:
    """Write a whole file or nothing; see :func:`atomic_file`."""
    with atomic_file(path, mode=mode, sync=sync) as stream:
        stream.write(data)


def space_text(size: int) -> str:
    """Return a number of bytes for people: ``12.3 GiB``."""
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if amount >= 100 or unit == "bytes" else f"{amount:.1f} {unit}"
