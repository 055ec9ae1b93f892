"""Broken repositories, each as a user would commit it: the real program on a real git repository.

For every mistake: its diagnostic with file, line and column, the exit code, no traceback; the flow beside it
runs; and once a commit repairs the mistake everything converges and nothing has run twice.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest

from tests.support import Reconcile, Repository

TALLY = """
    import os, sys, time
    from pathlib import Path


    def tally(name: str, after: object = None) -> str:
        with Path(os.environ["TALLY"]).open("a") as file:
            file.write(name + "\\n")
        return name
    """

FACTORIES = """
    import os, sys, time

    from jobflow import Flow, Job

    import tally

    ATTRIBUTE = 1


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


    def chatty():
        print("x" * 200_000)
        raise KeyError("after much noise")


    def wrong_kind():
        return 42
    """


class Campaign:
    """A repository with a flow that is right, and a file that counts which jobs have run."""

    def __init__(self, repository: Repository, reconcile: Reconcile, work: Path) -> None:
        self.repository = repository
        self.reconcile = reconcile
        self.work = work
        self.write_project()
        repository.write_yaml("lib/tally.py", TALLY)
        repository.write("flows/valid.yaml", flow("valid"))

    def write_project(self, spec: str = "") -> None:
        """Write the Project and its workers; ``spec`` are more lines of the Project's spec."""
        self.repository.write("reconciler.yaml", project(self.work, spec))

    def once(self) -> subprocess.CompletedProcess[str]:
        """Run ``reconcile --once --wait``."""
        return self.run("--once", "--wait", "--timeout", "60")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the program; whatever happens it shows no traceback and does not call it a bug."""
        done = self.reconcile("--state-dir", str(self.work / "state"), *arguments, env=self.environment)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 1, 2, 3, 4), done.stderr
        return done

    @property
    def environment(self) -> dict[str, str]:
        """Jobs inherit the name of the file in which they are counted."""
        return {"TALLY": str(self.work / "tally")}

    def ran(self) -> list[str]:
        """Return the names of all jobs that have run, one entry a run."""
        file = self.work / "tally"
        return sorted(file.read_text().split()) if file.exists() else []

    def states(self) -> dict[str, str]:
        """Return the state of every job by ``flow/job``."""
        done = self.run("get", "jobs", "-o", "json")
        return {job["key"]: job["state"] for job in json.loads(done.stdout)}

    def flow(self, name: str) -> dict[str, Any]:
        """Return one flow as ``get flows`` shows it."""
        found = json.loads(self.run("get", "flows", name, "-o", "json").stdout)
        assert len(found) == 1, found
        return dict(found[0])

    def assert_converged(self, *ran: str) -> None:
        """Everything is committed, valid, finished; a plan is empty; each of ``ran`` ran once."""
        done = self.once()
        assert done.returncode == 0, done.stdout + done.stderr
        assert set(self.states().values()) == {"COMPLETED"}
        assert self.ran() == sorted(ran)
        assert self.run("plan", "--exit-code").returncode == 0


def project(work: Path, spec: str = "") -> str:
    head = dedent(f"""\
        apiVersion: reconciler/v1
        kind: Worker
        metadata: {{name: w1}}
        spec: {{type: local, scheduler_type: shell, work_dir: "{work}/w1", max_jobs: 4}}
        ---
        apiVersion: reconciler/v1
        kind: Project
        metadata: {{name: broken}}
        spec:
          defaults: {{worker: w1}}
        """)
    return head + (spec or "  python_path: [lib]\n")


def flow(name: str, spec: str = "") -> str:
    """Return a flow: of one job that counts itself, or with the lines of ``spec``."""
    body = spec or f"  jobs: [{{id: job, function: tally.tally, args: [{name}]}}]\n"
    return f"apiVersion: reconciler/v1\nkind: Flow\nmetadata: {{name: {name}}}\nspec:\n{body}"


def job(more: str) -> str:
    return f"  jobs:\n    - id: job\n      function: tally.tally\n      args: [broken]\n      {more}\n"


class Mistake(NamedTuple):
    """What is committed, and what the program must say of it."""

    name: str
    files: dict[str, str | bytes]
    code: str
    place: str
    repaired: dict[str, str | None] = {"flows/broken.yaml": flow("broken")}
    """The files of the commit that puts it right; None removes one."""
    then_ran: tuple[str, ...] = ("broken",)


def broken(name: str, text: str | bytes, code: str, place: str) -> Mistake:
    return Mistake(name, {"flows/broken.yaml": text}, code, f"flows/broken.yaml:{place}")


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
        "6:57",
    ),
    broken("bad reference", flow("broken", job("kwargs: {after: {$output: jib.x}}")), "flow/unknown-job", "9:33"),
    broken("tab", flow("broken", "  jobs:\n\t- {id: job}\n"), "yaml/tab", "6:1"),
    broken("alias bomb", BOMB, "yaml/anchor", "6:5"),
    broken("30 KB of brackets", flow("broken", "  jobs: ") + "[" * 30_000, "yaml/too-deep", "5:70"),
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
    broken("not UTF-8", flow("broken").encode() + b"# caf\xe9\n", "yaml/not-utf8", "6:6"),
    broken("NUL bytes", flow("broken").encode() + b"\0\0", "yaml/control-character", "6:1"),
    broken("duplicate key", flow("broken", job("args: [x]")), "yaml/duplicate-key", "9:7"),
    broken("unknown field", flow("broken", "  wroker: w1\n" + job("")), "schema/unknown-field", "5:3"),
    broken("unknown kind", flow("broken").replace("Flow", "Flwo"), "manifest/kind", "2:7"),
    broken("no manifest", "a: 1\nb: 2\n", "manifest/kind", "1:1"),
    broken("no file", flow("broken", job("kwargs: {after: {$path: data/no.cif}}")), "reference/unknown-file", "9:31"),
    broken("path that leaves", flow("broken", job("kwargs: {after: {$path: ../x}}")), "value/path", "9:31"),
    broken("no flow", flow("broken", job("kwargs: {after: {$output: vald/job}}")), "reference/unknown-flow", "9:33"),
    broken("no job", flow("broken", job("kwargs: {after: {$output: valid/jib}}")), "reference/unknown-job", "9:33"),
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


@pytest.fixture
def campaign(repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Campaign:
    return Campaign(repository, reconcile, tmp_path / "work")


def write(campaign: Campaign, files: dict[str, Any]) -> None:
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
    assert (done.returncode, campaign.states()) == (2, {"valid/job": "COMPLETED"}), done.stderr
    assert f"error[{mistake.code}]: " in done.stderr
    assert f"--> {mistake.place}\n" in done.stderr, done.stderr
    assert campaign.run("validate").returncode == 2
    write(campaign, mistake.repaired)
    campaign.repository.commit()
    campaign.assert_converged("valid", *mistake.then_ran)
