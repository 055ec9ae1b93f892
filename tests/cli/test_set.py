"""``reconcile set``: one commit of one file, after which the jobs have the value; or nothing at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.store import Store
from reconciler.cli.edit.command import NumberCommand
from reconciler.cli.edit.command import command as set_group
from reconciler.cli.main import main
from reconciler.desired.yaml.reader import read_documents
from reconciler.model.records import GeneratedBy
from tests.support import ROOT, Repository

PROJECT = """\
apiVersion: reconciler/v1
kind: Project
metadata: {name: settings}
spec:
  defaults: {worker: w1}
---
apiVersion: reconciler/v1
kind: Worker
metadata: {name: w1}
spec: {type: local, scheduler_type: shell, work_dir: /nowhere/w1}
---
apiVersion: reconciler/v1
kind: Worker
metadata: {name: w2}
spec: {type: local, scheduler_type: shell, work_dir: /nowhere/w2}
---
apiVersion: reconciler/v1
kind: ExecConfig
metadata: {name: threads}
spec: {export: {OMP_NUM_THREADS: "1"}}
"""

FLOW = """\
# Flow {name}
apiVersion: reconciler/v1
kind: Flow
metadata:
  name: {name}
  labels: {{metal: {metal}}}   # a label
spec:
  jobs:
    - {{id: relax, function: reconciler.examples.value, args: [1]}}
    - id: big   # the id is not the name
      name: relax big
      function: reconciler.examples.value
      args: [2]
    - {{id: fit, function: reconciler.examples.add, args: [{{$output: relax}}, 2], priority: 5}}
"""

RULE = """\
# Relaxations first.

apiVersion: reconciler/v1
kind: OverrideRule
metadata: {name: by-hand}
spec:
  flows:   [ "eos-*" ]   # all metals
  name_glob: 'relax*'
  set:
    priority: 3      # more than the fits
    # nothing of workers here
# The end.
"""

FACTORY = """\
apiVersion: reconciler/v1
kind: Flow
metadata: {name: made}
spec: {factory: {function: campaign.flows.make}}
"""

Terminal = Callable[..., "Done"]


class Done(msgspec.Struct):
    """How a run of the program ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def repository(repository: Repository) -> Repository:
    repository.write("reconciler.yaml", PROJECT)
    for name, metal in (("eos-al", "Al"), ("eos-cu", "Cu"), ("other", "Cu")):
        repository.write(f"flows/{name}.yaml", FLOW.format(name=name, metal=metal))
    repository.commit("start")
    return repository


