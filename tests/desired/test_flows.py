"""Files and code that flows name: what no job can get is named when validating, and stops only its flows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from reconciler.desired.source.git import open_source
from reconciler.desired.state import Loaded, load_desired
from reconciler.diagnostics import Severity, did_you_mean, nearest_path
from reconciler.errors import InputError
from reconciler.model.manifests import ParsedFile
from reconciler.plan.checks import check_name
from tests.support import Repository

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"


class NoCache:
    def get(self, blob: str) -> ParsedFile | None:
        return None

    def put(self, parsed: Mapping[str, ParsedFile]) -> None:
        return None


class Campaign:
    def __init__(self, repository: Repository, tmp_path: Path) -> None:
        self.repository = repository
        self._mirrors = tmp_path / "mirrors"
        self.project("python_path: [lib, more]")
        repository.write("lib/jm.py", "x = 1\n")
        repository.write("more/other.py", "x = 1\n")
        self.flow("plain", "function: reconciler.examples.value", "args: [5]")
        self.flow("coded", "function: jm.f", "args: [5]")

    def project(self, spec: str) -> None:
        head = "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: p}\n"
        self.repository.write("reconciler.yaml", f"{head}spec: {{{spec}}}\n")

    def flow(self, name: str, *lines: str) -> None:
        head = f"apiVersion: reconciler/v1\nkind: Flow\nmetadata: {{name: {name}}}\nspec:\n"
        head += "  jobs:\n    - id: a\n"
        self.repository.write(f"flows/{name}.yaml", head + "".join(f"      {line}\n" for line in lines))

    def reading(self, path: str) -> None:
        self.flow("reads", "function: reconciler.examples.value", f"args: [{{$path: {path}}}]")

    def load(self, *, commit: bool = True) -> Loaded:
        if commit:
            self.repository.commit()
        source = open_source(str(self.repository.path), None, "", self._mirrors)
        return load_desired(source, source.revision(), NoCache(), {})


@pytest.fixture
def campaign(repository: Repository, tmp_path: Path) -> Campaign:
    return Campaign(repository, tmp_path)


def submodule(repository: Repository, path: str) -> None:
    head = repository.commit()
    repository.run("update-index", "--add", "--cacheinfo", f"160000,{head},{path}")
    repository.run("commit", "--quiet", "--message=module")


@pytest.mark.parametrize("where", ["lib/bad", "lib/deep/er/bad"])
@pytest.mark.parametrize("what", ["symlink", "submodule", "pointer of Git LFS"])
def test_code_that_cannot_be_sent_stops_only_the_flows_that_need_it(
    campaign: Campaign, what: str, where: str
) -> None:
    if what == "symlink":
        (campaign.repository.path / where).parent.mkdir(parents=True, exist_ok=True)
        (campaign.repository.path / where).symlink_to("jm.py")
    elif what == "submodule":
        submodule(campaign.repository, where)
    else:
        campaign.repository.write(where, POINTER)
    state = campaign.load(commit=what != "submodule").state
    (problem,) = state.diagnostics
    assert problem.code == "reference/unfit-code"
    assert problem.message == f"'{where}' is a {what}, which cannot be sent to a worker"
    assert str(problem.location) == "reconciler.yaml:4:22"
    assert problem.hint
    assert set(state.flows) == {"plain"}
    assert where in state.invalid["coded"]


def test_code_of_another_directory_goes_on(campaign: Campaign) -> None:
    (campaign.repository.path / "more" / "link").symlink_to("other.py")
    state = campaign.load().state
    assert [problem.message for problem in state.diagnostics] == [
        "'more/link' is a symlink, which cannot be sent to a worker"
    ]
    assert set(state.flows) == {"plain", "coded"}


class TestPythonPath:
    """All directories are on the path; an edit concerns the flows that name a directory, directly or not."""

    def _trees(self, campaign: Campaign, flow: str) -> tuple[list[str], list[str]]:
        found = campaign.load().state.flows[flow]
        run = campaign.repository.run
        names = {run("rev-parse", f"HEAD:{name}").strip(): name for name in ("lib", "more", "third")}
        return [names[tree] for tree in found.code], [names[tree] for tree in found.python_path]

    @pytest.fixture(autouse=True)
    def _three(self, campaign: Campaign) -> None:
        campaign.project("python_path: [third, lib, more]")
        campaign.repository.write("third/last/__init__.py", "x = 1\n")

    @pytest.mark.parametrize(
        ("statement", "counted"),
        [
            ("x = 1", ["lib"]),
            ("import other", ["lib", "more"]),
            ("import os, other as o", ["lib", "more"]),
            ("def f():\n    from other import x", ["lib", "more"]),
            ("import last.inner", ["third", "lib"]),
            ("from last.inner import (\n    x,\n)", ["third", "lib"]),
            ("import importlib\nx = importlib.import_module('other')", ["lib", "more"]),
            ("NAME = 'other.f'", ["lib", "more"]),
            ("from .other import x  # another other", ["lib"]),
            ("import otherwise, json.other", ["lib"]),
        ],
    )
    def test_what_the_code_of_a_flow_imports_counts(
        self, campaign: Campaign, statement: str, counted: list[str]
    ) -> None:
        campaign.repository.write("lib/jm.py", f"{statement}\n")
        assert self._trees(campaign, "coded") == (counted, ["third", "lib", "more"])
        assert self._trees(campaign, "plain") == ([], ["third", "lib", "more"])

    def test_what_that_imports_counts_too(self, campaign: Campaign) -> None:
        campaign.repository.write("lib/jm.py", "import other\n")
        campaign.repository.write("more/other.py", "import last\n")
        assert self._trees(campaign, "coded")[0] == ["third", "lib", "more"]

    @pytest.mark.parametrize(
        "argument", ["other.Doubled", "{meta: other.Doubled}", "[{deep: [other.sub.f]}]", "other.py"]
    )
    def test_code_that_data_names_counts(self, campaign: Campaign, argument: str) -> None:
        campaign.flow("plain", "function: reconciler.examples.value", f"args: [{argument}]")
        assert self._trees(campaign, "plain")[0] == ["more"]

    def test_edits_elsewhere_concern_no_flow(self, campaign: Campaign) -> None:
        campaign.repository.write("lib/jm.py", "import other\n")

        def inputs() -> dict[str, str]:
            return {name: flow.inputs for name, flow in campaign.load().state.flows.items()}

        before = inputs()
        campaign.repository.write("third/last/__init__.py", "x = 2\n")
        assert inputs() == before
        campaign.repository.write("more/other.py", "x = 2\n")
        after = inputs()
        assert after["plain"] == before["plain"]
        assert after["coded"] != before["coded"]

    def test_a_directory_that_cannot_travel_is_not_on_the_path(self, campaign: Campaign) -> None:
        (campaign.repository.path / "third" / "link").symlink_to("last")
        state = campaign.load().state
        assert [len(flow.python_path) for flow in state.flows.values()] == [2, 2]


@pytest.mark.parametrize("form", ["file", "$path"])
@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("data/link", "symlink"),
        ("data", "folder"),
        ("data/pointer.cif", "pointer of Git LFS"),
        ("data/module", "submodule"),
    ],
)
def test_a_path_that_is_no_file_is_called_by_its_kind(
    campaign: Campaign, path: str, what: str, form: str
) -> None:
    campaign.repository.write("data/x", "x")
    (campaign.repository.path / "data" / "link").symlink_to("x")
    campaign.repository.write("data/pointer.cif", POINTER)
    if form == "$path":
        campaign.reading(path)
    else:
        head = "apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: reads}\nspec:\n"
        campaign.repository.write("flows/reads.yaml", f"{head}  file: {path}\n")
    submodule(campaign.repository, "data/module")
    state = campaign.load(commit=False).state
    (problem,) = state.diagnostics
    assert (problem.code, problem.message) == ("reference/not-a-file", f"'{path}' is a {what}, not a file")
    assert path not in (problem.hint or "")
    assert set(state.flows) == {"plain", "coded"}
    assert what in state.invalid["reads"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("data/sI.cif", "did you mean 'data/Si.cif'?"),
        ("data/Si.ciff", "did you mean 'data/Si.cif'?"),
        ("structures/Si.cif", "did you mean 'data/Si.cif'?"),
        ("lib/x.npy", "paths are relative to the folder of reconciler.yaml"),
        ("zebra", "paths are relative to the folder of reconciler.yaml"),
    ],
)
def test_a_file_that_does_not_exist(campaign: Campaign, path: str, hint: str) -> None:
    campaign.repository.write("data/Si.cif", "x")
    campaign.reading(path)
    (problem,) = campaign.load().state.diagnostics
    assert (problem.code, problem.hint) == ("reference/unknown-file", hint)


def test_a_small_file_that_only_speaks_of_lfs_is_a_file(campaign: Campaign) -> None:
    campaign.repository.write("data/notes", f"See below.\n{POINTER}")
    campaign.reading("data/notes")
    state = campaign.load().state
    assert state.diagnostics == []
    assert "reads" in state.flows


def test_the_executable_bit_is_part_of_a_flow(campaign: Campaign) -> None:
    script = campaign.repository.write("bin/run.sh", "#!/bin/sh\n")
    campaign.reading("bin/run.sh")
    before = campaign.load().state.flows["reads"]
    script.chmod(0o755)
    after = campaign.load().state.flows["reads"]
    assert [len(file) for file in before.files] == [2]
    assert after.files == [(*before.files[0], "x")]
    assert before.inputs != after.inputs


@pytest.mark.parametrize(
    ("directory", "message", "hint"),
    [
        ("libs", "does not have a directory 'libs'", "did you mean 'lib'?"),
        ("lib/jm.py", "'lib/jm.py' is a file, not a directory", "name the directory that contains the file"),
        (
            "linked",
            "'linked' is a symlink, not a directory",
            "replace the symlink by the file that it points to",
        ),
    ],
)
def test_a_python_path_that_is_no_directory(
    campaign: Campaign, directory: str, message: str, hint: str
) -> None:
    (campaign.repository.path / "linked").symlink_to("lib")
    campaign.project(f"python_path: [{directory}]")
    (problem,) = campaign.load().state.diagnostics
    assert message in problem.message
    assert problem.hint == hint
    assert problem.severity is Severity.ERROR


def test_a_path_is_meant_only_by_its_likes() -> None:
    files = ["lib/dd/j.py", "lib/run.py", "a/run.py", "b/walk.py"]
    assert nearest_path("lib/x.npy", files) is None
    assert nearest_path("lib/rum.py", files) == "lib/run.py"
    assert nearest_path("c/walk.py", files) == "b/walk.py"


def test_equally_near_names_are_all_named_or_none() -> None:
    assert did_you_mean("eos-xx", ["eos-al", "eos-cu"]) == "did you mean 'eos-al' or 'eos-cu'?"
    many = [f"eos-{letter}{letter}" for letter in "abcdefghijklmnop"]
    assert did_you_mean("eos-xx", many) is None
    assert did_you_mean("eos-al", ["eos-al", "zebra"]) == "known: zebra", "never the name itself"


class TestSlips:
    """What is valid and yet probably not meant: warnings, which block nothing."""

    @pytest.mark.parametrize(
        ("args", "directive"),
        [
            ("[{output: b}, 2]", "output"),
            ("[[{output: b.energy}]]", "output"),
            ("[{x: {output: other/job}}]", "output"),
            ("[{call: m.f, args: [1]}]", "call"),
            ("[{maker: {class: m.M}}]", "maker"),
            ("[{path: lib/jm.py}]", "path"),
        ],
    )
    def test_a_directive_without_its_dollar(self, campaign: Campaign, args: str, directive: str) -> None:
        self._flow(campaign, f"args: {args}")
        loaded = campaign.load()
        (problem,) = loaded.state.diagnostics
        assert (problem.code, problem.severity) == ("value/missing-dollar", Severity.WARNING)
        assert problem.hint == f"if you mean the directive, write '${directive}'"
        assert str(problem.location).startswith("flows/two.yaml:8:")
        assert "two" in loaded.state.flows

    @pytest.mark.parametrize(
        "arguments",
        [
            "args: [{output: zebra}]",
            "args: [{output: b, more: 1}]",
            "args: [{output: 5}]",
            "args: [{call: 12}]",
            "args: [{path: nowhere.txt}]",
            "kwargs: {output: b}",
            "kwargs: {path: lib/jm.py}",
        ],
    )
    def test_plain_data_that_only_looks_alike(self, campaign: Campaign, arguments: str) -> None:
        self._flow(campaign, arguments)
        assert campaign.load().state.diagnostics == []

    def _flow(self, campaign: Campaign, arguments: str) -> None:
        head = "apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: two}\nspec:\n  jobs:\n"
        first = f"    - id: a\n      function: m.f\n      {arguments}\n"
        campaign.repository.write("flows/two.yaml", f"{head}{first}    - id: b\n      function: m.f\n")

    @pytest.mark.parametrize(
        ("folder", "hint"), [("flow", "did you mean 'flows'?"), ("zebra", "known: flows, lib, more")]
    )
    def test_a_manifest_directory_that_does_not_exist(
        self, campaign: Campaign, folder: str, hint: str
    ) -> None:
        campaign.project(f"manifests: [flows, {folder}, rules]")
        (problem,) = campaign.load().state.diagnostics
        assert (problem.code, problem.severity) == ("reference/unknown-directory", Severity.WARNING)
        assert str(problem.location).startswith("reconciler.yaml:4:")
        assert f"'{folder}'" in problem.message
        assert problem.hint == hint

    def test_a_second_file_of_the_project(self, campaign: Campaign) -> None:
        text = (campaign.repository.path / "reconciler.yaml").read_text()
        campaign.repository.write("reconciler.yml", text.replace("name: p", "name: other"))
        loaded = campaign.load()
        (problem,) = loaded.state.diagnostics
        assert (problem.code, str(problem.location)) == (
            "manifest/second-project-file",
            "reconciler.yml:1:1",
        )
        assert loaded.state.project_name == "p"

    def test_a_project_file_that_is_a_symlink(self, campaign: Campaign) -> None:
        (campaign.repository.path / "reconciler.yaml").rename(campaign.repository.path / "p.yaml")
        (campaign.repository.path / "reconciler.yaml").symlink_to("p.yaml")
        with pytest.raises(InputError, match="is a symlink, not a file"):
            campaign.load()

    def test_a_file_name_that_is_not_utf8(self, campaign: Campaign) -> None:
        campaign.flow("odd", "function: m.f")
        odd = campaign.repository.path / "flows" / "odd.yaml"
        odd.rename(os.fsdecode(b"%s/caf\xe9.yaml" % os.fsencode(odd.parent)))
        state = campaign.load().state
        assert state.diagnostics == []
        assert state.flows["odd"].manifest.file == "flows/caf\\xe9.yaml"
        msgspec.msgpack.encode(state.flows["odd"].manifest)


WORKER = "apiVersion: reconciler/v1\nkind: Worker\nmetadata: {name: hpc}\nspec:\n"


@pytest.mark.parametrize(
    ("worker", "message", "hint"),
    [
        (
            f"{WORKER}  type: local\n",
            "Worker 'hpc' cannot be used: its document is invalid: workers/w.yaml:4:1",
            "correct that document first",
        ),
        (
            f"{WORKER}  type: [\n",
            "there is no Worker named 'hpc'",
            "it may be defined in a file that has errors: workers/w.yaml cannot be read",
        ),
        (
            f"{WORKER}  type: local\n---\n{WORKER}  type: local\n",
            "Worker 'hpc' cannot be used: 2 documents have this kind and name",
            "correct that document first",
        ),
        ("", "there is no Worker named 'hpc'", "there is no Worker in this revision; add one"),
    ],
)
def test_a_worker_whose_own_document_is_wrong(
    campaign: Campaign, worker: str, message: str, hint: str
) -> None:
    campaign.project("defaults: {worker: hpc}, python_path: [lib]")
    campaign.repository.write("workers/w.yaml", worker)
    state = campaign.load().state
    setting = state.project_layer["worker"]
    (problem,) = check_name(state, "worker", setting)
    assert (problem.message, problem.hint) == (message, hint)
