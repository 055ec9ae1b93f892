"""The forms of a flow: entries with makers, keys of the jobs that code makes, and the output of a flow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.build.builder import BuildFailedError, FlowBuilder, external_jobs, missing_jobs
from reconciler.desired.source.git import Source
from reconciler.desired.state import flows_in_build_order, load_desired
from reconciler.diagnostics import Diagnostic
from reconciler.model.desired import DesiredState
from reconciler.model.flows import BuiltFlow, BuiltJob
from reconciler.plan.configs import FlowConfigs
from tests.build.support import build
from tests.desired.test_flows import NoCache
from tests.support import Repository, isolate

CODE = """
from dataclasses import dataclass, field
from jobflow import Flow, Maker, job
from pydantic import BaseModel

class Energy(BaseModel):
    energy: float = 0

@job
def give(x):
    return x

def named(value):
    made = give(1)
    made.name = repr(value)
    return made

def called(loaded):
    return loaded["f"](7)

@dataclass
class One(Maker):
    name: str = "one.5/x y"
    n: int = 1

    @job(output_schema=Energy)
    def make(self, x=0):
        return Energy()

@dataclass
class Three(Maker):
    name: str = "three"
    inner: One = field(default_factory=One)
    output: str = "last"

    def make(self, x=0):
        jobs = [self.inner.make(x)]
        jobs += [self.inner.make(jobs[-1].output.energy) for _ in range(2)]
        outputs = {"last": jobs[-1].output, "none": None, "data": {"e": 1}}
        outputs["all"] = {"e": [one.output for one in jobs]}
        return Flow(jobs, output=outputs[self.output], name=self.name)

@dataclass
class Several(Maker):
    name: str = "several"

    def make(self):
        return [give(1), give(2)]
