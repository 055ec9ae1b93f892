"""The schemas themselves: valid, complete, described, and in step with the typed specs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from reconciler.desired.schemas import compile_check, load_schema, resolve, schema_path
from reconciler.desired.yaml.reader import parse_file
from reconciler.execution.queues.registry import queue_of
from reconciler.model.flowsets import FlowSetSpec
from reconciler.model.manifests import (
    ExecConfigSpec,
    FlowSpec,
    Kind,
    MakerSpec,
    OnChange,
    OnCodeChange,
    ProjectSpec,
    Prune,
    RuleSpec,
    WorkerSpec,
)
from reconciler.model.policy import PolicySpec
from reconciler.model.retries import FORMS, HIGHEST_LIMIT, SIGNALS, Cause, Continuation, Retries
from reconciler.model.schedulers import SCHEDULERS

SPECS: dict[Kind, type[msgspec.Struct]] = {
    Kind.PROJECT: ProjectSpec,
    Kind.WORKER: WorkerSpec,
    Kind.EXEC_CONFIG: ExecConfigSpec,
    Kind.MAKER: MakerSpec,
    Kind.FLOW: FlowSpec,
    Kind.OVERRIDE_RULE: RuleSpec,
    Kind.FLOW_SET: FlowSetSpec,
    Kind.POLICY: PolicySpec,
}
RUN_CONFIG = {"worker", "exec_config", "resources", "qresources", "priority", "retries"}
ROOT = Path(__file__).resolve().parents[2]

every_kind = pytest.mark.parametrize("kind", Kind)


def properties(
    root: dict[str, Any], part: dict[str, Any], path: str, above: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted path, resolved schema) of every property at any depth; of a part in itself, once."""
    target = part.get("$ref", "")
    if target and target in above:
        return
    part, above = resolve(root, part), (*above, target)
    for name, sub in part.get("properties", {}).items():
        at = f"{path}.{name}"
        yield at, resolve(root, sub)
        yield from properties(root, sub, at, above)
    for keyword in ("items", "additionalProperties"):
        if isinstance(part.get(keyword), dict):
            yield from properties(root, part[keyword], f"{path}[]", above)


def spec_of(kind: Kind) -> dict[str, Any]:
    schema = load_schema(kind)
    return resolve(schema, schema["properties"]["spec"])


@every_kind
def test_a_schema_is_valid_json_schema(kind: Kind) -> None:
    schema = load_schema(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == kind


def test_every_schema_has_an_id_of_its_own() -> None:
    assert len({load_schema(kind)["$id"] for kind in Kind}) == len(Kind)


@every_kind
def test_every_property_is_described_in_a_sentence(kind: Kind) -> None:
    schema = load_schema(kind)
    found = dict(properties(schema, schema, kind))
    assert len(found) > 8
    for path, part in found.items():
        assert len(part.get("description", "")) > 10, path
        assert part["description"].rstrip()[-1] in ".?", path


@every_kind
def test_examples_and_defaults_fit_what_they_stand_by(kind: Kind) -> None:
    schema = load_schema(kind)
    for path, part in properties(schema, schema, kind):
        check = compile_check({**part, "$defs": schema["$defs"]})
        for example in part.get("examples", []):
            assert check(example), f"{path}: {example}"
        assert "default" not in part or check(part["default"]), path


@every_kind
def test_the_example_of_a_kind_is_a_valid_manifest(kind: Kind) -> None:
    for example in load_schema(kind)["examples"]:
        result = parse_file(msgspec.json.encode(example))
        assert result.diagnostics == []
        assert result.documents[0].kind == kind


def closed_mappings(part: Any, path: str) -> Iterator[tuple[str, bool]]:
    """Yield (path, closed) of every schema with properties."""
    if isinstance(part, dict):
        if "properties" in part and part.get("type") is not None:
            yield path, part.get("additionalProperties", True) is not True
        for name, sub in part.items():
            if name not in ("examples", "default"):
                yield from closed_mappings(sub, f"{path}/{name}")


@every_kind
def test_every_mapping_of_ours_is_closed(kind: Kind) -> None:
    found = dict(closed_mappings(load_schema(kind), ""))
    assert {path for path, closed in found.items() if not closed} == set()
    metadata = "/$defs/flow_metadata" if kind in (Kind.FLOW, Kind.FLOW_SET) else "/$defs/metadata"
    assert {"", "/properties/spec", metadata} <= found.keys()


@every_kind
def test_a_schema_has_the_fields_of_its_spec(kind: Kind) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(SPECS[kind])}
    run_config = RUN_CONFIG if kind is Kind.FLOW else set()
    assert set(spec_of(kind)["properties"]) == fields | run_config


