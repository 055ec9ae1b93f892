"""A campaign whose jobs count themselves, to see what a mistake in its repository stops and what not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests.support import Reconcile, Repository

TALLY = """\
def tally(name, after=None):
    with open("{file}", "a") as file:
        file.write(name + "\\n")
    return name
"""


class Campaign:
    """A repository with a flow that is right, and a file that counts which jobs have run."""

    def __init__(self, repository: Repository, reconcile: Reconcile, work: Path) -> None:
        self.repository = repository
        self.reconcile = reconcile
        self.work = work
        work.mkdir()
        self.write_project()
        repository.write("lib/tally.py", TALLY.format(file=work / "tally"))
        repository.write("flows/beside.yaml", flow("beside"))

    def write_project(self, spec: str = "") -> None:
        """Write the Project and its workers; ``spec`` are more lines of the Project's spec."""
        self.repository.write("reconciler.yaml", project(self.work, spec))

    def once(self) -> subprocess.CompletedProcess[str]:
        """Run ``reconcile --once --wait``."""
        return self.run("--once", "--wait", "--timeout", "60")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the program; whatever happens it shows no traceback and does not call it a bug."""
        done = self.reconcile("--state-dir", str(self.work / "state"), *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 1, 2, 3, 4), done.stderr
        return done

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