@pytest.fixture
def reconcile(
    repository: Repository,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Terminal:
    """Run the program in this process: that is many times faster than a new one."""

    def run(*arguments: str, cwd: Path = repository.path) -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr("sys.argv", ["reconcile", "--state-dir", str(state_dir), *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capfd.readouterr()
        return Done(int(caught.value.code or 0), captured.out, captured.err)

    return run


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def last_diff(repository: Repository) -> list[str]:
    """Return the changed lines of the last commit, which has one hunk."""
    lines = repository.run("diff", "HEAD^", "HEAD").splitlines()
    assert sum(line.startswith("@@") for line in lines) == 1, lines
    return [line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]


def rules(repository: Repository, file: str = "rules/set.yaml") -> list[dict[str, Any]]:
    """Return metadata.name and spec of the rules of a file of HEAD."""
    result = read_documents(repository.run("show", f"HEAD:{file}").encode())
    return [
        {"name": found.content["metadata"]["name"], **found.content["spec"]} for found in result.documents
    ]


def state(repository: Repository) -> tuple[str, str, str]:
    return repository.head, repository.run("status", "--porcelain"), repository.run("ls-files", "--stage")


class TestEdits:
    def test_a_new_rule_and_then_the_same_rule_again(
        self, repository: Repository, reconcile: Terminal
    ) -> None:
        done = ok(reconcile("set", "priority", "eos-*/relax*", "10", "-m", "Relaxations first"))
        assert repository.run("log", "-1", "--format=%s|%an") == "Relaxations first|Ada Tester"
        assert rules(repository) == [
            {
                "name": "set-eos-relax",
                "order": 100,
                "flows": ["eos-*"],
                "name_glob": "relax*",
                "set": {"priority": 10},
            }
        ]
        assert f"committed main@{repository.head[:7]}: Relaxations first  (rules/set.yaml)\n" in done.out
        assert "with this change: 4 jobs to submit" in done.out
        assert "eos-al/fit" not in done.out, "the edit does not touch it"
        note = "is not applied yet; this leaves out 8 changes of its own: see `reconcile plan`"
        assert note in done.err
        assert "eos-*/relax*: 4 jobs of 2 flows" in done.err
        ok(reconcile("set", "priority", "eos-*/relax*", "-3"))
        assert last_diff(repository) == ["-    priority: 10", "+    priority: -3"]
        assert repository.run("log", "-1", "--format=%s") == "set priority -3 for eos-*/relax*"
        ok(reconcile("set", "worker", "eos-*/relax*", "w2"))
        assert last_diff(repository) == ["+    worker: w2"]
        assert ok(reconcile("get", "rules", "-o", "name")).out == "set-eos-relax\n"

    def test_a_rule_of_the_user_with_the_same_selector_is_edited(
        self, repository: Repository, reconcile: Terminal
    ) -> None:
        repository.write("rules/mine.yaml", RULE.replace("\n", "\r\n"))
        repository.commit("my rule")
        ok(reconcile("set", "priority", "eos-*/relax*", "10"))
        ok(reconcile("set", "exec-config", "eos-*/relax*", "threads"))
        expected = RULE.replace("priority: 3  ", "priority: 10  ").replace(
            "fits\n", "fits\n    exec_config: threads\n"
        )
        assert (repository.path / "rules/mine.yaml").read_bytes() == expected.replace("\n", "\r\n").encode()
        assert not (repository.path / "rules/set.yaml").exists()

    def test_other_selectors_get_documents_of_their_own(
        self, repository: Repository, reconcile: Terminal
    ) -> None:
        for arguments in (
            ["priority", "*", "1"],
            ["priority", "*/*", "2"],
            ["worker", "eos-al", "w2", "--label", "metal=Al"],
            ["worker", "label:metal=Cu", "w1"],
            ["worker", "*/relax", "label:metal=Cu", "w1"],
            ["resources", "*/fit", "{}", "--function", "reconciler.examples.add"],
            ["priority", "eos-?l/fit", "--", "-1"],
            ["priority", "eos-*l/fit", "-1", "-m", "-2"],
        ):
            ok(reconcile("set", *arguments))
        function = "reconciler.examples.add"
        expected: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            ("set-all", {}, {"priority": 2}),
            ("set-eos-al-Al", {"flows": ["eos-al"], "labels": {"metal": "Al"}}, {"worker": "w2"}),
            ("set-Cu", {"labels": {"metal": "Cu"}}, {"worker": "w1"}),
            ("set-Cu-relax", {"labels": {"metal": "Cu"}, "name_glob": "relax"}, {"worker": "w1"}),
            ("set-fit-add", {"name_glob": "fit", "function_filter": function}, {"resources": {}}),
            ("set-eos-l-fit", {"flows": ["eos-?l"], "name_glob": "fit"}, {"priority": -1}),
            ("set-eos-l-fit-2", {"flows": ["eos-*l"], "name_glob": "fit"}, {"priority": -1}),
        ]
        assert rules(repository) == [
            {"name": name, "order": 100, **selector, "set": values} for name, selector, values in expected
        ]
        assert repository.run("log", "-1", "--format=%s") == "-2"

    def test_a_later_rule_is_beaten_by_its_order(self, repository: Repository, reconcile: Terminal) -> None:
        repository.write("rules/mine.yaml", RULE)
        later = (
            RULE.replace("by-hand", "later")
            .replace("priority: 3", "priority: 4")
            .replace("spec:\n", "spec:\n  order: 150\n")
        )
        repository.write("rules/zz.yaml", later.replace("'relax*'", "'* big'"))
        repository.commit("two rules")
        ok(reconcile("set", "priority", "eos-*/relax*", "10"))
        (rule,) = rules(repository)
        assert (rule["order"], rule["set"]) == (151, {"priority": 10})
        ok(reconcile("set", "priority", "eos-*/relax*", "11"))
        assert last_diff(repository) == ["-    priority: 10", "+    priority: 11"]
        # Of workers nobody else says anything: the first rule with this selector will do.
        ok(reconcile("set", "worker", "eos-*/relax*", "w2"))
        assert repository.run("diff", "--name-only", "HEAD^", "HEAD") == "rules/set.yaml"

    def test_a_rule_that_stands_behind_in_the_order_is_no_obstacle(
        self, repository: Repository, reconcile: Terminal
    ) -> None:
        repository.write(
            "rules/zz.yaml", RULE.replace("spec:\n", "spec:\n  order: -5\n").replace("relax*", "relax")
        )
        repository.commit("a weak rule")
        ok(reconcile("set", "priority", "eos-al/relax", "10"))
        assert rules(repository)[0]["order"] == 100

    def test_resources_in_both_forms(self, repository: Repository, reconcile: Terminal) -> None:
        repository.write("workers/slurm.yaml", PROJECT.split("---\n")[1].replace("w1", "w3"))
        repository.write("rules/mine.yaml", RULE.replace("priority: 3", "resources: {}"))
        repository.commit("resources")
        ok(reconcile("set", "qresources", "eos-*/relax*", "{}"))
        assert last_diff(repository) == [
            "-    resources: {}      # more than the fits",
            "+    qresources: {}",
        ]

    def test_an_exec_config_in_place(self, repository: Repository, reconcile: Terminal) -> None:
        value = '{modules: [vasp/6.4], export: {A: "1", B: on}, pre_run: "a\\nb"}'
        ok(reconcile("set", "exec-config", "other", value))
        (rule,) = rules(repository)
        export = {"A": "1", "B": "on"}
        assert rule["set"] == {"exec_config": {"modules": ["vasp/6.4"], "export": export, "pre_run": "a\nb"}}
        ok(reconcile("set", "exec-config", "other", "{}"))
        assert rules(repository)[0]["set"] == {"exec_config": {}}

    def test_in_the_folder_of_rules_that_the_project_names(
        self, repository: Repository, reconcile: Terminal
    ) -> None:
        manifests = "spec:\n  manifests: [flows, my-rules/]\n"
        repository.write("reconciler.yaml", PROJECT.replace("spec:\n", manifests, 1))
        repository.commit("folders")
        ok(reconcile("set", "priority", "other", "1"))
        assert repository.run("diff", "--name-only", "HEAD^", "HEAD") == "my-rules/set.yaml"

    def test_a_project_below_the_root(self, repository: Repository, reconcile: Terminal) -> None:
        (repository.path / "sub").mkdir()
        repository.run("mv", "flows", "reconciler.yaml", "sub")
        repository.commit("moved")
        ok(reconcile("set", "priority", "other", "1", "--path", "sub"))
        ok(reconcile("set", "priority", "other", "2", cwd=repository.path / "sub"))
        assert rules(repository, "sub/rules/set.yaml")[0]["set"] == {"priority": 2}

    def test_the_plan_in_other_forms(self, repository: Repository, reconcile: Terminal) -> None:
        done = ok(reconcile("set", "priority", "other", "1", "-o", "json"))
        assert json.loads(done.out)["summary"]["Submit"] == 3, "of the edit alone"
        assert f"committed main@{repository.head[:7]}" in done.err
        assert "other/relax" in ok(reconcile("set", "priority", "other", "2", "-o", "name")).out.split()


class TestRefusedEdits:
    def refused(self, repository: Repository, done: Done, code: int, *words: str) -> None:
        assert done.code == code
        assert done.out == ""
        assert all(word in done.err for word in words), done.err
        assert repository.run("status", "--porcelain") == ""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ("priority|eso-al|1", ["selects no job", "no flow is named 'eso-al'", "eos-al"]),
            (
                "priority|eos-*/Relax*|1",
                ["name_glob 'Relax*' matches nothing", "'relax*' would match 4 jobs"],
            ),
            ("priority|eos-*/big|1", ["not its id: eos-al/big is named 'relax big'"]),
            ("priority|*|1|--label|metal=Fe", ["no flow has the label metal: Fe"]),
            ("priority|*|1|--function|reconciler.examples.ad", ["no job's function", "examples.add"]),
            ("worker|other|w3", ["no Worker named 'w3'", "rules/set.yaml:10:13", "nothing was written"]),
            ("exec-config|other|thread", ["did you mean 'threads'?", "nothing was written"]),
            ("exec-config|other|{export: {A: 1}}", ["rules/set.yaml", "string", "nothing was written"]),
            ("resources|other|{nodes: 2}", ["worker 'w1' runs jobs in a plain shell", "nothing was written"]),
            ("resources|other|nodes", ["is not a YAML mapping"]),
            ("resources|other|{nodes: 2", ["is not a YAML mapping", "not closed"]),
            ("priority|other|1.5", ["is not a priority"]),
            ("priority|other|-1.5", ["there is no option '-1'"]),
            ("priority|other|99999999999999999999", ["does not fit into 64 bits"]),
            ("worker|other|w\0", ["no rule can be added", "not a character"]),
            ("priority|other/|1", ["a part of it is empty"]),
            ("priority|other|1|--label|metal", ["is not a label"]),
            ("priority|other|state:FAILED|1", ["a rule selects jobs by names and labels only"]),
            ("priority|flowset:s|1", ["a rule selects jobs by names and labels only"]),
            ("priority|other|eos-al|1", ["give one name, not 2"]),
            ("priority|label:metal=Al,Cu|1", ["give one value of the label 'metal'"]),
            ("priority|other|1|-m| ", ["the commit message is empty"]),
            ("priority|other|1|--push", ["does not have an upstream"]),
            ("suspend|eos-all|on", ["there is no flow 'eos-all'", "did you mean 'eos-al'?"]),
            ("suspend|eos-al|off|--reason|x", ["--reason requires `on`"]),
            ("suspend|eos-al|maybe", ["'maybe' is not one of"]),
        ],
    )
    def test_mistakes(
        self, repository: Repository, reconcile: Terminal, arguments: str, words: list[str]
    ) -> None:
        before = state(repository)
        self.refused(repository, reconcile("set", *arguments.split("|")), 2, *words)
        assert state(repository) == before

    def test_the_value_is_there_already(self, repository: Repository, reconcile: Terminal) -> None:
        ok(reconcile("set", "priority", "eos-*/relax*", "10"))
        before = state(repository)
        self.refused(
            repository,
            reconcile("set", "priority", "eos-*/relax*", "10"),
            0,
            "nothing to change: rule 'set-eos-relax' (rules/set.yaml:11:5) sets it already",
        )
        assert state(repository) == before
        # That the jobs have the value by another rule is another thing: that rule may go.
        ok(reconcile("set", "priority", "eos-al/relax", "10"))

    def test_a_dry_run_prints_the_diff_and_nothing_else(
        self, repository: Repository, reconcile: Terminal
    ) -> None:
        before = state(repository)
        for arguments in (["priority", "other", "1"], ["suspend", "other", "on", "--reason", "full"]):
            done = ok(reconcile("set", *arguments, "--dry-run"))
            assert done.out.startswith("diff --git a/")
            assert state(repository) == before
            checked = subprocess.run(
                ["git", "apply", "--check"], input=done.out, text=True, cwd=repository.path
            )
            assert checked.returncode == 0

    def test_a_dirty_file(self, repository: Repository, reconcile: Terminal) -> None:
        ok(reconcile("set", "priority", "other", "1"))
        file = repository.path / "rules/set.yaml"
        file.write_text(file.read_text() + "# mine\n")
        before = repository.head
        for more in ([], ["--dry-run"]):
            done = reconcile("set", "priority", "other", "2", *more)
            assert (done.code, done.out) == (4, "")
            assert "rules/set.yaml has uncommitted changes" in done.err
        assert repository.head == before
        assert file.read_text().endswith("# mine\n")

    def test_a_detached_head_and_an_unborn_one(
        self, repository: Repository, reconcile: Terminal, make_repository: Callable[[str], Repository]
    ) -> None:
        repository.run("checkout", "-q", "--detach")
        self.refused(
            repository, reconcile("set", "priority", "other", "1"), 4, "HEAD is detached", "git switch"
        )
        empty = make_repository("empty")
        done = reconcile("set", "priority", "other", "1", cwd=empty.path)
        assert done.code == 2
        assert "does not have a commit yet" in done.err

    def test_a_hook_that_refuses(self, repository: Repository, reconcile: Terminal) -> None:
        repository.write(".git/hooks/pre-commit", "#!/bin/sh\necho not today >&2; exit 1\n").chmod(0o755)
        before = state(repository)
        done = reconcile("set", "priority", "other", "1")
        assert done.code == 3
        assert "git commit failed: not today" in done.err
        assert "committed" not in done.out
        assert state(repository) == before
        assert not (repository.path / "rules").exists()

    def test_a_file_that_no_rule_can_be_added_to(self, repository: Repository, reconcile: Terminal) -> None:
        repository.write("rules/set.yaml", "a: [1\n")
        repository.commit("broken")
        self.refused(
            repository,
            reconcile("set", "priority", "other", "1"),
            2,
            "no rule can be added to rules/set.yaml",
        )

    def test_problems_that_head_has_are_no_obstacle(
        self, repository: Repository, reconcile: Terminal
    ) -> None:
        repository.write("flows/other.yaml", FLOW.format(name="other", metal="Cu") + "  worker: w9\n")
        repository.write("flows/eos-cu.yaml", "kind: Flow\nmetadata: {name: eos-cu}\n")
        repository.commit("two broken flows")
        ok(reconcile("set", "priority", "eos-al/relax", "1"))
        self.refused(repository, reconcile("set", "suspend", "eos-cu", "on"), 2, "flow 'eos-cu' is invalid")


