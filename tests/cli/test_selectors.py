"""Names, filters and uuids select the same jobs in every command; hints name only what exists."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.cli.views.data import ordered_jobs
from reconciler.model.applied import AppliedConfig
from reconciler.model.flows import BuiltFlow, BuiltJob
from reconciler.model.records import FlowRecord
from reconciler.model.states import JobState
from tests.cli.members import member, put
from tests.support import Repository, minimal_project

Program = Callable[..., Any]

STATES = {"value": "COMPLETED", "add": "FAILED", "relax": "READY"}
UUID = "2a5413c4-0000-4000-8000-{:012d}"


@pytest.fixture
def run(repository: Repository, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program on three flows; one has a job that was superseded."""
    minimal_project(repository, tmp_path / "work")
    head = repository.commit("no flows")
    store = Store(tmp_path / "state")
    jobs = []
    for number, flow in enumerate(("dynamic", "eos-al", "eos-pt")):
        for place, (key, state) in enumerate(STATES.items()):
            uuid = UUID.format(10 * number + place)
            jobs.append(member(key, flow=flow, uuid=uuid, state=JobState(state)))
    jobs.append(member("old", flow="dynamic", uuid="ffffffff-0000-4000-8000-000000000001", current=False))
    put(store, *jobs)
    config = AppliedConfig(revision=f"main@{head[:7]}", commit=head)
    store.write(lambda writer: writer.put_config(config))
    store.close()
    monkeypatch.chdir(repository.path)

    def call(*arguments: str) -> Any:
        return program("--state-dir", str(tmp_path / "state"), *arguments)

    return call


def keys(run: Program, *arguments: str) -> list[str]:
    done = run("get", "jobs", *arguments, "-o", "name")
    assert done.code == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("arguments", "selected"),
    [
        (["eos-al"], ["eos-al/value", "eos-al/add", "eos-al/relax"]),
        (["eos-*", "state:FAILED"], ["eos-al/add", "eos-pt/add"]),
        (["eos-*/relax"], ["eos-al/relax", "eos-pt/relax"]),
        (["dynamic/add", "eos-al/relax"], ["dynamic/add", "eos-al/relax"]),
        (["*/value"], ["dynamic/value", "eos-al/value", "eos-pt/value"]),
        (["*/*add"], ["dynamic/add", "eos-al/add", "eos-pt/add"]),
        (["state:failed,READY", "dynamic"], ["dynamic/add", "dynamic/relax"]),
        (["--state", "failed,READY", "dynamic"], ["dynamic/add", "dynamic/relax"]),
        (["--state", "FAILED", "--state", "READY", "dynamic"], ["dynamic/add", "dynamic/relax"]),
        (["2A5413C4-0000-4000-8000-000000000010"], ["eos-al/value"]),
        (["2a5413c4-0000-4000-8000-000000000011_1"], ["eos-al/add"]),
        (["2a5413c4-0000-4000-8000-00000000000"], ["dynamic/value", "dynamic/add", "dynamic/relax"]),
        (["--all", "dynamic/old"], ["dynamic/old"]),
        (["--limit", "2", "eos-*"], ["eos-al/value", "eos-al/add"]),
    ],
    ids=str,
)
def test_get_jobs(run: Program, arguments: Sequence[str], selected: list[str]) -> None:
    assert keys(run, *arguments) == selected


@pytest.mark.parametrize(
    ("arguments", "notes"),
    [
        (["bad"], ["no job matches 'bad'"]),
        (["eos-al", "dynamik", "*/nothing"], ["no job matches 'dynamik'", "no job matches '*/nothing'"]),
        (["dynamic/ad"], ["no job matches 'dynamic/ad'; did you mean 'dynamic/add'?"]),
        (["dynamic/old"], ["no job matches 'dynamic/old'; superseded jobs match: add --all"]),
        (["deadbeef"], ["no job matches 'deadbeef'"]),
    ],
    ids=str,
)
def test_each_name_that_matches_nothing_is_reported(
    run: Program, arguments: Sequence[str], notes: Sequence[str]
) -> None:
    done = run("get", "jobs", *arguments)
    lines = done.stderr.splitlines()
    assert done.code == 0
    assert [line for line in lines if line.startswith("no job")] != []
    assert all(any(line.startswith(note) for line in lines) for note in notes), lines
    assert len([line for line in lines if line.startswith("no job")]) == len(notes)


