"""Which repository and project a state belongs to. Pure.

A repository is recognized by its root commits. Their set grows when an older history is merged, and it is
unknown for a shallow clone. So one common root is enough, and an unknown set proves nothing.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from reconciler.errors import ForeignStateError, RefusedError

ADOPT = "reconcile --once --adopt"


class Lineage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The project of a state, and the root commits of its repository as far as they were ever known.

    ``first_name`` is the name that the project had when the state was created, empty if that is its name now.
    The uuids of jobs are made from it, so that a renamed project keeps its jobs.
    """

    project: str
    roots: list[str] = []
    first_name: str = ""

    @property
    def name_in_uuids(self) -> str:
        """The project name from which the uuids of jobs are made."""
        return self.first_name or self.project

    def is_foreign(self, roots: Collection[str]) -> bool:
        """Return whether a repository with these root commits (none: unknown) is certainly another one."""
        return bool(self.roots) and bool(roots) and not set(self.roots) & set(roots)

    def is_same(self, other: Lineage) -> bool:
        """Return whether two states are of the same project, as far as can be told; it may be renamed."""
        names = {self.project, self.name_in_uuids}
        return not self.is_foreign(other.roots) and bool(names & {other.project, other.name_in_uuids})

    def shown(self) -> str:
        """Return project and root commits as one phrase for messages."""
        return _shown(self.project, self.roots)


def lineage_for(
    known: Lineage | None, project: str, roots: Collection[str], *, same_path: bool, adopt: bool
) -> Lineage:
    """Return the lineage of a state once a revision of a project is applied to it.

    ``same_path`` tells that the project is in the folder that was applied last: then another name is a new
    name of the same project, and otherwise another project of the same repository. ``adopt`` accepts both
    another project and another repository.

    Raises
    ------
    ForeignStateError
        The state belongs to another repository.
    RefusedError
        The state belongs to another project of the same repository, or that cannot be excluded.
    """
    if known is None:
        return Lineage(project, sorted(roots))
    if not adopt:
        text = f"the state belongs to {known.shown()}, not to {_shown(project, roots)}"
        if known.is_foreign(roots):
            raise ForeignStateError(
                text,
                hint="choose another --state-dir for this repository; if it is the same repository with a "
                f"rewritten history, keep the state with `{ADOPT}`",
            )
        certain = bool(known.roots) and bool(roots) and same_path
        if known.project != project and not certain:
            raise RefusedError(
                text,
                hint=f"choose another --state-dir for '{project}'; if it is a new name of "
                f"'{known.project}', keep the state with `{ADOPT}`",
            )
    first_name = known.name_in_uuids
    merged = sorted(set(known.roots) | set(roots))
    return Lineage(project, merged, first_name if first_name != project else "")


def _shown(project: str, roots: Collection[str]) -> str:
    if not roots:
        return f"project '{project}' (root commit unknown: a shallow clone)"
    some = ", ".join(root[:7] for root in sorted(roots)[:3])
    return f"project '{project}' (repository with root {some}{' ...' if len(roots) > 3 else ''})"
