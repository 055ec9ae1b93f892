"""Jobs that Python code makes are checked as manifests are; an odd one stops only itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.writer import Writer
from reconciler.errors import InputError
from reconciler.jobs.job_checks import HIGHEST_INDEX, JobRefusedError, check_job, run_config_from_python
from reconciler.jobs.job_json import JobResult
from reconciler.jobs.responses import apply_result
from reconciler.loop import Session
from tests.execution.support import Listener, World
from tests.jobs.bench import Bench, new_job
from tests.jobs.odd_values import REFUSED, TAKEN

REASON = "f/a has generated a job that is not valid: "


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Flow ``f``: a -> b, and c; flow ``g``: x."""
    made = Bench(tmp_path / "state")
    made.flow("f", {"a": [], "b": ["a"], "c": []})
    made.flow("g", {"x": []})
    yield made
    made.check()
    made.store.close()


def odd(**fields: Any) -> Any:
    payload, parents = new_job("new", name="odd")
    return payload | fields, parents


def test_odd_run_config_is_taken_as_jobflow_remote_does_or_refused_with_a_reason() -> None:
    assert len(TAKEN) + len(REFUSED) >= 76
    for given, wanted in TAKEN:
        assert run_config_from_python(given) == wanted, given
    for given, reason in REFUSED:
        with pytest.raises(JobRefusedError) as caught:
            run_config_from_python(given)
        assert reason in str(caught.value), given
        assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [[], "x", 5, True])
def test_a_manager_config_that_is_not_a_mapping_is_refused(given: Any) -> None:
    if given != []:
        with pytest.raises(JobRefusedError, match="not a mapping"):
            run_config_from_python(given)


def test_generated_jobs_with_odd_run_config_fail_alone(bench: Bench) -> None:
    bench.start("f/a", "f/c")
    configs = [given for given, _ in TAKEN] + [given for given, _ in REFUSED]
    jobs = [
        (new_job(f"new-{number}", name=f"j{number}")[0] | {"config": {"manager_config": config}}, [])
        for number, config in enumerate(configs)
    ]
    bench.end("f/a", output=1, addition=json.loads(json.dumps(jobs)))
    bench.end("f/c")
    assert bench.states("f/a", "f/b", "f/c", "g/x") == ["COMPLETED", "READY", "COMPLETED", "READY"]
    for number, (_, wanted) in enumerate(TAKEN):
        job = bench.job(f"f/j{number}")
        assert str(job.state) == "READY", (configs[number], job.error)
        values = {field: setting.shown for field, setting in job.own.items()}
        if "qresources" in wanted:
            wanted = {"resources": {"qresources": wanted["qresources"]}}
        assert values == wanted
    for number, (_, reason) in enumerate(REFUSED, len(TAKEN)):
        job = bench.job(f"f/j{number}")
        assert str(job.state) == "FAILED"
        assert job.error is not None and job.error.startswith(REASON) and reason in job.error
    bench.operate("retry", f"f/j{len(TAKEN)}")
    assert str(bench.job(f"f/j{len(TAKEN)}").state) == "FAILED", "it cannot run as it is"


