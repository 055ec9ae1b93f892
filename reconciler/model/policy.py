"""The policy of the user: what a source may ask of this machine and of the accounts that it reaches. Pure.

The file is outside of git (:mod:`reconciler.desired.policy_file` reads it), so no commit can change it. What
a revision asks for is a list of :class:`Use`; :class:`SourceRules` say whether one is allowed and, if it is
not, which line would allow it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from reconciler.model.manifests import Prune
from reconciler.model.types_ready import make_ready

REFUSED = "policy/refused"
"""The code of the diagnostic of everything that the policy does not allow."""

LOCAL = "local"
"""How ``hosts`` names this machine."""


class Verify(StrEnum):
    """Which signatures a revision needs: none, its own, those of all commits since a seal, or a tag's."""

    NONE = "none"
    HEAD = "head"
    STRICT = "strict"
    TAG = "tag"


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The most that one job may ask of a scheduler. With a limit, a job must say what it asks for."""

    cores: int | None = None
    gpus: int | None = None
    hours: float | None = None
    core_hours: float | None = None


class Use(msgspec.Struct, frozen=True):
    """One thing that a revision asks for.

    ``field`` is the key of the policy that decides about it, and ``value`` what would have to be listed
    there; ``host`` is the one that a secret is for. ``what`` names it for people, ``pointer`` is its place
    in the manifest.
    """

    field: str
    value: Any
    what: str
    pointer: str = ""
    host: str = ""

    @property
    def line(self) -> str:
        """The line of a policy that allows this."""
        if self.field == "secrets":
            return f"secrets: {{{scalar(self.host)}: [{scalar(self.value)}]}}"
        if self.field == "max_prune":
            return f"max_prune: {self.value:g}"
        section, _, key = self.field.partition(".")
        if key:
            return f"{section}: {{{key}: {'...' if self.value is None else f'{self.value:g}'}}}"
        return f"{self.field}: [{scalar(self.value)}]"


class SourceRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one source may use: an entry of ``spec.sources``. What is not listed is refused.

    ``source`` is a glob of the URL or of the path of a repository. ``callables`` are prefixes of dotted
    names, for functions, makers and all that monty decodes by name; ``secrets`` maps hosts to what a login
    there may use. ``features`` are parts of manifests that hold commands. ``file`` is the policy that this
    is from; empty if there is no policy. ``gpg_keys`` are the fingerprints of those who may sign.
    """

    source: str
    callables: list[str] = []
    python_path: list[str] = []
    workers: list[str] = []
    hosts: list[str] = []
    secrets: dict[str, list[str]] = {}
    jobstores: list[str] = []
    features: list[str] = []
    prune: list[Prune] = msgspec.field(default_factory=lambda: [Prune.CANCEL, Prune.ORPHAN])
    max_prune: float = 0.3
    limits: Limits = Limits()
    verify: Verify = Verify.NONE
    gpg_keys: list[str] = []
    file: str = ""

    def allows(self, use: Use) -> bool:
        """Return whether this may be used."""
        match use.field:
            case "callables":
                return any(is_below_name(use.value, prefix) for prefix in self.callables)
            case "secrets":
                lists = (listed for host, listed in self.secrets.items() if fnmatchcase(use.host, host))
                return any(fnmatchcase(use.value, glob) for listed in lists for glob in listed)
            case "max_prune":
                return bool(use.value <= self.max_prune)
            case "prune":
                return use.value in self.prune
            case "limits.cores" | "limits.gpus" | "limits.hours" | "limits.core_hours":
                limit = getattr(self.limits, use.field.partition(".")[2])
                return limit is None or (use.value is not None and use.value <= limit)
        return any(fnmatchcase(str(use.value), glob) for glob in getattr(self, use.field))

    def refused(self, uses: Iterable[Use]) -> list[Use]:
        """Return what may not be used, each once."""
        return list(dict.fromkeys(use for use in uses if not self.allows(use)))

    def how_to_allow(self, *uses: Use) -> str:
        """Return the hint of a refusal: the lines that would allow this, and where they belong."""
        lines = "; ".join(f"`{line}`" for line in dict.fromkeys(merged_lines(uses)))
        if not self.file:
            return (
                f"no policy lists {self.source}: `reconcile policy init` writes a first one; the line for "
                f"this is {lines}"
            )
        return f"if you trust it, add {lines} to the entry of {self.source} in {self.file}"


