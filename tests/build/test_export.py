"""``reconciler.export``: what it writes builds to the same jobs, through git, with the same uuids."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import exported
import pytest
from exported import Cell, Relax, Tools, Twice, draw, give, named, plain, relax
from jobflow import Flow, JobConfig, JobOrder, OnMissing

import reconciler
from reconciler.build.builder import FlowBuilder
from reconciler.build.identity import identify
from reconciler.desired.source.git import Source
from reconciler.desired.state import load_desired
from reconciler.errors import InputError, ReconcilerError, RefusedError
from reconciler.examples import AddMaker, AddTwiceMaker, add, add_many, arithmetic_flow, value
from tests.build.support import build
from tests.desired.test_flows import NoCache
from tests.support import Repository

pytestmark = pytest.mark.usefixtures("warm")


def chain() -> Flow:
    first = named(value(5), "the value, first")
    second = add(first.output, 2)
    return Flow([first, second, add_many(first.output, second.output)])


def attributes() -> Flow:
    first, second = relax([1.0]), give({"x": [1, {"deep key": 2}]})
    last = give(first.output.energy, b=[second.output["x"][1]["deep key"], second.output.x[-1]])
    return Flow([first, second, last])


def nested() -> Flow:
    return Flow([Twice().flow([1.0]), give(1)], name="outer")


def linear() -> Flow:
    return Flow([give(1), give(2)], order=JobOrder.LINEAR)


def configured() -> Flow:
    first, second = give(1), give(2)
    first.config = JobConfig(resolve_references="both", on_missing_references=OnMissing.NONE)
    second.config = JobConfig(expose_store=True, response_manager_config={"worker": "w2"})
    second.metadata = {"formula": "Cu", "tags": ["a", 1]}
    return Flow([first, second])


def managed() -> Flow:
    one = give(1)
    one.config = JobConfig(manager_config={"worker": "w2"})
    return Flow([one])


def updated() -> Flow:
    one = give(1)
    one.update_metadata({"campaign": "x"}, dynamic=True)
    return Flow([one])


def several_outputs() -> Flow:
    one, two = give(1), give(2)
    return Flow([one, two], output={"one": one.output, "two": two.output})


LISTED: dict[str, Callable[[], Any]] = {
    "one job": lambda: give(1),
    "a list": lambda: [give(1), give(1), give(2)],
    "a chain with names": chain,
    "attributes of outputs": attributes,
    "numbers and text": lambda: give([1, 2.5, -1e-9, float("inf"), True, None, "on", "1_0", ""]),
    "tuples": lambda: Flow([give((1, (2, "x")), b=[(3,)])]),
    "bytes": lambda: Flow([give(b"\x00\xff")]),
    "mappings": lambda: Flow([give({"a": {"b": 1}}, b={1: "one", "two": 2})]),
    "text like a directive": lambda: give('"$output": x, "$path":', b={"long " * 30: ["x" * 40] * 5}),
    "text in lines": lambda: Flow([give("first\nsecond: x\n", b="# not a comment")]),
    "an object": lambda: Flow([give(Cell([1.0, 2.0]), b=[Cell([1.0, 2.0]), Cell([3.0])])]),
    "an array and a date": lambda: Flow([give(exported.grid(), b=datetime(2026, 12, 1, 3))]),
    "a function": lambda: Flow([give(plain)]),
    "a maker of a job": lambda: Flow([Relax(steps=5, options={"fmax": 0.1}).make([1.0])]),
    "makers with defaults": lambda: Flow([Relax().make([1.0]), AddMaker(offset=2).make(1, 2)]),
    "a maker in a maker": lambda: Flow([Twice(relaxing=Relax(weights=(1.0, 2.0))).make(Cell([1.0]))]),
    "a flow of makers": lambda: Twice().flow([1.0]),
    "a flow with an output": lambda: AddTwiceMaker().make(1, 2),
    "a factory": lambda: arithmetic_flow(1, 2),
    "an additional store": lambda: Flow([draw(Cell([1.0]))]),
    "a static method": lambda: Flow([Tools.measure(1)]),
    "config and metadata": configured,
}  # fmt: skip

IN_FILES: dict[str, Callable[[], Any]] = {
    "flows in the flow": nested,
    "a linear order": linear,
    "a run config of its own": managed,
    "another method of a maker": lambda: Flow([Relax().other([1.0])]),
    "updates of what it generates": updated,
    "several outputs": several_outputs,
    "a large number": lambda: give(10**20),
}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with all of these flows, written by ``export``."""
    repository = Repository(tmp_path_factory.mktemp("exported") / "repository")
    project = "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: p}\n"
    repository.write("reconciler.yaml", project + "spec: {python_path: [lib]}\n")
    code = Path(exported.__file__).read_bytes()
    repository.write("lib/exported.py", code)
    for number, make in enumerate([*LISTED.values(), *IN_FILES.values()]):
        reconciler.export(make(), repository.path, name=f"f{number}", priority=number)
    repository.commit()
    return repository


