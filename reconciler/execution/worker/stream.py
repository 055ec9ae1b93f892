"""Files as a tar stream: made while it is sent, so that nothing but one file is ever in memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator

import msgspec

_BLOCK = 512


class Parcel(msgspec.Struct, frozen=True):
    """One file to send; ``name`` is relative."""

    name: str
    data: bytes
    executable: bool = False


def tar_stream(parcels: Iterable[Parcel]) -> Iterator[bytes]:
    """Yield a tar archive piece by piece."""
    for parcel in parcels:
        info = tarfile.TarInfo(parcel.name)
        info.size = len(parcel.data)
        info.mode = 0o755 if parcel.executable else 0o644
        yield info.tobuf(tarfile.GNU_FORMAT)
        yield parcel.data
        yield bytes(-info.size % _BLOCK)
    yield bytes(2 * _BLOCK)
