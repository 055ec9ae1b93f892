"""Broken repositories, each as a user would commit it: the real program on a real git repository.

For every mistake: its diagnostic with file, line and column, the exit code, no traceback; the flow beside it
runs; and once a commit repairs the mistake everything converges and nothing has run twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.broken import Campaign, flow, job
from tests.support import Reconcile, Repository

pytestmark = pytest.mark.usefixtures("warm")

FACTORIES = """\
import os, sys, time

from jobflow import Flow, Job

import tally

number = 1

def good():
    return Flow([Job(tally.tally, function_args=("broken",), name="job")])

def raising():
    raise ValueError("no structure\\nhere")

def leaving():
    sys.exit(3)

def dying():
    os._exit(7)

def endless():
    while True:
        time.sleep(0.01)

def noisy():
    print("x" * 200_000)
    os.write(1, b"no answer\\n" * 10_000)
    raise KeyError("after much noise")

def wrong_kind():
    return 42
"""


REPAIRED: Mapping[str, str | None] = {"flows/broken.yaml": flow("broken")}


class Mistake(NamedTuple):
    """What is committed, and what the program must say of it."""

    name: str
    files: dict[str, str | bytes]
    code: str
    place: str
    repaired: Mapping[str, str | None] = REPAIRED
    """The files of the commit that puts it right; None removes one."""
    then_ran: tuple[str, ...] = ("broken",)


def broken(name: str, text: str | bytes, code: str, place: str) -> Mistake:
    return Mistake(name, {"flows/broken.yaml": text}, code, f"flows/broken.yaml:{place}")


def using(value: str) -> str:
    """Return a flow whose job takes a value, which begins at 9:22."""
    return flow("broken", job(f"kwargs: {{after: {value}}}"))


BOMB = flow("broken", "  jobs: []\n") + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'lol'}]\n" for n in range(9)
)

MISTAKES = [
    Mistake(
        "duplicate names",
        {"flows/broken.yaml": flow("broken"), "flows/other.yaml": flow("broken")},
        "manifest/duplicate",
        "flows/other.yaml:3:18",
        {"flows/other.yaml": None},
    ),
    broken("unknown worker", flow("broken", "  worker: w9\n" + job("")), "reference/unknown-worker", "5:11"),
    broken(
        "cycle",
        flow("broken", "  jobs:\n    - {id: a, function: tally.tally, args: [a, {$output: b}]}\n"
             "    - {id: b, function: tally.tally, args: [b, {$output: a}]}\n"),
        "flow/cycle",
        "6:58",
    ),
    broken("bad reference", using("{$output: jib.x}"), "flow/unknown-job", "9:33"),
    broken("tab", flow("broken", "  jobs:\n\t- {id: job}\n"), "yaml/tab", "6:1"),
    broken("alias bomb", BOMB, "yaml/anchor", "6:5"),
    broken("30 KB of brackets", flow("broken", "  jobs: ") + "[" * 30_000, "yaml/too-deep", "5:71"),
    broken(
        "@module in kwargs",
        flow("broken", job("kwargs: {after: {'@module': os, '@callable': getcwd}}")),
        "yaml/at-key",
        "9:24",
    ),
    broken(
        "unknown resource keyword",
        flow("broken", "  resources: {ndoes: 1}\n" + job("")),
        "resources/unknown-keyword",
        "5:15",
    ),
    broken(
        "shell worker with resources",
        flow("broken", "  resources: {nodes: 1}\n" + job("")),
        "resources/shell-worker",
        "5:14",
    ),
    Mistake(
        "cycle of flows",
        {
            "flows/broken.yaml": flow("broken", job("kwargs: {after: {$output: other/job}}")),
            "flows/other.yaml": flow("other", job("kwargs: {after: {$output: broken/job}}")),
        },
        "flow/cycle-of-flows",
        "flows/broken.yaml:3:18",
        {"flows/broken.yaml": flow("broken"), "flows/other.yaml": None},
    ),
    Mistake(
        "no code directory",
        {"reconciler.yaml": "  python_path: [lib, libb]\n"},
        "reference/unknown-directory",
        "reconciler.yaml:11:22",
        {"reconciler.yaml": ""},
        (),
    ),
]  # fmt: skip


MORE_MISTAKES = [
    broken("not UTF-8", flow("broken").encode() + b"# caf\xe9\n", "yaml/not-utf8", "6:6"),
    broken("NUL bytes", flow("broken").encode() + b"\0\0", "yaml/control-character", "6:1"),
    broken("duplicate key", flow("broken", job("args: [x]")), "yaml/duplicate-key", "9:7"),
    broken("unknown field", flow("broken", "  wroker: w1\n" + job("")), "schema/unknown-field", "5:3"),
    broken("unknown kind", flow("broken").replace("Flow", "Flwo"), "manifest/kind", "2:7"),
    broken("no manifest", "a: 1\nb: 2\n", "manifest/kind", "1:1"),
    broken("no file", using("{$path: data/no.cif}"), "reference/unknown-file", "9:31"),
    broken("path that leaves", using("{$path: ../x}"), "value/path", "9:31"),
    broken("no flow", using("{$output: besid/job}"), "reference/unknown-flow", "9:33"),
    broken("no job", using("{$output: beside/jib}"), "reference/unknown-job", "9:33"),
]


@pytest.fixture
def campaign(repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Campaign:
    return Campaign(repository, reconcile, tmp_path / "work")


def write(campaign: Campaign, files: Mapping[str, Any]) -> None:
    for path, content in files.items():
        if path == "reconciler.yaml":
            campaign.write_project(content)
        elif content is None:
            campaign.repository.remove(path)
        else:
            campaign.repository.write(path, content)


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_mistake(campaign: Campaign, mistake: Mistake) -> None:
    write(campaign, mistake.files)
    campaign.repository.commit()
    done = campaign.once()
    assert (done.returncode, campaign.states()) == (2, {"beside/job": "COMPLETED"}), done.stderr
    assert f"error[{mistake.code}]: " in done.stderr
    assert f"--> {mistake.place}\n" in done.stderr, done.stderr
    assert campaign.run("validate").returncode == 2
    write(campaign, mistake.repaired)
    campaign.repository.commit()
    campaign.assert_converged("beside", *mistake.then_ran)


def test_many_mistakes_at_once(campaign: Campaign) -> None:
    """All of them are told together, each file blocks only itself, and one commit puts all right."""
    files = [f"flows/broken-{number}.yaml" for number in range(len(MORE_MISTAKES))]
    for number, (file, mistake) in enumerate(zip(files, MORE_MISTAKES, strict=True)):
        campaign.repository.write(file, renamed(mistake.files["flows/broken.yaml"], f"broken-{number}"))
    campaign.repository.commit()
    done = campaign.once()
    assert (done.returncode, campaign.states()) == (2, {"beside/job": "COMPLETED"}), done.stderr
    for file, mistake in zip(files, MORE_MISTAKES, strict=True):
        place = mistake.place.replace("flows/broken.yaml", file)
        found = re.search(rf"error\[{mistake.code}\]: [^\n]+\n +--> {re.escape(place)}\n", done.stderr)
        assert found, f"{mistake.name}: {mistake.code} at {place} is not in\n{done.stderr}"
    for number, file in enumerate(files):
        campaign.repository.write(file, flow(f"broken-{number}"))
    campaign.repository.commit()
    campaign.assert_converged("beside", *(f"broken-{number}" for number in range(len(files))))


def renamed(text: str | bytes, name: str) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return data.replace(b"name: broken}", f"name: {name}}}".encode())


# The first never ends: what a fresh process needs to start is no time of the flow, nor added to it.
FAILED_BUILDS = [
    ("factories.endless", "6:5", "longer than 5 s"),
    ("no_module.make", "6:15", "No module named 'no_module'"),
    ("factories.god", "6:15", "factories"),
    ("wrong_code.make", "6:15", "SyntaxError"),
    ("factories.number", "6:15", "factories.number"),
    ("factories.raising", "6:5", "ValueError: no structure\n  here"),
    ("factories.leaving", "6:5", "ended with exit code 3"),
    ("factories.dying", "6:5", "ended with exit code 7"),
    ("factories.noisy", "6:5", "after much noise"),
    ("factories.wrong_kind", "6:15", "not a Flow or a Job"),
]


def test_flows_that_cannot_be_built(campaign: Campaign) -> None:
    """Whatever the code of a flow does to the process that builds it, the next flow is built."""
    campaign.write_project("  python_path: [lib]\n  build_timeout: 5\n")
    campaign.repository.write("lib/factories.py", FACTORIES)
    campaign.repository.write("lib/wrong_code.py", "def make(:\n")
    for number, (function, *_) in enumerate(FAILED_BUILDS):
        text = flow(f"broken-{number}", f"  factory:\n    function: {function}\n")
        campaign.repository.write(f"flows/broken-{number}.yaml", text)
    campaign.repository.write("flows/last.yaml", flow("last"))
    campaign.repository.commit()
    done = campaign.once()
    assert done.returncode == 2, done.stderr
    assert campaign.states() == {"beside/job": "COMPLETED", "last/job": "COMPLETED"}
    for number, (_, place, message) in enumerate(FAILED_BUILDS):
        head = f"error[build/failed]: flow 'broken-{number}' cannot be built: "
        text, _, rest = done.stderr.partition(head)[2].partition(" --> ")
        assert message in text, done.stderr
        assert rest.startswith(f"flows/broken-{number}.yaml:{place}\n"), done.stderr
        assert campaign.flow(f"broken-{number}")["sync"] == "Unknown"
    for number in range(len(FAILED_BUILDS)):
        campaign.repository.remove(f"flows/broken-{number}.yaml")
    good = flow("broken", "  factory:\n    function: factories.good\n")
    campaign.repository.write("flows/broken-0.yaml", good)
    campaign.repository.commit()
    campaign.assert_converged("beside", "broken", "last")


def test_symlink(campaign: Campaign) -> None:
    (campaign.repository.path / "flows/broken.yaml").symlink_to("beside.yaml")
    campaign.repository.commit()
    done = campaign.once()
    assert (done.returncode, campaign.states()) == (2, {"beside/job": "COMPLETED"}), done.stderr
    assert "error[source/symlink]" in done.stderr
    assert "--> flows/broken.yaml:1:1\n" in done.stderr
    campaign.repository.remove("flows/broken.yaml")
    campaign.repository.commit()
    campaign.assert_converged("beside")


def test_submodule(campaign: Campaign) -> None:
    repository = campaign.repository
    head = repository.commit()
    repository.run("update-index", "--add", "--cacheinfo", f"160000,{head},flows/inner")
    repository.run("commit", "--quiet", "--message=a submodule")
    done = campaign.once()
    assert (done.returncode, campaign.states()) == (2, {"beside/job": "COMPLETED"}), done.stderr
    assert "error[source/submodule]" in done.stderr
    assert "--> flows/inner:1:1\n" in done.stderr
    repository.run("rm", "--quiet", "--cached", "flows/inner")
    campaign.repository.commit()
    campaign.assert_converged("beside")


def test_no_project_file(campaign: Campaign) -> None:
    campaign.repository.commit()
    campaign.assert_converged("beside")
    campaign.repository.remove("reconciler.yaml")
    campaign.repository.commit()
    done = campaign.once()
    assert done.returncode == 4
    head = campaign.repository.head[:7]
    assert f"error: refused: main@{head} no longer has a reconciler.yaml" in done.stderr
    assert "  help: " in done.stderr
    assert campaign.states() == {"beside/job": "COMPLETED"}
    campaign.write_project()
    campaign.repository.commit()
    campaign.assert_converged("beside")


SECOND_PROJECT = "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: another}\nspec: {}\n"
RULE = "apiVersion: reconciler/v1\nkind: OverrideRule\nmetadata: {name: rule}\nspec:\n"
HOLDING = [
    ("rules/rule.yaml", RULE + "\tset: {priority: 1}\n", "yaml/tab", "5:1"),
    ("rules/rule.yaml", RULE.replace("OverrideRule", "OverideRule"), "manifest/kind", "2:7"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "text", "code", "place"), HOLDING, ids=[case[2] for case in HOLDING])
def test_a_rule_that_was_never_readable_makes_submissions_wait(
    campaign: Campaign, file: str, text: str | bytes, code: str, place: str
) -> None:
    """Half the rules would cost real core-hours; what the rule would have changed is not known."""
    campaign.repository.write(file, text)
    campaign.repository.commit()
    done = campaign.once()
    assert (done.returncode, campaign.states(), campaign.ran()) == (2, {}, []), done.stdout
    assert f"error[{code}]: " in done.stderr
    assert f"--> {file}:{place}\n" in done.stderr, done.stderr
    assert "waits: " in done.stdout
    assert "waits: " in campaign.flow("beside")["reason"]
    campaign.repository.write(file, RULE + "  set: {priority: 1}\n")
    campaign.repository.commit()
    campaign.assert_converged("beside")


def test_second_project_is_refused_and_the_first_one_counts(campaign: Campaign) -> None:
    campaign.repository.write("flows/another.yaml", SECOND_PROJECT)
    campaign.repository.commit()
    done = campaign.once()
    assert (done.returncode, campaign.states()) == (2, {"beside/job": "COMPLETED"}), done.stderr
    assert "error[manifest/second-project]" in done.stderr
    assert "--> flows/another.yaml:3:18\n" in done.stderr
    campaign.repository.remove("flows/another.yaml")
    campaign.repository.commit()
    campaign.assert_converged("beside")
