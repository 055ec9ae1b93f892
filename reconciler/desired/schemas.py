"""The JSON Schemas of the kinds: the single source of validation, ``explain``, editors and the docs."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import msgspec

from reconciler.errors import WorldError
from reconciler.model.manifests import Kind

_FILES = {
    Kind.PROJECT: "project.schema.json",
    Kind.WORKER: "worker.schema.json",
    Kind.EXEC_CONFIG: "exec-config.schema.json",
    Kind.FLOW: "flow.schema.json",
    Kind.OVERRIDE_RULE: "override-rule.schema.json",
}


def schema_path(kind: Kind) -> Path:
    """Return the file of a kind's schema: in an installed package, else in the source tree.

    Raises WorldError when neither has it: the installation is broken.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_schemas", package.parent / "schemas"):
        if (folder / _FILES[kind]).is_file():
            return folder / _FILES[kind]
    raise WorldError(
        f"the schema of {kind} is missing from this installation", hint="install reconciler again"
    )


@functools.cache
def load_schema(kind: Kind) -> dict[str, Any]:
    """Return the schema of a kind. The value is shared: do not change it. Raises WorldError if missing."""
    return msgspec.json.decode(schema_path(kind).read_bytes(), type=dict[str, Any])


def resolve(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of ``schema`` with its ``$ref`` filled in; keys beside the ``$ref`` win."""
    while "$ref" in part:
        target: Any = schema
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = {**target, **{key: value for key, value in part.items() if key != "$ref"}}
    return part


@functools.cache
def reader_version() -> str:
    """Return a digest of the schemas: what a blob was parsed to is valid only together with them."""
    digest = hashlib.sha256()
    for kind in _FILES:
        digest.update(schema_path(kind).read_bytes())
    return digest.hexdigest()[:16]