ODD_JOBS: dict[str, tuple[dict[str, Any], str]] = {
    "uuid with a line break": ({"uuid": "a\nb"}, "uuid"),
    "uuid that leaves the directory": ({"uuid": "../../etc"}, "uuid"),
    "uuid that a shell would expand": ({"uuid": "$(touch x)"}, "uuid"),
    "uuid with NUL": ({"uuid": "a\x00b"}, "uuid"),
    "empty uuid": ({"uuid": ""}, "uuid"),
    "long uuid": ({"uuid": "a" * 65}, "uuid"),
    "uuid with an index": ({"uuid": "f-a_1"}, "uuid"),
    "number as uuid": ({"uuid": 5}, "uuid"),
    "uuid of a job of its flow": ({"uuid": "f-c"}, "belongs to the job f/c"),
    "uuid of a job of another flow": ({"uuid": "g-x"}, "belongs to the job g/x"),
    "uuid of its generator": ({"uuid": "f-a", "index": 1}, "its index is 1"),
    "uuid of its generator, much later": ({"uuid": "f-a", "index": 7}, "its index is 7"),
    "huge index": ({"index": 10**30}, "index"),
    "large index": ({"index": HIGHEST_INDEX + 1}, "index"),
    "index 0": ({"index": 0}, "index"),
    "negative index": ({"index": -1}, "index"),
    "index True": ({"index": True}, "index"),
    "index as text": ({"index": "1"}, "index"),
    "no index": ({"index": None}, "index"),
    "long name": ({"name": "x" * 2000}, "name"),
    "function as text": ({"function": "m.f"}, "function"),
    "function without module": ({"function": {"@callable": "f"}}, "function"),
    "module as number": ({"function": {"@module": 5, "@callable": "f"}}, "function"),
    "arguments as text": ({"function_args": "x"}, "function_args"),
    "arguments as list": ({"function_kwargs": []}, "function_kwargs"),
    "config as list": ({"config": ["x"]}, "config"),
    "on_missing_references": ({"config": {"on_missing_references": "ignore"}}, "on_missing_references"),
    "on_missing_references as list": ({"config": {"on_missing_references": ["x"]}}, "on_missing_references"),
}


@pytest.mark.parametrize("case", ODD_JOBS)
def test_an_odd_generated_job_fails_alone(bench: Bench, case: str) -> None:
    fields, reason = ODD_JOBS[case]
    before = bench.job("f/c"), bench.job("g/x")
    user, _ = new_job("user", name="user")
    payload, _ = odd(**fields)
    bench.start("f/a")
    bench.end("f/a", output=1, detour=[(payload, []), (user, [str(payload["uuid"])]), new_job("fine")])
    assert bench.states("f/a", "f/c", "g/x") == ["COMPLETED", "READY", "READY"]
    assert (bench.job("f/c"), bench.job("g/x")) == before
    assert bench.states("f/new") == ["READY"], "the one beside it runs"
    failed = [job for job in bench.jobs() if str(job.state) == "FAILED"]
    assert [(job.flow, job.index) for job in failed] == [("f", 1)]
    assert failed[0].error is not None and failed[0].error.startswith(REASON) and reason in failed[0].error
    assert bench.states("f/user", "f/b") == ["WAITING", "WAITING"], "they need the one that failed"


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "a\x1b[31mb", "\udce9", ""])
def test_a_name_becomes_one_line_that_can_be_printed(bench: Bench, name: str) -> None:
    job = check_job(odd(name=name)[0])
    assert job.name.isprintable() and job.name
    bench.start("f/a")
    bench.end("f/a", output=1, addition=[odd(name=name)])
    assert bench.states(f"f/{job.name}") == ["READY"]


def test_two_jobs_of_one_response_cannot_have_the_same_uuid(bench: Bench) -> None:
    bench.start("f/a")
    bench.end("f/a", output=1, addition=[new_job("same", name="one"), new_job("same", name="two")])
    assert bench.states("f/one", "f/two") == ["READY", "FAILED"]


def test_a_generator_that_runs_again_may_bring_the_same_jobs(bench: Bench) -> None:
    for _ in range(2):
        bench.start("f/a")
        bench.end("f/a", output=1, addition=[new_job("same", name="one")])
        bench.run("f/one")
        bench.operate("rerun", "f/a")
    bench.start("f/a")
    bench.end("f/a", output=1, replace=[new_job("f-a", 2, name="a")])
    bench.run("f/a@2")
    assert bench.states("f/b") == ["READY"]