"""
FILES = {
    "maker.json": '{"@module": "made", "@class": "One", "name": "loaded", "n": 4}',
    "maker.yaml": "a: [1.50, {'@module': made, '@class': One, n: 5}]\nb: no\n",
    "callable.json": '{"f": {"@module": "made", "@callable": "give"}}',
    "unknown.json": '[{"x": {"@module": "made", "@class": "Missing"}}]',
    "broken.json": "{",
    "raises.json": '{"@module": "made", "@class": "One", "m": 4}',
}
HEAD = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec:\n"


class Forms:
    """A repository with ``lib/made.py`` and the flows of a test."""

    def __init__(self, repository: Repository, state: Path) -> None:
        self.repository = repository
        self.state = state
        self.desired: DesiredState
        self.failures: dict[str, Diagnostic] = {}

    def build(self, **flows: str) -> dict[str, BuiltFlow]:
        """Build flows by their specs in YAML; what cannot be built is in ``failures``."""
        project = HEAD.format("Project", "p") + "  python_path: [lib]\n"
        self.repository.write("reconciler.yaml", project)
        self.repository.write("lib/made.py", CODE)
        for name, text in FILES.items():
            self.repository.write(f"data/{name}", text)
        for name, spec in flows.items():
            self.repository.write(f"flows/{name}.yaml", HEAD.format("Flow", name) + f"  {spec}\n")
        self.repository.commit()
        source = Source(self.repository.path / ".git", self.repository.path, None, "")
        self.desired = load_desired(source, source.revision(), NoCache(), {}).state
        builder = FlowBuilder(source, self.desired, self.state)
        built: dict[str, BuiltFlow] = {}
        try:
            for flow in flows_in_build_order(self.desired.flows):
                missing = missing_jobs(flow, built)
                externals = external_jobs(flow, built)
                if missing is not None or externals is None:
                    if missing is not None:
                        self.failures[flow.name] = missing
                    continue
                try:
                    built[flow.name] = build(builder, flow, externals)
                except BuildFailedError as error:
                    self.failures[flow.name] = error.diagnostic
        finally:
            builder.close()
        return built


@pytest.fixture
def forms(repository: Repository, tmp_path: Path) -> Iterator[Forms]:
    yield Forms(repository, tmp_path / "state")


@pytest.fixture(scope="module")
def forms_of_all(tmp_path_factory: pytest.TempPathFactory) -> tuple[Forms, dict[str, BuiltFlow]]:
    """All flows of the tables below, built by one process: to start one costs a second."""
    root = tmp_path_factory.mktemp("forms")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root / "home")
        forms = Forms(Repository(root / "repository"), root / "state")
        return forms, forms.build(**ALL_FLOWS)


def by_key(built: BuiltFlow) -> dict[str, BuiltJob]:
    return {job.key: job for job in built.jobs}


def entry(job_id: str, maker: str, more: str = "") -> str:
    return f"{{id: {job_id}, maker: {{class: made.{maker}}}{more}}}"


def uses(value: str) -> str:
    """Return an entry whose argument is an ``$output``."""
    return f"{{id: r, function: made.give, args: [{{$output: {value}}}]}}"


def takes(value: str) -> str:
    """Return a flow of a factory that looks at the value when it is built."""
    return f"factory: {{function: made.named, args: [{value}]}}"


def loads(name: str) -> str:
    return takes(f"{{$load: data/{name}}}")


SEEN = {
    # directive: what the code sees when the flow is built
    "{$tuple: [1, [2], {$tuple: []}]}": "(1, [2], ())",
    "{$set: [2, {$tuple: [1]}]}": repr({2, (1,)}),
    "{$map: [[1, a], [{$tuple: [1, 2]}, {b: {$set: []}}]]}": "{1: 'a', (1, 2): {'b': set()}}",
    "{$map: []}": "{}",
    "{$bytes: 'AAH/'}": repr(b"\x00\x01\xff"),
    "{$bytes: ''}": "b''",
    "{$load: data/maker.json}": "One(name='loaded', n=4)",
    "{$load: data/maker.yaml}": "{'a': [1.5, One(name='one.5/x y', n=5)], 'b': 'no'}",
}


REFERENCES: dict[str, tuple[str, str, list[object]]] = {
    "the output of the flow": ("t.energy", "t/one.5/x y#3", [["a", "energy"]]),
    "a job by its key": ('{job: "t/one.5/x y#2", path: energy}', "t/one.5/x y#2", [["a", "energy"]]),
    "a job without a path": ('{job: "t/one.5/x y"}', "t/one.5/x y", []),
    "the flow as a mapping": ("{job: t, path: energy}", "t/one.5/x y#3", [["a", "energy"]]),
}

THREE = "maker: {{class: made.Three, kwargs: {{output: {}}}}}"
ONE = "one.5/x y"
ACROSS: dict[str, tuple[str, str, set[str]]] = {
    "last": (THREE.format("last"), "{flow: F, path: energy}", {f"{ONE}#3"}),
    "all": (THREE.format("all"), "{flow: F}", {ONE, f"{ONE}#2", f"{ONE}#3"}),
    "one of all": (THREE.format("all"), "{flow: F, path: 'e[1].energy'}", {f"{ONE}#2"}),
    "a job alone": ("maker: {class: made.One}", "{flow: F, path: energy}", {ONE}),
    "a job by key": (THREE.format("last"), f'{{flow: F, job: "{ONE}#2", path: energy}}', {f"{ONE}#2"}),
}

NO_OUTPUT = "does not have an output of its own"
FAILURES: dict[str, tuple[str, str, str]] = {
    # id: (the flow F, a flow that uses it if that is the one that fails, part of the message)
    "a flow without an output": (THREE.format("none"), "{flow: F}", NO_OUTPUT),
    "an output without jobs": (THREE.format("data"), "{flow: F}", NO_OUTPUT),
    "a list of jobs": ("maker: {class: made.Several}", "{flow: F}", NO_OUTPUT),
    "an entry without an output": (f"jobs: [{uses('t')}, {entry('t', 'Several')}]", "", NO_OUTPUT),
    "a job that the maker does not make": (
        f"jobs: [{uses('{job: t/one}')}, {entry('t', 'Three')}]", "", "this flow does not have a job 't/one'"
    ),
    "a job that another flow does not make": (
        THREE.format("last"), "{flow: F, job: one.5}", "does not have a job 'one.5'"
    ),
    "a step that the output does not have": (
        THREE.format("all"), "{flow: F, path: x}", "path: x}' does not exist: the output of the flow has e"
    ),
    "an attribute that the schema does not have": (
        f"jobs: [{entry('t', 'One')}, {uses('t.enrgy')}]", "",
        "'t.enrgy' does not exist: an Energy does not have 'enrgy'",
    ),
    "a name for several jobs": (f"jobs: [{entry('t', 'Three', ', name: x')}]", "", "cannot share one name"),
    "a file that is not JSON": (loads("broken.json"), "", "data/broken.json cannot be loaded"),
    "a file that names what does not exist": (loads("unknown.json"), "", "names 'made.Missing'"),
    "a file whose class refuses": (loads("raises.json"), "", "data/raises.json cannot be loaded: TypeError"),
    "equal entries of a set": (takes("{$set: [1, 1.0]}"), "", "two entries of '$set' are equal"),
    "equal keys": (takes("{$map: [[1, a], [1, b]]}"), "", "two entries of '$map' are equal"),
    "an entry without a hash": (takes("{$set: [[1]]}"), "", "'$set' has an entry that cannot be one"),
    "a maker as a function": ("jobs: [{id: t, function: made.One}]", "", "'made.One' is a Maker"),
}  # fmt: skip


def _all_flows() -> Iterator[tuple[str, str]]:
    for number, (value, *_) in enumerate(REFERENCES.values()):
        # The entry stands before the one that it needs.
        yield f"local-{number}", f"jobs: [{uses(value)}, {entry('t', 'Three')}]"
    for kind, table in (("across", ACROSS), ("fails", FAILURES)):
        for number, (spec, value, *_) in enumerate(table.values()):
            yield f"{kind}-{number}", spec
            if value:
                yield f"{kind}-{number}-g", f"jobs: [{uses(value.replace('F', f'{kind}-{number}'))}]"

    for number, value in enumerate(SEEN):
        yield f"seen-{number}", takes(value)
    yield "callable", "factory: {function: made.called, args: [{$load: data/callable.json}]}"
    extra = "metadata: {m: 1}\n  name_suffix: ' Cu'"
    yield "marked", f"{THREE.format('last')}\n  {extra}"
    yield "marked-entries", f"jobs: [{entry('a', 'One')}, {entry('t', 'Three')}]\n  {extra}"


ALL_FLOWS = dict(_all_flows())
Built = tuple[Forms, dict[str, BuiltFlow]]


@pytest.mark.parametrize("case", REFERENCES)
def test_a_job_refers_to_what_a_maker_made(forms_of_all: Built, case: str) -> None:
    _, parent, path = REFERENCES[case]
    jobs = by_key(forms_of_all[1][f"local-{[*REFERENCES].index(case)}"])
    assert jobs["r"].parents == [jobs[parent].uuid]
    reference = json.loads(jobs["r"].payload)["function_args"][0]
    assert [list(step) for step in reference["attributes"]] == path


@pytest.mark.parametrize("case", ACROSS)
def test_a_flow_uses_the_output_of_another(forms_of_all: Built, case: str) -> None:
    parents, name = ACROSS[case][2], f"across-{[*ACROSS].index(case)}"
    jobs = by_key(forms_of_all[1][name])
    (user,) = forms_of_all[1][f"{name}-g"].jobs
    assert user.parents == sorted(jobs[key].uuid for key in parents)


@pytest.mark.parametrize("case", FAILURES)
def test_what_does_not_exist_is_named(forms_of_all: Built, case: str) -> None:
    forms, built = forms_of_all
    _, user, message = FAILURES[case]
    failed = f"fails-{[*FAILURES].index(case)}{'-g' if user else ''}"
    assert message in forms.failures[failed].message
    assert forms.failures[failed].location.file == f"flows/{failed}.yaml"
    assert failed not in built


@pytest.mark.parametrize("value", SEEN)
def test_code_sees_what_a_directive_stands_for(forms_of_all: Built, value: str) -> None:
    (job,) = forms_of_all[1][f"seen-{[*SEEN].index(value)}"].jobs
    assert job.name == SEEN[value]


def test_a_loaded_callable_can_be_called(forms_of_all: Built) -> None:
    (job,) = forms_of_all[1]["callable"].jobs
    assert json.loads(job.payload)["function_args"] == [7]


@pytest.mark.parametrize("name", ["marked", "marked-entries"])
def test_metadata_and_suffix_reach_every_job_and_what_it_generates(forms_of_all: Built, name: str) -> None:
    jobs = forms_of_all[1][name].jobs
    assert {job.name for job in jobs} == {"one.5/x y Cu"}
    for job in jobs:
        payload = json.loads(job.payload)
        assert payload["metadata"] == {"m": 1}
        assert payload["metadata_updates"][-1]["update"] == {"m": 1}
        assert payload["name_updates"] == [{"append_str": " Cu", "prepend": False}]
    keys = [job.key for job in jobs]
    expected = {"marked": "one.5/x y Cu#3", "marked-entries": "t/one.5/x y#3"}
    assert keys[-1] == expected[name]


def test_nothing_else_fails(forms_of_all: Built) -> None:
    forms, built = forms_of_all
    assert len(forms.failures) == len(FAILURES)
    assert len(built) == len(ALL_FLOWS) - len(FAILURES)


def test_an_entry_has_the_keys_that_its_maker_gives(forms: Forms) -> None:
    spec = f"jobs: [{entry('a', 'One')}, {entry('b', 'One', ', name: beta, metadata: {m: 1}')}, "
    spec += f"{entry('t', 'Three', ', priority: 7')}, {entry('u', 'Several')}]"
    built = forms.build(f=spec)["f"]
    jobs = by_key(built)
    threes = ["t/one.5/x y", "t/one.5/x y#2", "t/one.5/x y#3"]
    assert list(jobs) == ["a", "b", *threes, "u/give", "u/give#2"]
    assert [jobs["a"].name, jobs["b"].name] == ["one.5/x y", "beta"]
    assert json.loads(jobs["b"].payload)["metadata"] == {"m": 1}
    configs = FlowConfigs(forms.desired, forms.desired.flows["f"], {}, built)
    found = {job.key: configs.of_built(job)[1] for job in built.jobs}
    assert [key for key, config in found.items() if config.priority_value == 7] == threes
    setting = found[threes[0]].priority
    assert setting is not None
    place = forms.desired.locate(setting.origin)
    assert place is not None
    assert (place.file, place.line) == ("flows/f.yaml", 5)


def test_an_edit_runs_again_what_depends_on_it(forms: Forms) -> None:
    spec = "jobs: [{{id: a, maker: {{class: made.One, kwargs: {{n: {}}}}}}}, {}, {}]"
    rest = (
        "{id: b, maker: {class: made.One, kwargs: {n: 9}}}",
        "{id: c, maker: {class: made.Three, make: {args: [{$output: a.energy}]}}}",
    )
    use = f"jobs: [{uses('{flow: f, job: c/one.5/x y#3}')}]"
    before = forms.build(f=spec.format(1, *rest), g=use)
    after = forms.build(f=spec.format(2, *rest), g=use)
    assert forms.failures == {}
    assert before == forms.build(f=spec.format(1, *rest), g=use)
    old, new = by_key(before["f"]), by_key(after["f"])
    assert [key for key in old if old[key].uuid == new[key].uuid] == ["b"]
    assert before["g"].jobs[0].uuid != after["g"].jobs[0].uuid
    assert before["g"].build_key != after["g"].build_key


def test_the_output_of_a_flow_is_part_of_what_uses_it(forms: Forms) -> None:
    use = f"jobs: [{uses('{flow: f}')}]"
    last = forms.build(f=THREE.format("last"), g=use)
    every = forms.build(f=THREE.format("all"), g=use)
    assert forms.failures == {}
    assert [job.uuid for job in last["f"].jobs] == [job.uuid for job in every["f"].jobs]
    assert last["g"].jobs[0].uuid != every["g"].jobs[0].uuid


def test_a_flow_that_lists_jobs_has_no_output_of_its_own(forms: Forms) -> None:
    forms.build(f="jobs: [{id: a, function: made.give, args: [1]}]", g=f"jobs: [{uses('{flow: f}')}]")
    (problem,) = forms.desired.diagnostics
    assert problem.code == "reference/no-flow-output"
    assert str(problem.location) == "flows/g.yaml:5:56"
    assert problem.hint == "name a job of it, for example 'job: a'"
    assert "g" in forms.desired.invalid
