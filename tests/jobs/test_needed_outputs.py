"""What travels to a job of the outputs that it refers to."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from reconciler.actual.codec import encode
from reconciler.execution.launcher import unpacked
from reconciler.jobs.needed_outputs import needed_outputs

Document = dict[str, Any]
NUMBERS = [n / 7 for n in range(3000)]
HEAVY = {"values": NUMBERS, "energy": -1.5, "frames": [{"n": n, "text": "x" * 100} for n in range(300)]}
OBJECT = {"@module": "m", "@class": "C", "inner": HEAVY}


class Outputs:
    """Outputs in memory."""

    def __init__(self, **outputs: Any) -> None:
        self.outputs = {
            uuid: {"uuid": uuid, "index": 1, "name": f"job {uuid}", "output": output}
            for uuid, output in outputs.items()
        }
        self.blobs: dict[str, Document] = {}
        self.read: list[str] = []

    def packed(self, uuid: str) -> bytes | None:
        self.read.append(uuid)
        return encode(self.outputs[uuid]) if uuid in self.outputs else None

    def packed_blob(self, store: str, blob_uuid: str) -> bytes | None:
        assert store == "data"
        self.read.append(blob_uuid)
        return encode(self.blobs[blob_uuid]) if blob_uuid in self.blobs else None


def reference(uuid: str, *steps: Any) -> Document:
    """Return a reference as jobflow writes it."""
    attributes = [["i" if isinstance(step, int) else "a", step] for step in steps]
    return {
        "@module": "jobflow.core.reference",
        "@class": "OutputReference",
        "uuid": uuid,
        "attributes": attributes,
    }


def link(blob_uuid: str, of: str = "dict") -> Document:
    """Return what stands in an output for a part in the additional store."""
    return {"@module": "builtins", "@class": of, "blob_uuid": blob_uuid, "store": "data"}


def needed(outputs: Outputs, *arguments: Any, **config: Any) -> dict[str, Document]:
    """Return what travels, by uuid."""
    payload = {"function_args": list(arguments), "config": config}
    found = [unpacked(one.data) for one in needed_outputs(payload, outputs)]  # type: ignore[arg-type]
    return {one.get("uuid") or one["blob_uuid"]: one for one in found}


def test_of_a_large_output_only_what_is_referred_to() -> None:
    found = needed(Outputs(a=HEAVY), reference("a", "frames", 2, "n"), [{"x": reference("a", "energy")}])
    output = found["a"]["output"]
    assert output == {"energy": -1.5, "frames": [None, None, {"n": 2}, *[None] * 297]}
    assert (found["a"]["index"], found["a"]["name"]) == (1, "job a")


@pytest.mark.parametrize(
    ("output", "steps"),
    [
        ({"energy": 1, "name": "small"}, ("energy",)),
        (HEAVY, ()),
        (HEAVY, ("nowhere",)),
        (HEAVY, ("energy", "real")),
        (OBJECT, ("inner", "energy")),
        (NUMBERS, (3000,)),
        (NUMBERS, ("append",)),
    ],
)
def test_whole_where_it_is_small_or_a_class_knows_where_a_path_leads(
    output: Any, steps: tuple[Any, ...]
) -> None:
    found = needed(Outputs(a=output), reference("a", *steps))["a"]["output"]
    assert found == ({"energy": -1.5} if steps == ("energy", "real") else output)


def test_an_object_inside_of_a_large_output_stays_whole() -> None:
    outputs = Outputs(a={"one": OBJECT, "two": [HEAVY, HEAVY]})
    assert needed(outputs, reference("a", "one", "inner", "energy"))["a"]["output"] == {"one": OBJECT}


@pytest.mark.parametrize("config", [{"expose_store": True}, {"resolve_references": False}])
def test_whole_for_a_job_that_can_read_the_store(config: dict[str, Any]) -> None:
    assert needed(Outputs(a=HEAVY), reference("a", "energy"), **config)["a"]["output"] == HEAVY


def test_parts_in_an_additional_store_travel_if_a_path_leads_there() -> None:
    outputs = Outputs(a={"energy": 1, "trajectory": link("b-1"), "other": link("b-2")})
    outputs.blobs = {
        "b-1": {"blob_uuid": "b-1", "data": HEAVY, "job_uuid": "a"},
        "b-2": {"blob_uuid": "b-2", "data": NUMBERS, "job_uuid": "a"},
    }
    assert set(needed(outputs, reference("a", "energy"))) == {"a"}
    assert set(needed(outputs, reference("a"))) == {"a", "b-1", "b-2"}
    found = needed(outputs, reference("a", "trajectory", "frames", -1, "n"))
    assert found["a"]["output"] == {"trajectory": link("b-1")}
    assert found["b-1"]["data"]["frames"][-1] == {"n": 299}
    assert set(found["b-1"]["data"]) == {"frames"}
    assert set(needed(outputs, reference("a", "energy"), expose_store=True)) == {"a", "b-1", "b-2"}


def test_a_path_goes_on_through_an_output_that_is_a_reference() -> None:
    outputs = Outputs(a=reference("b", "inner"), b={"inner": HEAVY, "rest": NUMBERS})
    found = needed(outputs, reference("a", "energy"))
    assert found["a"]["output"] == reference("b", "inner")
    assert found["b"]["output"] == {"inner": {"energy": -1.5}}


def test_all_references_in_an_output_are_followed() -> None:
    outputs = Outputs(a={"x": reference("b", "energy"), "y": [reference("c"), link("d")]}, b=HEAVY, c=1)
    outputs.blobs = {"d": {"blob_uuid": "d", "data": reference("e")}}
    outputs.outputs |= Outputs(e=5).outputs
    found = needed(outputs, reference("a", "x"), reference("absent"))
    assert set(found) == {"a", "b", "c", "d", "e"}
    assert found["b"]["output"] == {"energy": -1.5}
    assert len(outputs.read) == len(set(outputs.read))


@pytest.mark.parametrize("steps", [(), ("x",)])
def test_references_in_a_circle_end(steps: tuple[str, ...]) -> None:
    outputs = Outputs(a=reference("b", *steps), b=reference("a", *steps))
    assert set(needed(outputs, reference("a", "z"))) == {"a", "b"}


@pytest.mark.parametrize("steps", [(), ("values",), ("other", "values")])
def test_a_large_part_is_not_copied_on_its_way(steps: tuple[str, ...]) -> None:
    values = [n / 7 for n in range(400_000)]
    data = encode(
        {"uuid": "a", "output": {"other": {"values": values}} if len(steps) > 1 else {"values": values}}
    )

    class Kept(Outputs):
        def packed(self, uuid: str) -> bytes | None:
            return data

    payload = {"function_args": [reference("a", *steps)]}
    tracemalloc.start()
    try:
        (found,) = needed_outputs(payload, Kept())  # type: ignore[arg-type]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.data is data
    assert most < len(data) / 10
