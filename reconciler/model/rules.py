"""Override rules: which jobs they match."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

import msgspec

from reconciler.model.settings import Layer


class JobFacts(msgspec.Struct, frozen=True, gc=False):
    """All that a selector may look at.

    ``function`` is the dotted path of the callable, ``alias`` the path that the manifest gives if it is
    another one (a re-export). ``name`` and ``function`` are None for a flow whose
    jobs are not known yet: then only rules without job filters match.
    """

    flow: str
    labels: dict[str, str]
    name: str | None
    function: str | None
    generated: bool = False
    alias: str | None = None


class Rule(msgspec.Struct, frozen=True):
    """An OverrideRule with its selector and the layer (field -> Setting) that it sets."""

    name: str
    flows: list[str]
    labels: dict[str, str]
    name_filter: str | None
    name_glob: str | None
    function_filter: str | None
    dynamic: bool
    layer: Layer

    def matches(self, job: JobFacts) -> bool:
        """Whether every part of the selector that is given holds for the job."""
        return (
            self.matches_name(job.name)
            and self.matches_function(job)
            and (self.dynamic or not job.generated)
            and self.matches_flow(job.flow, job.labels)
        )

    def matches_name(self, name: str | None) -> bool:
        """Whether ``name_filter`` (a substring) and ``name_glob`` (the whole name) hold, as far as given."""
        if self.name_filter is None and self.name_glob is None:
            return True
        return (
            name is not None
            and (self.name_filter is None or self.name_filter in name)
            and (self.name_glob is None or fnmatch.fnmatchcase(name, self.name_glob))
        )

    def matches_function(self, job: JobFacts) -> bool:
        """Whether ``function_filter``, if given, is one of the paths that the job's function has."""
        return self.function_filter is None or self.function_filter in (job.function, job.alias)

    def matches_flow(self, flow: str, labels: Mapping[str, str]) -> bool:
        """Whether the selector lets any job of this flow through."""
        if self.flows and not any(fnmatch.fnmatchcase(flow, pattern) for pattern in self.flows):
            return False
        return not self.labels or all(labels.get(key) == value for key, value in self.labels.items())
