"""All documents of a revision together: identities, duplicates, and last good versions of broken ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from reconciler.desired.yaml.places import diagnostic_with_file
from reconciler.diagnostics import Diagnostic, Location, Related, nearest
from reconciler.model.manifests import Document, GoodManifest, Kind, Manifest, ParsedFile

PROJECT_FILES = ("reconciler.yaml", "reconciler.yml")
"""Where the Project stands; the first that exists is read."""

_KINDS: frozenset[str] = frozenset(Kind)

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
        collection.diagnostics += [
            diagnostic_with_file(diagnostic, file) for diagnostic in parsed.diagnostics
        ]
    by_key: dict[str, list[_Found]] = {}
    for found in _documents(files):
        by_key.setdefault(f"{found.manifest.kind}/{found.manifest.name}", []).append(found)
    broken: dict[str, str] = {}
    for key, several in by_key.items():
        _take(collection, key, several, good, broken)
    _check_projects(collection)
    _check_unclear(collection, files, good, broken)
    for key, reason in broken.items():
        _keep_last_good(collection, key, reason, good, parsed_blob)
    return collection


def _documents(files: Files) -> Iterator[_Found]:
    for file in sorted(files):
        blob, parsed = files[file]
        for position, document in enumerate(parsed.documents):
            yield _Found(Manifest(file, document), GoodManifest(file, blob, position))


def _take(
    collection: Collection,
    key: str,
    several: list[_Found],
    good: Mapping[str, GoodManifest],
    broken: dict[str, str],
) -> None:
    """Use the one valid document of this identity; two of them are both refused."""
    first = several[0].manifest
    if first.kind not in _KINDS or first.name is None:
        for found in several:
            _hold_for(collection, found.manifest.document, good)
        return
    if len(several) > 1:
        collection.diagnostics += list(_duplicates(several))
        broken[key] = f"{len(several)} documents have this kind and name"
    elif not first.document.valid:
        broken[key] = f"its document is invalid: {first.location()}"
    else:
        collection.manifests[key] = first
        collection.good[key] = several[0].pointer


def _hold_for(collection: Collection, document: Document, good: Mapping[str, GoodManifest]) -> None:
    """A rule or Project that is new and cannot be told by kind and name might touch every flow."""
    kind = _likely_kind(document)
    if kind in (Kind.OVERRIDE_RULE, Kind.PROJECT) and f"{kind}/{document.name}" not in good:
        collection.hold_reasons.append(f"one {kind} of this revision cannot be read")


def _likely_kind(document: Document) -> str | None:
    """Return the kind that a document has or was meant to have, as far as one can tell."""
    if document.kind is not None:
        return nearest(document.kind, Kind)
    spec = document.content.get("spec")
    return Kind.OVERRIDE_RULE if isinstance(spec, dict) and "set" in spec else None


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
    """The first Project of ``reconciler.yaml`` counts, wherever others stand."""
    projects = sorted(
        collection.of(Kind.PROJECT), key=lambda found: (found.file not in PROJECT_FILES, found.file)
    )
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


def _check_unclear(
    collection: Collection, files: Files, good: Mapping[str, GoodManifest], broken: dict[str, str]
) -> None:
    """What a file gave before stays while one cannot tell what it means now: only a clear file removes.

    If a file may hold rules that were never read, new submissions wait.
    """
    unclear = {file for file, (_, parsed) in files.items() if _is_unclear(parsed, good)}
    places = {pointer.file for pointer in good.values()}
    anonymous = sorted(file for file in unclear - places if _is_anonymous(files[file][1]))
    for key, pointer in good.items():
        if key in collection.manifests or key in broken:
            continue
        if pointer.file in unclear:
            broken[key] = f"{pointer.file} cannot be read"
        elif anonymous and pointer.file not in files:
            broken[key] = (
                f"{pointer.file} is gone, but may have moved to {anonymous[0]}, which cannot be read"
            )
    for file in sorted(unclear):
        kinds = _unread_kinds(file, files[file][1])
        kinds -= {key.partition("/")[0] for key, pointer in good.items() if pointer.file == file}
        if kinds & {Kind.OVERRIDE_RULE, Kind.PROJECT}:
            collection.hold_reasons.append(f"{file} ({', '.join(sorted(kinds))}) cannot be read")


def _is_unclear(parsed: ParsedFile, good: Mapping[str, GoodManifest]) -> bool:
    """A file that is no YAML, or has an invalid document under a name that no valid one ever had."""
    return not parsed.readable or any(
        not document.valid and f"{document.kind}/{document.name}" not in good for document in parsed.documents
    )


def _is_anonymous(parsed: ParsedFile) -> bool:
    """Whether it may have a manifest of any name."""
    return not parsed.readable or any(not doc.valid and doc.name is None for doc in parsed.documents)


def _unread_kinds(file: str, parsed: ParsedFile) -> set[str]:
    """Return the kinds of what could not be read of a file; if nothing tells, its folder must do."""
    if parsed.readable:
        return set()
    nothing_known = not parsed.suspected_kinds and not parsed.documents
    if nothing_known and "flows" not in file.split("/")[:-1]:
        return {Kind.OVERRIDE_RULE}
    return set(parsed.suspected_kinds)


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


def no_plain_file(what: str) -> ParsedFile:
    """Return the content of a symlink or submodule: none, since what it stands for is never followed."""
    problem = Diagnostic(
        code=f"source/{what}",
        message=f"a manifest is a plain file, and this is a {what}",
        location=Location("", 1, 1),
        hint="commit the file itself",
    )
    return ParsedFile([], [problem], readable=False, suspected_kinds=[])
