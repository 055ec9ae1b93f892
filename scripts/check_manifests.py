"""Check every manifest of a directory against the schema of its kind, as an editor would do it.

Independent of the program's own validation: it knows only the schemas.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from ruamel.yaml import YAML

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


def schema_file(kind: str) -> Path:
    """Return where the schema of a kind is: ``ExecConfig`` -> ``exec-config.schema.json``."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind).lower()
    return SCHEMAS / f"{name}.schema.json"


def registry() -> Registry[Any]:
    """Return all schemas by their ``$id`` and by their file name, so that references are found offline."""
    resources = []
    for file in sorted(SCHEMAS.glob("*.json")):
        resource = Resource.from_contents(json.loads(file.read_text(encoding="utf-8")))
        resources.append((file.name, resource))
        if (uri := resource.id()) is not None:
            resources.append((uri, resource))
    return Registry().with_resources(resources)


def documents(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, document) of every mapping with a ``kind`` in the YAML files below ``root``."""
    for file in sorted([*root.rglob("*.yaml"), *root.rglob("*.yml")]):
        for number, document in enumerate(YAML(typ="safe").load_all(file), start=1):
            if isinstance(document, dict) and "kind" in document:
                yield f"{file} (document {number})", document


def problems(root: Path) -> tuple[int, list[str]]:
    """Return the number of documents that were checked, and their problems."""
    known, found, count = registry(), [], 0
    for place, document in documents(root):
        count += 1
        file = schema_file(str(document["kind"]))
        if not file.is_file():
            found.append(f"{place}: no schema for kind {document['kind']!r}")
            continue
        validator = Draft202012Validator(json.loads(file.read_text(encoding="utf-8")), registry=known)
        found += [f"{place}: {error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    return count, found


def main(arguments: list[str]) -> int:
    """Check the directories that are named; return 1 when a document is invalid or none was found."""
    status = 0
    for root in map(Path, arguments):
        count, found = problems(root)
        print("\n".join([*found, f"{root}: {count} documents, {len(found)} problems"]))
        if found or not count:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
