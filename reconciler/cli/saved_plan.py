"""A plan in a file: ``plan --out`` writes it, ``apply`` reads it and checks that it is not stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from reconciler import __version__
from reconciler.cli.planning import Planned, plan_revision
from reconciler.cli.views.data import plan_data
from reconciler.comparison import Comparison
from reconciler.desired.source.git import Source
from reconciler.errors import InputError, RefusedError, WorldError
from reconciler.files import write_atomically
from reconciler.model.desired import Revision
from reconciler.model.flows import digest

FILE_VERSION = 1
_WHAT = "reconciler/saved-plan"
_AGAIN = "save and review a new plan: reconcile plan --out FILE"


_NO_PLAN = "save one with `reconcile plan --out FILE`; to apply what is committed: reconcile --once"


class SavedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, and what must be unchanged when it is applied.

    ``lineage`` is the root commit of the repository, empty for a shallow clone; ``path`` is the folder of
    reconciler.yaml in it; ``changes`` is the change counter of the store; ``digest`` covers all other fields.
    """

    what: str
    schema_version: int
    tool: str
    project: str
    lineage: str
    branch: str
    path: str
    commit: str
    tree: str
    changes: int
    allow_prune: bool
    plan: dict[str, Any]
    digest: str = ""

    @property
    def revision(self) -> Revision:
        """The revision that was planned."""
        return Revision(self.branch, self.commit, self.path, self.tree)

    def sealed(self) -> SavedPlan:
        """Return this plan with its digest."""
        content = msgspec.to_builtins(msgspec.structs.replace(self, digest=""))
        return msgspec.structs.replace(self, digest=digest(content))


def save(file: Path, session: Comparison, planned: Planned, changes: int, *, allow_prune: bool) -> None:
    """Write a plan, readable by its owner only; ``changes`` is the store's counter before planning.

    Raises
    ------
    InputError
        The file cannot be written there.
    """
    revision = session.revision
    saved = SavedPlan(
        what=_WHAT,
        schema_version=FILE_VERSION,
        tool=__version__,
        project=planned.project,
        lineage=(session.source.root_commits() or [""])[-1],
        branch=revision.branch,
        path=revision.path,
        commit=revision.commit,
        tree=revision.tree,
        changes=changes,
        allow_prune=allow_prune,
        plan=_as_in_file(planned),
    )
    data = msgspec.json.format(msgspec.json.encode(saved.sealed()), indent=2)
    try:
        write_atomically(file, data + b"\n", mode=0o600)
    except OSError as error:
        raise InputError(
            f"cannot write {file}: {error.strerror}", hint="choose another --out FILE"
        ) from error


def _as_in_file(planned: Planned) -> dict[str, Any]:
    """Return the plan as it reads after it was written to a file."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plan_data(planned.plan, planned.cost)))
    return found


def read(file: Path) -> SavedPlan:
    """Return the plan of a file.

    Raises
    ------
    InputError
        There is no such file, it is not a saved plan of this version, or it was changed.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror}", hint="save a plan with: reconcile plan --out FILE"
        ) from error
    try:  # a header that can be read tells whose file it is, whatever the rest looks like
        header = msgspec.json.decode(data, type=_Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not a saved plan: {error}", hint=_NO_PLAN) from error
    if header.what != _WHAT:
        raise InputError(f"{file} is not a saved plan, but '{header.what}'", hint=_AGAIN)
    if header.schema_version != FILE_VERSION:
        raise InputError(
            f"{file} was saved by reconciler {header.tool} in format {header.schema_version}; "
            f"this is {__version__}, which reads format {FILE_VERSION}",
            hint=_AGAIN,
        )
    try:
        saved = msgspec.json.decode(data, type=SavedPlan)
    except msgspec.MsgspecError as error:
        raise InputError(f"{file} is damaged: {error}", hint=_AGAIN) from error
    if saved != saved.sealed():
        raise InputError(f"{file} was changed after it was saved, or is damaged", hint=_AGAIN)
    return saved


class _Header(msgspec.Struct):
    what: str
    schema_version: int
    tool: str


def check_source(saved: SavedPlan, source: Source) -> None:
    """Refuse another repository, and a branch that has moved.

    Raises
    ------
    RefusedError
        The message names what was planned and what is there now.
    """
    try:
        tip = source.revision().commit
        roots = source.root_commits()
    except (InputError, WorldError) as error:
        raise RefusedError(f"the plan is for {saved.revision}: {error.message}", hint=_AGAIN) from error
    if saved.lineage and roots and saved.lineage not in roots:
        raise RefusedError(
            f"the plan is for project '{saved.project}' (repository with root {saved.lineage[:7]}), "
            f"not for this repository (root {roots[-1][:7]})",
            hint="name the repository with --repo",
        )
    if tip != saved.commit:
        raise RefusedError(
            f"the plan is stale: it is for {saved.revision}, and {saved.branch} is now at {tip[:7]}",
            hint=_AGAIN,
        )


def check_holds(saved: SavedPlan, session: Comparison) -> None:
    """Refuse a stale plan: a reconcile of its revision would now do something else. Requires the lease.

    Raises
    ------
    RefusedError
        The branch or the store has changed, or a new plan differs.
    """
    check_source(saved, session.source)
    with session.store.read() as view:
        changes = view.change_counter()
    if changes != saved.changes:
        raise RefusedError(
            f"the plan is stale: the state in {session.store.path} has changed since it was saved "
            f"(change {saved.changes}, now {changes})",
            hint=_AGAIN,
        )
    if _as_in_file(plan_revision(session, allow_prune=saved.allow_prune)) != saved.plan:
        by = "" if saved.tool == __version__ else f" by reconciler {saved.tool}, this is {__version__}"
        raise RefusedError(f"the plan is stale: a new plan differs from it; it was saved{by}", hint=_AGAIN)
