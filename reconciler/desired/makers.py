"""Makers of their own manifests: where flows refer to them, and what a reference stands for.

``maker: {ref: emt}`` and ``$maker: {ref: emt, kwargs: {fmax: 0.01}}`` stand for class and arguments of the
Maker ``emt``; arguments beside ``ref`` replace those of the Maker, key by key. Everything that reads a flow
gets it with its references replaced, so a Maker is part of the identity of jobs by its content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from reconciler.desired.values import iter_directives
from reconciler.diagnostics import Diagnostic, did_you_mean
from reconciler.model.desired import DesiredState
from reconciler.model.flows import digest
from reconciler.model.manifests import Kind, MakerSpec, Manifest


class UnusableMakerError(Exception):
    """A Maker cannot be used; the message says why."""


class Expanded(NamedTuple):
    """The spec of a flow without references to Makers.

    ``makers`` has the digest of each Maker that it uses, directly or through another Maker. ``by_entry`` has
    their names by the id of the entry of ``jobs``, or under "" those of another form.
    """

    spec: dict[str, Any]
    makers: dict[str, str]
    by_entry: dict[str, list[str]]


def maker_references(spec: Mapping[str, Any], pointer: str = "") -> Iterator[tuple[str, str]]:
    """Yield (pointer, name) of each reference to a Maker in the spec of a flow or Maker, or in an entry."""
    holders = [(pointer, spec)]
    holders += [(f"{pointer}/jobs/{number}", job) for number, job in enumerate(spec.get("jobs") or [])]
    for at, holder in holders:
        maker = holder.get("maker")
        if isinstance(maker, Mapping) and isinstance(maker.get("ref"), str):
            yield f"{at}/maker", maker["ref"]
    for at, directive, value in iter_directives(spec, pointer):
        if directive == "$maker" and isinstance(value, Mapping) and isinstance(value.get("ref"), str):
            yield f"{at}/$maker", value["ref"]


class Makers:
    """The Makers of a revision."""

    def __init__(self, state: DesiredState) -> None:
        self._state = state
        prefix = f"{Kind.MAKER}/"
        found = (key for key in state.manifests if key.startswith(prefix))
        self._manifests = {key.removeprefix(prefix): state.manifests[key] for key in found}
        self._resolved: dict[str, dict[str, Any] | UnusableMakerError] = {}
        self._used: dict[str, set[str]] = {}

    def problems(self) -> Iterator[Diagnostic]:
        """Yield what is wrong with the Makers: references to Makers that do not exist, and circles."""
        for name, manifest in self._manifests.items():
            yield from self.unknown(manifest)
            try:
                self._resolve(name, ())
            except UnusableMakerError as error:
                if " -> " in str(error):
                    hint = "remove one of these references to break the circle"
                    yield manifest.diagnostic(
                        "reference/cycle-of-makers", str(error), "/metadata/name", hint=hint
                    )

    def unknown(self, manifest: Manifest) -> Iterator[Diagnostic]:
        """Yield a problem for each reference of a manifest to a Maker that does not exist."""
        for pointer, name in maker_references(manifest.spec, "/spec"):
            if name not in self._manifests and f"{Kind.MAKER}/{name}" not in self._state.unusable:
                message, hint = f"there is no Maker '{name}'", did_you_mean(name, self._manifests)
                yield manifest.diagnostic("reference/unknown-maker", message, f"{pointer}/ref", hint=hint)

    def expanded(self, spec: dict[str, Any]) -> Expanded:
        """Return the spec of a flow with all references replaced.

        Raises
        ------
        UnusableMakerError
            A Maker does not exist, is invalid in this revision, or refers to itself.
        """
        if next(maker_references(spec), None) is None:
            return Expanded(spec, {}, {})
        by_entry: dict[str, list[str]] = {}
        jobs = spec.get("jobs")
        for entry_id, part in [("", spec)] if jobs is None else [(job["id"], job) for job in jobs]:
            used: set[str] = set()
            for _, name in maker_references(part):
                self._resolve(name, ())
                used |= self._used[name]
            if used:
                by_entry[entry_id] = sorted(used)
        names = sorted(set().union(*by_entry.values()))
        digests = {name: digest(self._resolve(name, ())) for name in names}
        made = self._replaced(spec, ())
        for holder in [made, *(made.get("jobs") or [])]:
            if "ref" in (holder.get("maker") or {}):
                holder["maker"] = self._merged(holder["maker"], ())
        return Expanded(made, digests, by_entry)

    def _resolve(self, name: str, above: tuple[str, ...]) -> dict[str, Any]:
        """Return class and arguments of a Maker; ``above`` are those that are being resolved."""
        if name in above:
            circle = " -> ".join([*above[above.index(name) :], name])
            raise UnusableMakerError(f"Makers refer to each other in a circle: {circle}")
        if name not in self._resolved:
            try:
                self._resolved[name] = self._content(name, above)
            except UnusableMakerError as error:
                self._resolved[name] = error
        known = self._resolved[name]
        if isinstance(known, UnusableMakerError):
            raise known
        return known

    def _content(self, name: str, above: tuple[str, ...]) -> dict[str, Any]:
        manifest, key = self._manifests.get(name), f"{Kind.MAKER}/{name}"
        if key in self._state.stale or key in self._state.unusable:
            raise UnusableMakerError(f"the Maker '{name}' is invalid in this revision")
        if manifest is None:
            raise UnusableMakerError(f"there is no Maker '{name}'")
        spec = msgspec.convert(manifest.spec, MakerSpec)
        content = {"class": spec.class_, "kwargs": self._replaced(spec.kwargs, (*above, name))}
        inside = [self._used[used] for _, used in maker_references(manifest.spec)]
        self._used[name] = {name}.union(*inside)
        return content

    def _replaced(self, value: Any, above: tuple[str, ...]) -> Any:
        """Return a copy of a value in which each ``$maker`` with ``ref`` has class and arguments instead."""
        if isinstance(value, list):
            return [self._replaced(inner, above) for inner in value]
        if not isinstance(value, dict):
            return value
        made = {key: self._replaced(inner, above) for key, inner in value.items()}
        if isinstance(made.get("$maker"), dict) and "ref" in made["$maker"]:
            made["$maker"] = self._merged(made["$maker"], above)
        return made

    def _merged(self, reference: dict[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
        base = self._resolve(reference["ref"], above)
        kwargs = base["kwargs"] | reference.get("kwargs", {})
        rest = {key: given for key, given in reference.items() if key not in ("ref", "kwargs")}
        return {"class": base["class"], **({"kwargs": kwargs} if kwargs else {}), **rest}