@pytest.mark.parametrize(
    "document",
    [
        {"uuid": "g-x", "index": 1},
        {"uuid": "f-c", "index": 1},
        {"uuid": "f-a", "index": 2},
        {"uuid": "f-a", "index": True},
        {"uuid": "f-a"},
    ],
)
def test_a_result_cannot_replace_the_output_of_another_job(bench: Bench, document: dict[str, Any]) -> None:
    bench.run("g/x")
    kept = bench.output("g-x")
    bench.start("f/a")
    result = JobResult(ok=True, started=1.0, ended=2.0, documents=[document | {"output": "stolen"}])
    with pytest.raises(InputError, match="output of another job"):
        bench.store.write(lambda w: apply_result(w, "f-a_1", 1, result, bench.outputs, bench.config, 9.0))
    assert bench.output("g-x") == kept
    assert bench.states("f/a") == ["RUNNING"]


@pytest.mark.parametrize(
    "blobs",
    [
        {"data": [{"blob_uuid": "b1", "job_uuid": "g-x", "job_index": 1}]},
        {"data": [{"blob_uuid": "b1", "job_uuid": "f-a", "job_index": 2}]},
        {"data": [{"blob_uuid": "b1"}]},
        {"data": [{"blob_uuid": 5, "job_uuid": "f-a", "job_index": 1}]},
        {"data": [{"uuid": "g-x", "index": 1, "blob_uuid": "b1", "job_uuid": "f-a", "job_index": 1}]},
        {"outputs": [{"blob_uuid": "g-x", "job_uuid": "f-a", "job_index": 1}]},
        {"other": [{"blob_uuid": "b1", "job_uuid": "f-a", "job_index": 1}]},
        {"data": [{"blob_uuid": "theirs", "job_uuid": "f-a", "job_index": 1}]},
    ],
)
def test_a_result_cannot_replace_what_others_have_in_additional_stores(bench: Bench, blobs: Any) -> None:
    bench.run("g/x")
    theirs = {"blob_uuid": "theirs", "job_uuid": "g-x", "job_index": 1, "data": 1}

    def prepare(writer: Writer) -> None:
        bench.outputs.save_inside(writer, [], {"data": [theirs]})
        writer.put_payload("f-a_1", b'{"data": true}')

    bench.store.write(prepare)
    bench.start("f/a")
    own = {"uuid": "f-a", "index": 1, "output": 1}
    result = JobResult(ok=True, started=1.0, ended=2.0, documents=[own], blobs=blobs)
    with pytest.raises(InputError):
        bench.store.write(lambda w: apply_result(w, "f-a_1", 1, result, bench.outputs, bench.config, 9.0))
    found = bench.outputs.blob("data", "theirs")
    assert found is not None and found["job_uuid"] == "g-x" and bench.output("f-a") is None
    assert bench.states("f/a") == ["RUNNING"]


@pytest.mark.usefixtures("warm")
def test_flows_whose_code_sets_odd_run_config_fail_alone(world: World) -> None:
    """Each flow sets one value in a factory; ``good`` is built, planned and applied with all of them."""
    cases = [(given, None) for given, _ in TAKEN] + list(REFUSED)
    world.yaml(
        "lib/odd_flows.py",
        """
        from jobflow import Flow, job

        @job
        def work():
            return 1

        def flow(number):
            from odd_values import CASES
            one = work()
            one.config.manager_config = CASES[number]
            return Flow([one])
        """,
    )
    text = "\n".join(f"    {given!r}," for given, _ in cases)
    world.repository.write(
        "lib/odd_values.py", f"nan, inf = float('nan'), float('inf')\nCASES = [\n{text}\n]\n"
    )
    for number in range(len(cases)):
        world.factory(f"f{number}", "odd_flows.flow", number)
    world.flow("good", {"id": "j", "function": "reconciler.examples.add", "args": [1, 2]})
    world.repository.commit()
    plan = Session(world.source, world.store, hosts=world.hosts).reconcile(Listener()).plan
    jobs = world.jobs()
    assert "good/j" in jobs
    built = {path.partition("/")[0] for path in jobs}
    messages = [found.message for found in plan.diagnostics if found.is_error]
    for number, (given, reason) in enumerate(cases):
        if reason is not None:
            assert f"f{number}" not in built, given
            mine = [message for message in messages if f"flow 'f{number}' " in message]
            assert len(mine) == 1 and reason in mine[0], given