class TestSuspend:
    def test_on_and_off(self, repository: Repository, reconcile: Terminal) -> None:
        ok(reconcile("set", "suspend", "eos-al", "on", "--reason", "disk full: #1"))
        assert last_diff(repository) == ["+  suspend: true", '+  suspend_reason: "disk full: #1"']
        assert repository.run("log", "-1", "--format=%s") == "set suspend on for eos-al: disk full: #1"
        done = ok(reconcile("set", "suspend", "eos-al", "on"))
        assert (done.out, done.err) == ("", "nothing to change: 'eos-al' is suspended already\n")
        ok(reconcile("set", "suspend", "eos-al", "on", "--reason", "no power"))
        assert last_diff(repository) == ['-  suspend_reason: "disk full: #1"', "+  suspend_reason: no power"]
        ok(reconcile("set", "suspend", "eos-al", "off"))
        assert last_diff(repository) == [
            "-  suspend: true",
            "-  suspend_reason: no power",
            "+  suspend: false",
        ]
        assert (
            ok(reconcile("set", "suspend", "eos-al", "off")).err
            == "nothing to change: 'eos-al' is not suspended\n"
        )

    def test_the_document_is_found_among_others(self, repository: Repository, reconcile: Terminal) -> None:
        second = FLOW.format(name="third", metal="Ni").replace(
            "spec:\n", "spec:\n  suspend: true   # for now\n"
        )
        text = FLOW.format(name="second", metal="Ni") + "---\n# nothing\n---\n" + second + "...\n"
        repository.write("flows/more.yaml", text)
        repository.commit("more flows")
        ok(reconcile("set", "suspend", "third", "off"))
        assert last_diff(repository) == ["-  suspend: true   # for now", "+  suspend: false   # for now"]


