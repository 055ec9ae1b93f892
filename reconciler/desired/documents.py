"""All documents of a revision together: identities, duplicates, and last good versions of broken ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from reconciler.diagnostics import Diagnostic, Location, Related
from reconciler.model.manifests import Document, GoodManifest, Kind, Manifest, ParsedFile

Files = Mapping[str, tuple[str, ParsedFile]]
"""{file: (blob id, its content)}"""


class Collection(msgspec.Struct):
    """The manifests in use, by ``Kind/name``, and what is wrong with the revision.

    ``stale`` has the keys whose last good version is used. ``invalid_flows`` are flows that are wanted but
    unusable in this revision. ``hold_reasons`` make every new submission wait.
    """

    manifests: dict[str, Manifest] = {}
    good: dict[str, GoodManifest] = {}
    stale: set[str] = set()
    invalid_flows: dict[str, str] = {}
    hold_reasons: list[str] = []
    diagnostics: list[Diagnostic] = []

    def of(self, kind: Kind) -> list[Manifest]:
        """Return the manifests of a kind by name."""
        prefix = f"{kind}/"
        return [self.manifests[key] for key in sorted(self.manifests) if key.startswith(prefix)]

    @property
    def project(self) -> Manifest | None:
        """The Project, if there is one."""
        found = self.of(Kind.PROJECT)
        return found[0] if found else None


class _Found(msgspec.Struct, frozen=True):
    manifest: Manifest
    pointer: GoodManifest


def collect(
    files: Files, good: Mapping[str, GoodManifest], parsed_blob: Callable[[str], ParsedFile | None]
) -> Collection:
    """Put the documents of all files together.

    ``good`` says where the last good version of each manifest stands, ``parsed_blob`` reads it.
    """
    collection = Collection()
    for file, (_, parsed) in files.items():
        collection.diagnostics += [placed(diagnostic, file) for diagnostic in parsed.diagnostics]
    by_key: dict[str, list[_Found]] = {}
    for found in _documents(files):
        by_key.setdefault(f"{found.manifest.kind}/{found.manifest.name}", []).append(found)
    broken: dict[str, str] = {}
    for key, several in by_key.items():
        _take(collection, key, several, broken)
    _check_projects(collection)
    _check_unreadable(collection, files, good, broken)
    for key, reason in broken.items():
        _keep_last_good(collection, key, reason, good, parsed_blob)
    return collection


def _documents(files: Files) -> Iterator[_Found]:
    for file in sorted(files):
        blob, parsed = files[file]
        for position, document in enumerate(parsed.documents):
            yield _Found(Manifest(file, document), GoodManifest(file, blob, position))


def _take(collection: Collection, key: str, several: list[_Found], broken: dict[str, str]) -> None:
    """Use the one valid document of this identity; two of them are both refused."""
    first = several[0].manifest
    if first.kind is None or first.name is None:
        _unnamed(collection, [found.manifest.document for found in several])
        return
    if len(several) > 1:
        collection.diagnostics += list(_duplicates(several))
        broken[key] = f"{len(several)} documents have this kind and name"
    elif not first.document.valid:
        broken[key] = f"its document is invalid: {first.location()}"
    else:
        collection.manifests[key] = first
        collection.good[key] = several[0].pointer


def _unnamed(collection: Collection, documents: list[Document]) -> None:
    """A rule or Project that cannot even be named might touch every flow."""
    for document in documents:
        if document.kind in (Kind.OVERRIDE_RULE, Kind.PROJECT):
            collection.hold_reasons.append(f"an {document.kind} of this revision cannot be read")


def _duplicates(several: list[_Found]) -> Iterator[Diagnostic]:
    for found in several:
        manifest = found.manifest
        others = [other.manifest for other in several if other is not found]
        yield manifest.diagnostic(
            "manifest/duplicate",
            f"{manifest.kind} '{manifest.name}' is defined {len(several)} times",
            "/metadata/name",
            related=tuple(Related(other.location("/metadata/name"), "also here") for other in others),
            hint="rename or remove one of them; until then none of them is used",
        )


def _check_projects(collection: Collection) -> None:
    projects = collection.of(Kind.PROJECT)
    for extra in projects[1:]:
        collection.diagnostics.append(
            extra.diagnostic(
                "manifest/second-project",
                "a repository has one Project",
                "/metadata/name",
                related=(Related(projects[0].location("/metadata/name"), "the first one"),),
            )
        )
        del collection.manifests[f"{Kind.PROJECT}/{extra.name}"]
    if not projects:
        collection.hold_reasons.append("there is no valid Project in this revision")


def _check_unreadable(
    collection: Collection, files: Files, good: Mapping[str, GoodManifest], broken: dict[str, str]
) -> None:
    """A file that is no YAML keeps what it gave before; if it may hold rules, new submissions wait."""
    unreadable = {file: parsed for file, (_, parsed) in files.items() if not parsed.readable}
    for key, pointer in good.items():
        if pointer.file in unreadable and key not in collection.manifests:
            broken.setdefault(key, f"{pointer.file} is not readable")
    for file, parsed in unreadable.items():
        others = [kind for kind in parsed.suspected_kinds if kind != Kind.FLOW and kind in set(Kind)]
        if others and not any(pointer.file == file for pointer in good.values()):
            collection.hold_reasons.append(f"{file} ({', '.join(others)}) is not readable")


def _keep_last_good(
    collection: Collection,
    key: str,
    reason: str,
    good: Mapping[str, GoodManifest],
    parsed_blob: Callable[[str], ParsedFile | None],
) -> None:
    kind, _, name = key.partition("/")
    pointer = good.get(key)
    parsed = parsed_blob(pointer.parsed) if pointer is not None else None
    if pointer is not None and parsed is not None:
        collection.manifests[key] = Manifest(pointer.file, parsed.documents[pointer.position])
        collection.good[key] = pointer
        collection.stale.add(key)
    elif kind == Kind.OVERRIDE_RULE:
        collection.hold_reasons.append(f"OverrideRule '{name}' is invalid and has no earlier version")
    if kind == Kind.FLOW:
        collection.invalid_flows[name] = reason


def placed(diagnostic: Diagnostic, file: str) -> Diagnostic:
    """Return the diagnostic with the file's name filled in."""
    location = diagnostic.location
    return msgspec.structs.replace(
        diagnostic,
        location=_in(file, location) if location is not None else Location(file, 1, 1),
        related=tuple(Related(_in(file, note.location), note.label) for note in diagnostic.related),
    )


def _in(file: str, location: Location) -> Location:
    return Location(file, location.line, location.column)
