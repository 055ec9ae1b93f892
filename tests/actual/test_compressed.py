"""Values that are compressed in the store."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.actual import compressed as module
from reconciler.actual.compressed import compressed, restored
from reconciler.actual.layout import DamagedError
from reconciler.actual.store import Store
from reconciler.model.flows import BuiltFlow, BuiltJob

JOB = {
    "@module": "jobflow.core.job", "@class": "Job", "@version": "0.4.0",
    "function": {"@module": "reconciler.examples", "@callable": "add", "@bound": None},
    "function_args": [58, 0], "function_kwargs": {}, "output_schema": None,
    "uuid": "00031925-484a-5018-be6b-f357a1d80a46", "index": 1, "name": "job0", "metadata": {},
    "config": {
        "@module": "jobflow.core.job", "@class": "JobConfig", "@version": "0.4.0", "resolve_references": True,
        "on_missing_references": "error", "manager_config": {}, "expose_store": False,
        "pass_manager_config": True, "response_manager_config": {},
    },
    "hosts": ["844a414f-5ad4-564a-81fe-7f1fbb760b6a"], "metadata_updates": [], "config_updates": [],
    "name_updates": [],
}  # fmt: skip
PAYLOAD = json.dumps(JOB).encode()


@given(st.binary())
def test_every_value_comes_back(data: bytes) -> None:
    assert restored(compressed(data)) == data


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x01" * 500, b"{}", PAYLOAD, PAYLOAD * 300, b"x" * (2 << 20)]
)
def test_odd_and_large_values_come_back(data: bytes) -> None:
    assert restored(compressed(data)) == data


def test_values_of_earlier_versions_are_read_as_they_are() -> None:
    for data in (b"", b"{}", PAYLOAD, b"\x8d\xa9build_key"):
        assert restored(data) == data


def test_a_small_job_needs_a_fourth_of_the_room() -> None:
    assert len(compressed(PAYLOAD)) < len(PAYLOAD) / 4


def test_random_bytes_do_not_grow() -> None:
    data = random.Random(1).randbytes(5000)
    assert compressed(data) == data


def test_the_words_never_change() -> None:
    """Stored values are read with them. Other words need another mark beside this one."""
    assert (
        hashlib.sha256(module._WORDS).hexdigest()
        == "e8a5114d346f96bcc5e7326554a8e4ddb0819bbe5ed55a88511f92851c1f1ee6"
    )


@pytest.mark.parametrize("damage", [b"\x01", b"\x01junk", compressed(PAYLOAD)[:-5], compressed(PAYLOAD)[:9]])
def test_damaged_bytes_are_an_error(damage: bytes) -> None:
    with pytest.raises(ValueError, match="compressed"):
        restored(damage)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def test_a_damaged_payload_says_what_to_do(store: Store) -> None:
    store.write(lambda writer: writer.txn.put("payloads", b"u_1", b"\x01junk"))
    with store.read() as view, pytest.raises(DamagedError, match="the payload of a job") as caught:
        view.payload("u_1")
    assert "reconcile fsck" in (caught.value.hint or "")


def test_builds_are_small_and_payloads_come_back(store: Store) -> None:
    jobs = [
        BuiltJob(
            key=f"j{number}", uuid=f"00031925-484a-5018-be6b-{number:012}", index=1, name=f"j{number}",
            function="reconciler.examples.add", content=hashlib.sha256(bytes([number])).hexdigest(),
            parents=[], on_missing="error", own={}, files=[], hosts=[],
            payload=PAYLOAD.replace(b"58", b"%d" % number),
        )
        for number in range(10)
    ]  # fmt: skip
    build = BuiltFlow(build_key="k", jobs=jobs, jobflow_version="1")

    def write(writer):  # type: ignore[no-untyped-def]
        writer.put_build(build)
        writer.put_payload("u_1", PAYLOAD)

    store.write(write)
    with store.read() as view:
        assert view.build("k") == build
        assert view.payload("u_1") == PAYLOAD
        assert len(view.txn.get("builds", b"k") or b"") < 2500
        assert len(view.txn.get("payloads", b"u_1") or b"") < 200
