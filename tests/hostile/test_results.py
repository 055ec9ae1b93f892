"""A result that means harm changes its own job and what that job may ask for, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.store import Store
from reconciler.errors import InputError, ReconcilerError
from reconciler.execution.run_files import marker_name, name_in_queue
from reconciler.execution.worker.termination import end_with_result
from reconciler.jobs.outputs import EmbeddedOutputs
from reconciler.jobs.responses import apply_result
from reconciler.model.flows import run_dir
from reconciler.model.states import JobState
from tests.jobs.bench import Bench

VICTIM, WAITING, OWN = "f-victim", "f-waiting", "f-own"
STORES = ("data", "outputs", "jobs", "a/b", "..", "x\0y", "s" * 300, "-")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """One job is completed, one waits, and ``f/own`` runs; it writes to many additional stores."""
    made = Bench(tmp_path / "state")
    made.flow("f", {"victim": [], "own": [], "waiting": ["own"], "other": []})
    made.run("f/victim")
    payload = json.dumps({"config": {}} | {store: ["output"] for store in STORES}).encode()
    made.store.write(lambda writer: writer.put_payload("f-own_1", payload))
    made.start("f/own", "f/other")
    yield made
    made.store.close()


def result(**fields: Any) -> bytes:
    document = {"uuid": OWN, "index": 1, "output": 1}
    given = {"ok": True, "started": 1.0, "ended": 2.0, "documents": [document], "blobs": {}, "response": {}}
    return json.dumps(given | fields).encode()


def job(uuid: Any = "0f0e3fb6-0000-4000-8000-000000000001", index: Any = 1, **fields: Any) -> list[Any]:
    payload = {
        "uuid": uuid, "index": index, "name": "new", "function": {"@module": "m", "@callable": "f"},
        "function_args": [], "function_kwargs": {}, "config": {},
    }  # fmt: skip
    return [payload | fields, []]


def document(uuid: Any = VICTIM, index: Any = 1, **fields: Any) -> dict[str, Any]:
    return {"uuid": uuid, "index": index, "output": "forged"} | fields


def blob(**fields: Any) -> dict[str, Any]:
    return {"blob_uuid": "b1", "job_uuid": OWN, "job_index": 1, "data": "forged"} | fields


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def take_in(bench: Bench, raw: bytes | None) -> bool:
    """Take a result in as the collector does; return whether the job is completed."""
    record = bench.job("f/own")
    end = end_with_result(raw)
    if end.result is None:
        assert end.error and not end.unknown
        return False
    found = end.result
    try:
        bench.store.write(
            lambda writer: apply_result(
                writer, record.id, record.attempt.number, found, bench.outputs, bench.config, 2000.0
            )
        )
    except (ReconcilerError, ValueError, OverflowError, TypeError, KeyError):  # the collector fails this job
        return False
    return bench.job("f/own").state is JobState.COMPLETED


def check_neighbours(bench: Bench) -> None:
    assert bench.output(VICTIM) == f"{VICTIM}_1.1"
    assert bench.output(WAITING) is None
    assert bench.states("f/victim", "f/other") == ["COMPLETED", "RUNNING"]
    for record in bench.jobs():
        assert ".." not in record.id and "/" not in record.id and record.id.isprintable()
        marker = name_in_queue(record) + marker_name(record)
        assert marker.isprintable() and " " not in marker and "/" not in marker
        assert Path(run_dir("/w", record.uuid, record.index, 1)).resolve().is_relative_to("/w")


FOREIGN = {
    "the output of another job": {"documents": [document()]},
    "that of another job beside its own": {"documents": [document(OWN), document()]},
    "that of a job that waits": {"documents": [document(WAITING)]},
    "a later index of its own": {"documents": [document(OWN, 2)]},
    "an index that is true": {"documents": [document(OWN, True)]},
    "a fractional index": {"documents": [document(OWN, 1.5)]},
    "no index": {"documents": [{"uuid": OWN, "output": 1}]},
    "a uuid in a list": {"documents": [document([OWN, VICTIM])]},
    "no uuid": {"documents": [{"index": 1, "output": 1}]},
    "a blob of another job": {"blobs": {"data": [blob(job_uuid=VICTIM)]}},
    "a blob that is an output": {"blobs": {"data": [blob(uuid=VICTIM)]}},
    "a blob without a name": {"blobs": {"data": [blob(blob_uuid=None)]}},
    "a blob with a path": {"blobs": {"data": [blob(blob_uuid="../x")]}},
    "a store that it does not name": {"blobs": {"secrets": [blob()]}},
    "the store of all outputs": {"blobs": {"outputs": [blob(blob_uuid=WAITING)]}},
    "that store, for a job that is done": {"blobs": {"outputs": [blob(blob_uuid=VICTIM)]}},
    "that store, for its own output": {"blobs": {"outputs": [blob(blob_uuid=OWN)]}},
    "a store with a NUL": {"blobs": {"x\0y": [blob()]}},
    "an endless store": {"blobs": {"s" * 300: [blob()]}},
}


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
def test_outputs_that_are_not_its_own(bench: Bench, fields: dict[str, Any]) -> None:
    assert not take_in(bench, result(**fields))
    check_neighbours(bench)


DAMAGED = {
    "nothing": b"", "a NUL": b"\0", "a number": b"1", "a list": b"[]", "half": result()[:-5], "null": b"null",
    "100,000 lists": b"[" * 100_000 + b"]" * 100_000, "100,000 mappings": b'{"a":' * 100_000,
    "a deep output": result(documents=[document(OWN, output=nested(330))]),
    "a deep blob": result(blobs={"data": [blob(data=nested(330))]}),
    "deep stored data": result(response={"stored_data": nested(330)}),
    "deep arguments": result(response={"detour": [job(function_args=nested(330))]}),
    "times of text": result(started="now"), "endless times": result(started=1e999, ended=1e999),
    "no times": b'{"ok": true}', "a response that is a list": result(response=[]),
    "documents that are a mapping": result(documents={}), "refers that are numbers": result(refers=[1]),
    "a job that is a text": result(response={"replace": ["x"]}),
    "an error of a list": result(ok=False, error=[1]),
}  # fmt: skip


@pytest.mark.parametrize("raw", DAMAGED.values(), ids=DAMAGED)
def test_results_that_are_damaged(bench: Bench, raw: bytes | None) -> None:
    assert not take_in(bench, raw)
    check_neighbours(bench)


UUIDS: list[Any] = [
    "", " ", "a b", "a\n$(touch x)", "$(id)", "`id`", "../../etc", "a/b", "..", ".", "-", "-rf",
    "a;b", "a_1", "a\0b",
    "é", "u" * 65, "u" * 5000, 5, None, True, [], {}, ["a"], VICTIM, "f-other", OWN, "\u202ea", "a'b", 'a"b',
]  # fmt: skip
INDEXES: list[Any] = [0, -1, 10**30, 1.5, "1", None, True, [], "../x", 2**63]


@pytest.mark.parametrize("kind", ["replace", "detour", "addition"])
@pytest.mark.parametrize("new", [*map(job, UUIDS), *(job(index=index) for index in INDEXES)], ids=str)
def test_names_of_generated_jobs(bench: Bench, new: list[Any], kind: str) -> None:
    """Each gets a name of its own, or is refused; the records of other jobs stay."""
    before = {record.id for record in bench.jobs()}
    assert take_in(bench, result(response={kind: [new]}))
    check_neighbours(bench)
    (record,) = [one for one in bench.jobs() if one.id not in before]
    assert record.state is JobState.FAILED and "not valid" in (record.error or "")


CONFIGS: dict[str, Any] = {
    "a worker that is a number": {"worker": 5},
    "a worker with a line break": {"worker": "w1\nx"},
    "a worker that does not exist": {"worker": "../w1"},
    "a priority of 30 digits": {"priority": 10**30},
    "a priority that is infinite": {"priority": 1e999},
    "resources of text": {"resources": "x"},
    "an exec_config with an unknown key": {"exec_config": {"pre_runs": "id"}},
    "a variable that is a command": {"exec_config": {"export": {"X=1; id; Y": "1"}}},
    "a variable with a line break": {"exec_config": {"export": {"A\nid": "1"}}},
    "a value that is a list": {"exec_config": {"export": {"A": ["1"]}}},
    "a module that is an option": {"exec_config": {"modules": [5]}},
    "retries of text": {"retries": "all"},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_run_configs_of_generated_jobs(bench: Bench, config: dict[str, Any]) -> None:
    before = {record.id for record in bench.jobs()}
    take_in(bench, result(response={"detour": [job(config={"manager_config": config})]}))
    check_neighbours(bench)
    found = [one for one in bench.jobs() if one.id not in before]
    assert [one.state for one in found] in ([], [JobState.FAILED], [JobState.REMOTE_ERROR])


@pytest.mark.parametrize(
    "name", ["a/b", "../x", "a\nb", "$(id)", "\x1b[2J", "::error::x", "", "n" * 999, "\u202ex"]
)
def test_names_that_people_see(bench: Bench, name: str) -> None:
    before = {record.id for record in bench.jobs()}
    assert take_in(bench, result(response={"addition": [job(name=name)]}))
    check_neighbours(bench)
    (record,) = [one for one in bench.jobs() if one.id not in before]
    assert record.flow == "f"
    assert record.key.isprintable() and record.name.isprintable()


def test_the_embedded_store_refuses_an_output_in_disguise(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(InputError):
        store.write(lambda writer: EmbeddedOutputs(store).save_inside(writer, [], {"outputs": [blob()]}))
    store.close()