def merged_lines(uses: Iterable[Use]) -> Iterator[str]:
    """Yield the lines that allow several uses; callables share one line."""
    names = [use.value for use in uses if use.field == "callables"]
    if names:
        yield f"callables: [{', '.join(map(scalar, dict.fromkeys(names)))}]"
    yield from (use.line for use in uses if use.field != "callables")


class PolicySpec(msgspec.Struct, frozen=True, kw_only=True):
    """``kind: Policy``. The first entry that matches a source counts."""

    sources: list[SourceRules]

    def rules_for(self, source: str) -> SourceRules | None:
        """Return the entry of a source; None if none matches."""
        return next((rules for rules in self.sources if fnmatchcase(source, rules.source)), None)


make_ready(PolicySpec, SourceRules)


_PLAIN_DATA = frozenset(
    [
        *("jobflow.core.job.Job", "jobflow.core.job.JobConfig", "jobflow.core.job.OnMissing"),
        *("jobflow.core.flow.Flow", "jobflow.core.flow.JobOrder", "jobflow.core.reference.OutputReference"),
        *("qtoolkit.core.data_objects.QResources", "qtoolkit.core.data_objects.ProcessPlacement"),
        *("numpy.array", "datetime.datetime", "uuid.UUID", "bson.objectid.ObjectId", "pathlib.Path"),
        *("pandas.DataFrame", "pandas.Series"),
    ]
)
"""Classes in the JSON of every flow: data of jobflow, and types that monty knows. They run nothing."""


def is_below_name(name: str, prefix: str) -> bool:
    """Return whether a dotted name is a prefix or below it: ``a.b`` is below ``a`` and not below ``a.bc``."""
    prefix = prefix.removesuffix(".*").rstrip(".")
    return prefix == "*" or name == prefix or name.startswith(f"{prefix}.")


def callable_use(name: str, pointer: str = "", kind: str = "function") -> Use:
    """Return the use of a dotted name."""
    return Use("callables", name, f"the {kind} '{name}'", pointer)


def decoded_names(data: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Yield (pointer, dotted name) of everything that monty imports when it decodes JSON data.

    That is each mapping with ``@module``, at any depth; without a class or callable only the module counts.
    """
    stack = [(data, pointer)]
    while stack:
        value, at = stack.pop()
        if isinstance(value, Mapping):
            if "@module" in value:
                module = str(value["@module"])
                names = [f"{module}.{value[key]}" for key in ("@class", "@callable") if key in value]
                if "@callable" in value or not _PLAIN_DATA.issuperset(names or [module]):
                    yield from ((at, name) for name in names or [module])
            stack += ((inner, f"{at}/{key}") for key, inner in value.items())
        elif isinstance(value, list | tuple):
            stack += ((inner, f"{at}/{number}") for number, inner in enumerate(value))


def exec_config_uses(values: Mapping[str, Any], pointer: str) -> Iterator[Use]:
    """Yield what an ExecConfig, or the commands of a Worker, ask for."""
    for key, what in (
        ("modules", "environment modules"),
        ("export", "environment variables of jobs"),
        ("pre_run", "commands before a job"),
        ("post_run", "commands after a job"),
    ):
        if values.get(key):
            yield Use("features", key, f"'{key}' ({what})", f"{pointer}/{key}")
    if values.get("expand"):
        yield Use("features", "expand", "'expand' (the shell reads values)", f"{pointer}/expand")


def scalar(value: Any) -> str:
    """Return a text as it is written in a list of YAML."""
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z0-9_./~@:+-]*[A-Za-z0-9_./~@+-]", text) else json.dumps(text)