def test_flows_that_match_nothing_are_reported(run: Program) -> None:
    done = run("get", "flows", "eos-*", "dynamc", "-o", "name")
    assert (done.stdout, done.stderr) == (
        "eos-al\neos-pt\n", "no flow matches 'dynamc'; did you mean 'dynamic'?\n",
    )  # fmt: skip
    assert run("get", "flows", "state:FAILED").code == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["get", "jobs", "stat:FAILED"], "there is no selector 'stat:'"),
        (["get", "jobs", "state:FALED"], "there is no state 'FALED'\n  help: did you mean 'FAILED'?"),
        (["get", "jobs", "--state", "FAILED,FALED"], "there is no state 'FALED'"),
        (["get", "jobs", "worker:w2"], "there is no worker 'w2'"),
        (["get", "jobs", "flow:metal=Al"], "no flow has the label metal=Al"),
        (["get", "flows", "flow:metal=Al"], "no flow has the label metal=Al"),
        (["describe", "job", "arithmetic/ad"], "there is no job 'arithmetic/ad'"),
        (["describe", "job", "dynamic/ad"], "did you mean 'dynamic/add'?"),
        (["describe", "job", "dinamic/add"], "did you mean 'dynamic/add'?"),
        (["describe", "job", "dinamic/ad"], "did you mean 'dynamic/add'?"),
        (["retry", "dinamic/ad"], "no flow matches 'dinamic'\n  help: did you mean 'dynamic/add'?"),
        (
            ["describe", "job", "eos-al"],
            "'eos-al' is a flow, not a job\n  help: name one of its jobs: eos-al/",
        ),
        (["output", "2a5413c4"], "several jobs have a uuid that starts with '2a5413c4'"),
        (["output", "12345678"], "there is no job '12345678'"),
    ],
    ids=str,
)
def test_mistakes(run: Program, arguments: Sequence[str], error: str) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert error in done.stderr


def test_a_hint_names_only_what_exists_and_differs(run: Program) -> None:
    existing = {f"{flow}/{key}" for flow in ("dynamic", "eos-al", "eos-pt") for key in STATES}
    for name in ("dynamic/ad", "arithmetic/ad", "eos-a/addd", "x/add", "eos/relax", "eos-pt/rel", "add"):
        for command in (["describe", "job"], ["output"], ["logs"], ["render", "job"], ["retry"]):
            done = run(*command, name)
            _, found, guess = done.stderr.partition("did you mean '")
            assert not found or (guess.partition("'")[0] in existing - {name}), done.stderr


def test_beginning_of_a_uuid(run: Program) -> None:
    start = "2a5413c4-0000-4000-8000-00000000002"
    assert json.loads(run("describe", "job", f"{start}1", "-o", "json").stdout)["key"] == "eos-pt/add"
    assert json.loads(run("describe", "job", "FFFFFFFF", "-o", "json").stdout)["key"] == "dynamic/old"
    done = run("pause", "--dry-run", f"{start}2", "-o", "name")
    assert (done.code, done.stdout) == (0, "eos-pt/relax\n")
    done = run("retry", "--dry-run", start)
    assert (done.code, "several jobs" in done.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["job", "jobs", "flow", "flows", "worker", "workers"])
def test_singular_and_plural(run: Program, kind: str) -> None:
    assert run("get", kind).code == 0
    name = {"j": "dynamic/add", "f": "dynamic", "w": "none"}[kind[0]]
    assert run("describe", kind, name).code == (2 if name == "none" else 0)


def test_huge_errors_are_bounded(run: Program, tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    huge = "Traceback\n" + "x" * 5_000_000
    put(store, *(member(f"huge-{n}", flow="huge", error=huge + "\x1b[31m red") for n in range(4)))
    store.close()
    for call in (
        ["get", "jobs", "-o", "wide"],
        ["describe", "flow", "huge"],
        ["describe", "job", "huge/huge-1"],
    ):
        done = run(*call)
        assert (done.code, len(done.stdout) < 60_000) == (0, True)
        assert "\x1b" not in done.stdout
    assert len(json.loads(run("describe", "job", "huge/huge-1", "-o", "json").stdout)["error"]) > 5_000_000


def test_jobs_keep_the_order_of_their_definition(run: Program, tmp_path: Path) -> None:
    jobs = [
        member("c", flow="o"), member("new", by="a", flow="o", uuid="new"), member("b", flow="o"),
        member("a", flow="o"),
    ]  # fmt: skip
    jobs[0].sequence, jobs[1].sequence, jobs[2].sequence, jobs[3].sequence = 1, 9, 7, 8  # b and a ran again
    built = [
        BuiltJob(
            key=key,
            uuid=key,
            index=1,
            name=key,
            function="m.f",
            content=key,
            parents=[],
            on_missing="error",
            own={},
            files=[],
            hosts=[],
            payload=b"",
        )
        for key in "abc"
    ]
    store = Store(tmp_path / "ordered")

    def write(writer: Writer) -> None:
        writer.put_flow(FlowRecord(name="o", identity="i", build_key="k", revision="main@1234567"))
        writer.put_build(BuiltFlow(build_key="k", jobs=built, jobflow_version="1"))
        for job in jobs:
            writer.put_job(job)

    store.write(write)
    with store.read() as view:
        assert [job.key for job in ordered_jobs(view, "o")] == ["a", "new", "b", "c"]
    store.close()