@pytest.fixture(scope="module")
def built(campaign: Repository, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The uuids of the jobs of each flow, by the name of the case, as a reconcile builds them."""
    source = Source(campaign.path / ".git", campaign.path, None, "")
    desired = load_desired(source, source.revision(), NoCache(), {}).state
    assert [str(problem.message) for problem in desired.diagnostics] == []
    builder = FlowBuilder(source, desired, tmp_path_factory.mktemp("state"))
    try:
        return {
            case: [job.uuid for job in build(builder, desired.flows[f"f{number}"]).jobs]
            for number, case in enumerate([*LISTED, *IN_FILES])
        }
    finally:
        builder.close()


@pytest.mark.parametrize("case", [*LISTED, *IN_FILES])
def test_it_builds_to_the_uuids_of_the_flow(
    campaign: Repository, built: dict[str, list[str]], case: str
) -> None:
    number = [*LISTED, *IN_FILES].index(case)
    source = Source(campaign.path / ".git", campaign.path, None, "")
    identity = load_desired(source, source.revision(), NoCache(), {}).state.flows[f"f{number}"].identity
    made = (LISTED | IN_FILES)[case]()
    assert built[case] == [item.uuid for item in identify(made, identity, {}, {}, [])]
    text = (campaign.path / f"flows/f{number}.yaml").read_text()
    assert f"priority: {number}" in text
    assert ("  file: " in text) == (case in IN_FILES), text
    assert text.startswith("# Not as a list of jobs, because ") == (case in IN_FILES)


def test_it_is_readable(campaign: Repository) -> None:
    chain_of = (campaign.path / f"flows/f{[*LISTED].index('a chain with names')}.yaml").read_text()
    assert 'name: "the value, first"' in chain_of
    assert "function: reconciler.examples.add" in chain_of
    assert "args: [{$output: the-value-first}, 2]" in chain_of
    twice = (campaign.path / f"flows/f{[*LISTED].index('a flow of makers')}.yaml").read_text()
    assert twice.startswith("# The output of this flow is that of a job. Other flows refer to it as ")
    assert "class: exported.Relax" in twice


@pytest.fixture
def empty(repository: Repository) -> Repository:
    project = "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: p}\n"
    repository.write("reconciler.yaml", project + "spec: {manifests: [flows, more/deep]}\n")
    return repository


def test_where_it_is_written(empty: Repository) -> None:
    for place, written in (
        ("", "flows/x.yaml"), ("flows", "flows/x.yaml"), ("more/deep/er", "more/deep/er/x.yaml"),
        ("flows/other.yml", "flows/other.yml"),
    ):  # fmt: skip
        found = reconciler.export(give(Cell([1.0])), empty.path / place, name="x", labels={"a": "b"})
        assert found == (empty.path / written).resolve()
        assert "labels: {a: b}" in found.read_text()
    assert reconciler.export(give(2), empty.path, name="x").read_text().count("args") == 1, "written again"


class Local:
    pass


def here() -> None: ...


here.__module__ = "__main__"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a wrong name": (lambda path: reconciler.export(give(1), path, name="a b"), "cannot be the name"),
    "a wrong option": (lambda path: reconciler.export(give(1), path, name="x", wroker="a"), "not a part of"),
    "a wrong value": (lambda path: reconciler.export(give(1), path, name="x", priority="high"), "priority"),
    "no campaign": (lambda path: reconciler.export(give(1), path.parent, name="x"), "not in a campaign"),
    "another folder": (lambda path: reconciler.export(give(1), path / "lib", name="x"), "folder of man"),
    "a notebook": (lambda path: reconciler.export(give(here), path, name="x"), "cannot be"),
    "a job of a notebook": (
        lambda path: reconciler.export(reconciler_job(here), path, name="x"),
        "which this notebook or script defines",
    ),
    "another flow": (lambda path: reconciler.export(give(give(1).output), path, name="x"), "not in any flow"),
    "a function without a name": (lambda path: reconciler.export(give(lambda: 1), path, name="x"), "lambda"),
}  # fmt: skip


def reconciler_job(function: Callable[..., Any]) -> Any:
    from jobflow import Job

    return Job(function)


@pytest.mark.parametrize(("act", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_written_is_refused(
    empty: Repository, act: Callable[[Path], Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        act(empty.path)
    assert [file.name for file in empty.path.rglob("x*")] == []


def test_another_manifest_is_kept(empty: Repository) -> None:
    empty.write(
        "flows/x.yaml", "apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: y}\nspec: {file: z}\n"
    )
    with pytest.raises(RefusedError):
        reconciler.export(give(1), empty.path, name="x")
    assert issubclass(RefusedError, ReconcilerError)
    assert "name: y" in (empty.path / "flows/x.yaml").read_text()