def test_commit_is_made_although_the_pipe_is_closed(repository: Repository, state_dir: Path) -> None:
    arguments = ["--state-dir", str(state_dir), "set", "priority", "other", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "reconciler", *arguments], cwd=repository.path, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 0
    assert rules(repository)[0]["set"] == {"priority": 1}


def test_push(repository: Repository, reconcile: Terminal, tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    repository.run("clone", "-q", "--bare", ".", str(remote))
    repository.run("remote", "add", "origin", str(remote))
    repository.run("push", "-q", "--set-upstream", "origin", "main")
    done = ok(reconcile("set", "priority", "other", "1", "--push"))
    assert "pushed main to origin/main" in done.err
    assert repository.run("ls-remote", str(remote), "refs/heads/main").split()[0] == repository.head
    shutil.rmtree(remote)
    done = reconcile("set", "priority", "other", "2", "--push")
    assert done.code == 3
    assert f"main@{repository.head[:7]} is committed, but not pushed" in done.err
    assert rules(repository)[0]["set"] == {"priority": 2}


@pytest.mark.parametrize(
    "arguments",
    [("priority", "other", "1"), ("suspend", "eos-al", "on"), ("retries", "other", "{limit: 1}")],
    ids=" ".join,
)
def test_repeated_after_a_push_that_failed(
    repository: Repository, reconcile: Terminal, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The remote is ahead: the push fails, the user rebases and repeats the command, which then pushes."""
    remote, other = tmp_path / "remote.git", tmp_path / "other"
    repository.run("clone", "-q", "--bare", ".", str(remote))
    repository.run("remote", "add", "origin", str(remote))
    repository.run("push", "-q", "--set-upstream", "origin", "main")
    repository.run("clone", "-q", str(remote), str(other))
    repository.run("-C", str(other), "commit", "-q", "--allow-empty", "-m", "ahead")
    repository.run("-C", str(other), "push", "-q")
    done = reconcile("set", *arguments, "--push")
    assert (done.code, "repeat this command" in done.err) == (3, True)
    repository.run("pull", "-q", "--rebase")
    ok(reconcile("set", *arguments, "--push", "--dry-run"))
    assert repository.run("ls-remote", str(remote), "refs/heads/main").split()[0] != repository.head
    done = ok(reconcile("set", *arguments, "--push"))
    assert "nothing to change" in done.err and "pushed main to origin/main" in done.err
    assert repository.run("ls-remote", str(remote), "refs/heads/main").split()[0] == repository.head
    assert "nothing to change" in ok(reconcile("set", *arguments)).err


def test_jobs_that_exist(repository: Repository, reconcile: Terminal, state_dir: Path) -> None:
    """On a store with submitted jobs, a generated one, and a flow that only its code knows."""
    repository.write("flows/made.yaml", FACTORY)
    repository.write(
        "lib/campaign/flows.py",
        """from jobflow import Flow
from reconciler.examples import value


def make():
    job = value(1)
    job.name = "relax made"
    return Flow([job])
""",
    )
    repository.write("reconciler.yaml", PROJECT.replace("spec:\n", "spec:\n  python_path: [lib]\n", 1))
    repository.commit("a flow of code")
    done = ok(reconcile("set", "priority", "made/Relax*", "1", "--dry-run"))
    assert "the selector matches no known job yet" in done.err
    assert "not built yet, so their jobs are unknown; the rule applies to them too: made" in done.err
    slip = reconcile("set", "priority", "*/relx*", "1")
    assert slip.code == 2, "some job of the flow that is not built may have that name, but most likely not"
    assert "did you mean 'relax'? To build made first, run `reconcile --once`" in slip.err
    for name in ("eos-al", "made"):  # suspended: no job runs
        ok(reconcile("set", "suspend", name, "on", "--reason", "a test"))
    for name in ("eos-cu", "other"):
        repository.remove(f"flows/{name}.yaml")
    repository.commit("fewer flows")
    ok(reconcile("--once"))
    add_generated(state_dir)
    done = reconcile("set", "priority", "made/Relax*", "1")
    assert done.code == 2
    assert "'relax*' would match 1 job" in done.err
    done = ok(reconcile("set", "priority", "*/relax*", "10"))
    assert "*/relax*: 4 jobs of 2 flows" in done.err
    assert "not built" not in done.err
    assert "with this change: 4 jobs to patch\n" in done.out
    assert "not applied yet" not in done.err
    done = ok(reconcile("set", "suspend", "eos-al", "off"))
    assert "with this change: 1 flow to patch\n" in done.out
    assert "this leaves out 4 changes of its own" in done.err
    done = ok(reconcile("set", "suspend", "eos-al", "on", "--reason", "a test"))
    assert "this takes back 1: eos-al" in done.err
    assert " to patch" not in done.out
    ok(reconcile("--once"))
    found = json.loads(ok(reconcile("get", "jobs", "-o", "json")).out)
    assert {job["key"]: job["priority"] for job in found} == {
        "eos-al/relax": 10, "eos-al/big": 10, "eos-al/fit": 5, "eos-al/relax 2": 10, "made/relax made": 10,
    }  # fmt: skip
    flow = json.loads(ok(reconcile("describe", "flow", "eos-al", "-o", "json")).out)
    assert (flow["health"], flow["reason"]) == ("Suspended", "suspended: a test")
    ok(reconcile("set", "suspend", "eos-al", "on", "--reason", "still a test"))
    assert "suspend_reason: a test -> still a test" in ok(reconcile("plan")).out
    ok(reconcile("--once"))
    assert "suspended: still a test" in ok(reconcile("get", "flows")).out
    assert "no changes" in ok(reconcile("plan")).out


def add_generated(state_dir: Path) -> None:
    """Put a job into the store as eos-al/relax would have generated it."""
    store = Store(state_dir)
    try:
        with store.read() as view:
            (parent,) = (job for job in view.jobs_of("eos-al") if job.key == "relax")
        child = msgspec.structs.replace(
            parent,
            uuid="0" * 36,
            key="relax 2",
            name="relax 2",
            generated_by=GeneratedBy(uuid=parent.uuid),
            sequence=99,
        )
        store.write(lambda writer: writer.put_job(child))
    finally:
        store.close()


def test_the_example_repository(make_repository: Callable[[str], Repository], reconcile: Terminal) -> None:
    example = make_repository("example")
    shutil.copytree(ROOT / "example-repo", example.path, dirs_exist_ok=True)
    example.commit("the example")
    for priority in (10, 12):
        ok(
            reconcile(
                "set", "priority", "eos-*/relax*", str(priority), "-m", "Relaxations first", cwd=example.path
            )
        )
    assert last_diff(example) == ["-    priority: 10", "+    priority: 12"]
    ok(reconcile("set", "suspend", "eos-al", "on", cwd=example.path))
    assert last_diff(example) == ["+  suspend: true"]


def test_every_verb_takes_what_the_others_take() -> None:
    assert set(set_group.commands) == {
        "worker",
        "exec-config",
        "resources",
        "qresources",
        "priority",
        "retries",
        "suspend",
    }
    for name, verb in set_group.commands.items():
        names = {option for parameter in verb.params for option in parameter.opts}
        assert {"-m", "--message", "--push", "--dry-run", "--repo", "--path"} <= names
        assert isinstance(verb, NumberCommand) == (name != "suspend")
