"""All documents of a revision together: identities, duplicates, and last good versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from reconciler.desired.uses import refusals
from reconciler.desired.yaml.source_text import diagnostic_with_file
from reconciler.diagnostics import Diagnostic, Location, Related, Severity, nearest
from reconciler.model.manifests import GoodManifest, Kind, Manifest, ParsedFile
from reconciler.model.policy import SourceRules

PROJECT_FILES = ("reconciler.yaml", "reconciler.yml")
"""Where the Project is; the first file that exists is read."""

_KINDS: frozenset[str] = frozenset(Kind)

Files = Mapping[str, tuple[str, ParsedFile]]
"""{file: (blob id, its content)}"""


class Collection(msgspec.Struct):
    """The manifests in use, by ``Kind/name``, and what is wrong with the revision.

    ``stale`` has the keys whose last good version is used. ``invalid_flows`` are flows that are wanted but
    unusable in this revision. ``hold_reasons`` make every new submission wait. ``unusable`` says why
    documents without a last good version cannot be used; ``Worker/`` is for those whose names cannot be
    read.
    """

    manifests: dict[str, Manifest] = {}
    good: dict[str, GoodManifest] = {}
    stale: set[str] = set()
    invalid_flows: dict[str, str] = {}
    hold_reasons: list[str] = []
    unusable: dict[str, str] = {}
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


def _first_problem(manifest: Manifest, parsed: ParsedFile) -> Location:
    """Return the place of the first error of a document, as `reconcile validate` tells it."""
    document = manifest.document
    lines = range(document.first_line, document.first_line + len(document.lines))
    places = (problem.location for problem in parsed.diagnostics if problem.is_error)
    found = min(
        ((one.line, one.column) for one in places if one is not None and one.line in lines), default=None
    )
    return manifest.location() if found is None else Location(manifest.file, *found)


class _Found(msgspec.Struct, frozen=True):
    manifest: Manifest
    pointer: GoodManifest


def collect(
    files: Files,
    good: Mapping[str, GoodManifest],
    parsed_blob: Callable[[str], ParsedFile | None],
    rules: SourceRules | None = None,
) -> Collection:
    """Put the documents of all files together.

    ``good`` says where the last good version of each manifest is, and ``parsed_blob`` reads it. A document
    that the policy (``rules``) refuses counts as invalid, and so does such a last good version.
    """
    collection = Collection()
    by_key: dict[str, list[_Found]] = {}
    for file in sorted(files):
        blob, parsed = files[file]
        collection.diagnostics += [diagnostic_with_file(problem, file) for problem in parsed.diagnostics]
        for position, document in enumerate(parsed.documents):
            found = _Found(Manifest(file, document), GoodManifest(file, blob, position))
            by_key.setdefault(f"{document.kind}/{document.name}", []).append(found)
    broken: dict[str, str] = {}  # key -> why its last good version is used
    for key, several in by_key.items():
        first = several[0].manifest
        if first.kind not in _KINDS or first.name is None:
            collection.hold_reasons += _holds_for_anonymous(several, good)
        elif len(several) > 1:
            collection.diagnostics += [_duplicate(found, several) for found in several]
            broken[key] = f"{len(several)} documents have this kind and name"
        elif not first.document.valid:
            broken[key] = f"its document is invalid: {_first_problem(first, files[first.file][1])}"
        elif first.kind == Kind.POLICY:
            collection.diagnostics.append(_policy_in_repository(first))
        elif refused := refusals(rules, first):
            collection.diagnostics += refused
            broken[key] = f"{refused[0].message} ({refused[0].location})"
        else:
            collection.manifests[key] = first
            collection.good[key] = several[0].pointer
    for file, (_, parsed) in sorted(files.items()):
        for suspected in parsed.suspected_kinds:
            collection.unusable.setdefault(f"{suspected}/", f"{file} cannot be read")
    _check_projects(collection)
    _check_unclear(collection, files, good, broken)
    for key, reason in broken.items():
        _keep_last_good(collection, key, reason, good, parsed_blob, rules)
    return collection


def _policy_in_repository(manifest: Manifest) -> Diagnostic:
    return manifest.diagnostic(
        "manifest/policy",
        "a Policy has no effect in a repository: it says what the repository may do",
        "/kind",
        hint="remove it; the policy is a file of the user, see `reconcile policy show`",
        severity=Severity.WARNING,
    )


def _holds_for_anonymous(several: list[_Found], good: Mapping[str, GoodManifest]) -> list[str]:
    """Return a reason for each new document without readable kind and name that may be a rule or Project.

    Such a document may concern every flow.
    """
    reasons = []
    for document in (found.manifest.document for found in several):
        spec = document.content.get("spec")
        kind: str | None = Kind.OVERRIDE_RULE if isinstance(spec, dict) and "set" in spec else None
        if document.kind is not None:
            kind = document.kind if document.kind in _KINDS else nearest(document.kind, Kind)
        if kind in (Kind.OVERRIDE_RULE, Kind.PROJECT) and f"{kind}/{document.name}" not in good:
            reasons.append(f"one {kind} of this revision cannot be read")
    return reasons


def _duplicate(found: _Found, several: list[_Found]) -> Diagnostic:
    manifest = found.manifest
    others = [other.manifest for other in several if other is not found]
    return manifest.diagnostic(
        "manifest/duplicate",
        f"{manifest.kind} '{manifest.name}' is defined {len(several)} times",
        "/metadata/name",
        related=tuple(Related(other.location("/metadata/name"), "also defined here") for other in others),
        hint="rename or remove one of them; until then, reconciler uses neither",
    )


def _check_projects(collection: Collection) -> None:
    """Keep only the first Project of ``reconciler.yaml``, wherever others are."""
    projects = sorted(
        collection.of(Kind.PROJECT), key=lambda found: (found.file not in PROJECT_FILES, found.file)
    )
    for extra in projects[1:]:
        collection.diagnostics.append(
            extra.diagnostic(
                "manifest/second-project",
                "a repository can have only one Project",
                "/metadata/name",
                related=(Related(projects[0].location("/metadata/name"), "the first Project"),),
            )
        )
        del collection.manifests[f"{Kind.PROJECT}/{extra.name}"]
    if not projects:
        collection.hold_reasons.append("this revision does not have a valid Project")


def _check_unclear(
    collection: Collection, files: Files, good: Mapping[str, GoodManifest], broken: dict[str, str]
) -> None:
    """Keep manifests that only seem to be removed, because a file that may define them is unclear.

    A file is unclear if it is not readable YAML, or has an invalid document under a name that no valid
    document ever had: that may be an old manifest with a mistyped name. Example: ``rules/a.yaml`` defined
    the rules ``x`` and ``y``, and now only its beginning with ``x`` is readable. Then ``y`` stays in use. If
    instead ``rules/a.yaml`` is gone and the new file ``rules/b.yaml`` is unreadable, both stay: the file may
    have moved.
    """
    unclear = [
        file
        for file, (_, parsed) in sorted(files.items())
        if not parsed.readable
        or any(not doc.valid and f"{doc.kind}/{doc.name}" not in good for doc in parsed.documents)
    ]
    earlier: dict[str, list[str]] = {}  # file -> keys of the manifests that it had when they were last valid
    for key, pointer in good.items():
        earlier.setdefault(pointer.file, []).append(key)

    reasons = {file: f"{file} cannot be read" for file in unclear if file in earlier}
    for file in unclear:
        _, parsed = files[file]
        any_name = not parsed.readable or any(not doc.valid and doc.name is None for doc in parsed.documents)
        if file not in earlier and any_name:
            for missing in earlier.keys() - files.keys():
                why = f"{missing} is gone, but may have moved to {file}, which cannot be read"
                reasons.setdefault(missing, why)
    for file, reason in reasons.items():
        for key in earlier[file]:
            if key not in collection.manifests:
                broken.setdefault(key, reason)

    # A rule or Project in the unreadable part of a file that was never read: new submissions wait.
    for file in unclear:
        kinds = _kinds_of_unreadable_part(file, files[file][1])
        kinds -= {key.partition("/")[0] for key in earlier.get(file, ())}
        if kinds & {Kind.OVERRIDE_RULE, Kind.PROJECT}:
            collection.hold_reasons.append(f"{file} ({', '.join(sorted(kinds))}) cannot be read")


def _kinds_of_unreadable_part(file: str, parsed: ParsedFile) -> set[str]:
    """Return the kinds that the text suggests; without any, a file outside ``flows`` counts as rule."""
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
    rules: SourceRules | None,
) -> None:
    kind, _, name = key.partition("/")
    pointer = good.get(key)
    parsed = parsed_blob(pointer.parsed) if pointer is not None else None
    last = Manifest(pointer.file, parsed.documents[pointer.position]) if pointer and parsed else None
    if pointer is not None and last is not None and not refusals(rules, last):
        collection.manifests[key] = last
        collection.good[key] = pointer
        collection.stale.add(key)
    elif kind == Kind.OVERRIDE_RULE:
        collection.hold_reasons.append(f"OverrideRule '{name}' is invalid and has no earlier version")
    if kind == Kind.FLOW:
        collection.invalid_flows[name] = reason
    if key not in collection.manifests:
        collection.unusable[key] = reason


def not_a_plain_file(what: str) -> ParsedFile:
    """Return the content of a symlink or submodule: only a problem, since neither is ever followed."""
    problem = Diagnostic(
        code=f"source/{what}",
        message=f"a manifest must be a plain file, but this is a {what}",
        location=Location("", 1, 1),
        hint="commit the file itself",
    )
    return ParsedFile([], [problem], readable=False, suspected_kinds=[])
