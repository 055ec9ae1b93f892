"""What a store holds, in short: to tell states and backups apart."""

from __future__ import annotations

import msgspec

from reconciler.actual.view import View


class Contents(msgspec.Struct, frozen=True):
    """What a store holds, in short. ``revision`` is the last applied one."""

    flows: int
    jobs: int
    revision: str | None
    lineage: dict[str, str] | None


def contents_of(view: View) -> Contents:
    """Return what a store holds."""
    config = view.config()
    return Contents(
        flows=view.txn.count("flows"),
        jobs=view.txn.count("jobs"),
        revision=config.revision if config is not None else None,
        lineage=view.lineage(),
    )
