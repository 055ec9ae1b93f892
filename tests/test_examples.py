"""The example jobs, run by jobflow itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from jobflow import Flow, Job, JobStore, run_locally
from maggma.stores import MemoryStore

from reconciler import examples


def outcome(work: Job | Flow, *, root: Path) -> Any:
    """Run ``work`` in ``root`` and return the output of its last job, at its last index."""
    flow = work if isinstance(work, Flow) else Flow([work])
    last = flow.job_uuids[-1]
    responses = run_locally(flow, root_dir=root, ensure_success=True, raise_immediately=True, log=False)
    attempts = responses[last]
    return attempts[max(attempts)].output


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (examples.value({"x": [1]}), {"x": [1]}),
        (examples.add(2, 0.5), 2.5),
        (examples.add_many(), 0),
        (examples.add_many(1, 2, 3), 6),
        (examples.make_list(7, length=3), [7, 7, 7]),
        (examples.make_list(7, length=0), []),
        (examples.sleep(0.01), 0.01),
        (examples.add_sleep(1, 0.01), 1.01),
        (examples.environment("NO_SUCH_VARIABLE_OF_OURS"), ""),
        (examples.self_replace(3), 0),
        (examples.conditional_sum_replace([6, 6]), 12),
        (examples.AddMaker(offset=10).make(1, 2), 13),
        (Job(function=examples.multiply, function_args=(6, 7)), 42),
        (Job(function=examples.power, function_args=(3,)), 9),
    ],
    ids=lambda case: case.name if isinstance(case, Job) else None,
)
def test_output(job: Job, expected: Any, tmp_path: Path) -> None:
    assert outcome(job, root=tmp_path) == expected


def test_make_list_without_a_length_gives_two_to_five(tmp_path: Path) -> None:
    assert outcome(examples.make_list(1), root=tmp_path) in ([1] * n for n in range(2, 6))


def test_fail_raises_its_message(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no memory left"):
        outcome(examples.fail("no memory left"), root=tmp_path)


def test_write_file_writes_into_the_run_directory(tmp_path: Path) -> None:
    path = Path(outcome(examples.write_file("note.txt", "größer\n"), root=tmp_path))
    assert path.is_absolute()
    assert path.parent.resolve() == tmp_path.resolve()
    assert path.read_text(encoding="utf-8") == "größer\n"


@pytest.mark.parametrize("name", ["../note.txt", "a/b", "/etc/note", ""])
def test_write_file_stays_in_the_run_directory(name: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError)):
        outcome(examples.write_file(name, "x"), root=tmp_path)
    assert not list(tmp_path.rglob("note*"))


def test_environment_and_pid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_EXAMPLE", "seen")
    assert outcome(examples.environment("RECONCILER_EXAMPLE"), root=tmp_path) == "seen"
    assert outcome(examples.pid(), root=tmp_path) == os.getpid()


def test_add_distributed_makes_one_job_for_each_number(tmp_path: Path) -> None:
    job = examples.add_distributed([1, 5, 9])
    responses = run_locally(Flow([job]), root_dir=tmp_path, ensure_success=True, log=False)
    generated = [attempts[1].output for uuid, attempts in responses.items() if uuid != job.uuid]
    assert generated == [2, 6, 10]


def test_conditional_sum_replace_grows_until_it_is_enough(tmp_path: Path) -> None:
    job = examples.conditional_sum_replace([1], min_n=10)
    store = JobStore(MemoryStore())
    responses = run_locally(Flow([job]), store=store, root_dir=tmp_path, ensure_success=True, log=False)
    # 1 -> 1 + 5 -> 6 + 5: replaced twice; the output of what replaces a job becomes its own.
    assert store.get_output(job.uuid) == 11
    assert sum(attempts[1].replace is not None for attempts in responses.values()) == 2


def test_add_twice_maker_hands_its_add_maker_down(tmp_path: Path) -> None:
    flow = examples.AddTwiceMaker(add_maker=examples.AddMaker(name="plus", offset=1)).make(10, 2)
    assert [job.name for job in flow.jobs] == ["plus", "plus again"]
    assert outcome(flow, root=tmp_path) == 16


def test_arithmetic_flow(tmp_path: Path) -> None:
    flow = examples.arithmetic_flow(5, 2)
    assert [job.name for job in flow.jobs] == ["value", "add"]
    assert outcome(flow, root=tmp_path) == 7


@pytest.mark.parametrize(
    "job",
    [
        examples.add(1, 2),
        Job(function=examples.multiply, function_args=(2, 3)),
        examples.AddMaker(offset=4).make(1, 2),
    ],
    ids=["decorated", "plain", "maker"],
)
def test_a_stored_job_names_the_same_callable(job: Job, tmp_path: Path) -> None:
    again = Job.from_dict(job.as_dict())
    assert outcome(again, root=tmp_path / "again") == outcome(job, root=tmp_path / "first")
