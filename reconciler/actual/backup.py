"""A copy of the whole store in one file, while others use the store; and a summary of a store's content."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from reconciler.actual.state_dir import sync_directory
from reconciler.actual.view import View
from reconciler.errors import RefusedError, WorldError
from reconciler.files import atomic_file
from reconciler.model.lineage import Lineage


class Copied(Protocol):
    """A store or environment, which can write a snapshot of itself to an open file."""

    @property
    def copy_to(self) -> Callable[[int], None]:
        """Write the snapshot."""
        ...


def save_copy(source: Copied, file: Path, *, overwrite: bool = False) -> int:
    """Write a snapshot to ``file``; return its size in bytes. It is durable, and takes its name at the end.

    Raises
    ------
    RefusedError
        The file exists, and is not to be overwritten.
    WorldError
        It cannot be written; nothing is left of it.
    """
    if file.exists() and not overwrite:
        raise RefusedError(f"{file} exists already", hint="choose another name, or add --force")
    try:
        with atomic_file(file, mode=0o600) as stream:
            source.copy_to(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
        sync_directory(file.parent)
    except OSError as error:
        raise WorldError(f"cannot write {file}: {error.strerror}") from error
    except WorldError as error:
        raise WorldError(f"cannot write {file}: {error.message}", hint=error.hint) from error
    return size


# A summary of the content of a store, to tell states and backups apart.


class Contents(msgspec.Struct, frozen=True):
    """A summary of the content of a store. ``revision`` is the last applied one."""

    flows: int
    jobs: int
    revision: str | None
    lineage: Lineage | None


def contents_of(view: View) -> Contents:
    """Return a summary of the content of a store."""
    config = view.config()
    return Contents(
        flows=view.txn.count("flows"),
        jobs=view.txn.count("jobs"),
        revision=config.revision if config is not None else None,
        lineage=view.lineage(),
    )