@every_kind
def test_needed_fields_are_those_without_a_default(kind: Kind) -> None:
    needed = {field.encode_name for field in msgspec.structs.fields(SPECS[kind]) if field.required}
    assert set(spec_of(kind).get("required", [])) == needed


@every_kind
def test_defaults_are_those_of_the_spec(kind: Kind) -> None:
    schema = load_schema(kind)
    found = {}
    for name, sub in spec_of(kind)["properties"].items():
        part = resolve(schema, sub)
        if "default" in part:
            found[name] = part["default"]
    expected = {}
    for field in msgspec.structs.fields(SPECS[kind]):
        factory = field.default_factory
        default = factory() if factory is not msgspec.NODEFAULT else field.default
        if default not in (msgspec.NODEFAULT, msgspec.UNSET, None):
            expected[field.encode_name] = msgspec.to_builtins(default)
    assert found == expected


def test_schedulers_are_those_that_have_a_descriptor_and_a_queue() -> None:
    names = spec_of(Kind.WORKER)["properties"]["scheduler_type"]["enum"]
    assert names == list(SCHEDULERS)
    assert [queue_of(name).scheduler.name for name in names] == names


def test_choices_are_those_of_the_code() -> None:
    schema = load_schema(Kind.PROJECT)
    assert schema["$defs"]["on_change"]["enum"] == list(OnChange)
    assert schema["$defs"]["on_code_change"]["enum"] == list(OnCodeChange)
    assert schema["$defs"]["prune"]["enum"] == list(Prune)


def test_what_schemas_share_is_the_same_in_each() -> None:
    """Each file stands alone, so that an editor needs only the one it is pointed at."""
    shared: dict[str, Any] = {}
    for kind in Kind:
        for name, part in load_schema(kind)["$defs"].items():
            assert shared.setdefault(name, part) == part, f"$defs/{name} of {kind}"
    exec_config = shared["exec_config"]["properties"]
    assert exec_config == spec_of(Kind.EXEC_CONFIG)["properties"]
    assert {"name", "metadata", *RUN_CONFIG} <= shared.keys()


def test_the_schema_of_retries_is_that_of_their_code() -> None:
    part = load_schema(Kind.FLOW)["$defs"]["retries"]["properties"]
    fields = {field.encode_name: field for field in msgspec.structs.fields(Retries)}
    assert part.keys() == fields.keys()
    assert part["on"]["items"]["enum"] == list(Cause)
    assert part["on"]["default"] == list(fields["on"].default)
    assert part["backoff"]["default"] == fields["backoff"].default
    assert (part["limit"]["minimum"], part["limit"]["maximum"]) == (0, HIGHEST_LIMIT)
    assert list(part["escalate"]["properties"]) == list(FORMS)
    continuation = part["continue"]["properties"]
    assert list(continuation) == [field.encode_name for field in msgspec.structs.fields(Continuation)]
    assert continuation["signal"]["pattern"] == f"^({'|'.join(SIGNALS)})@[0-9]{{1,6}}$"


def test_the_schemas_of_the_source_tree_are_used_and_are_all_there_are() -> None:
    files = {schema_path(kind) for kind in Kind}
    assert files == set((ROOT / "schemas").glob("*.schema.json"))


@pytest.mark.parametrize("path", sorted((ROOT / "example-repo").rglob("*.yaml")), ids=lambda path: path.name)
def test_the_example_repository_is_valid(path: Path) -> None:
    result = parse_file(path.read_bytes())
    assert result.diagnostics == []
    assert result.documents
