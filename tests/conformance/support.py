"""The setting of the conformance tables in a real git repository, and what a plan makes of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from reconciler.actual.store import Store
from reconciler.desired.source.git import Source
from reconciler.diagnostics import Diagnostic
from reconciler.loop import Session
from reconciler.model.actions import ActionType, Plan, Subject
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState
from reconciler.model.run_config import FIELDS, RunConfig
from reconciler.model.settings import Resources
from reconciler.plan.checks import worker_defaults
from reconciler.plan.configs import FlowConfigs
from reconciler.plan.planner import make_plan
from tests.support import Reconcile, Repository

FLOW_LEVEL = """\
  worker: w1
  exec_config: ec1
  resources: {nodes: 1, ntasks: 4}
  priority: 5
"""

JOBS = """\
  jobs:
    - id: value
      function: reconciler.examples.value
      args: [5]
    - id: add
      function: reconciler.examples.add
      args: [{$output: value}, 2]
"""

Value = tuple[Any, str]
"""A value of a run config and where it comes from: ``rule rules/r1.yaml:7``."""


class Table:
    """One case: manifests in git, and the plan's view of them.

    Workers w1 and w2 are of scheduler slurm and ``shelldef`` of scheduler shell, unless ``scheduler`` makes
    all of them shell workers, which jobs can run on.
    """

    def __init__(self, repository: Repository, root: Path, scheduler: str = "slurm") -> None:
        self.repository = repository
        self.root = root
        self.rules = 0
        self.project()
        self.workers(scheduler)
        repository.write(
            "exec_configs/all.yaml",
            "---\n".join(_manifest("ExecConfig", name, " {}") for name in ("ec1", "ec2")),
        )
        self.flow(FLOW_LEVEL if scheduler == "slurm" else "")

    # manifests ----------------------------------------------------------------------------------------

    def project(self, spec: str = " {}") -> None:
        """Write the Project."""
        self.repository.write("reconciler.yaml", _manifest("Project", "table", spec))

    def workers(self, scheduler: str, extra: str = "") -> None:
        """Write the three workers; ``extra`` is more of w1's spec."""
        documents = [
            self._worker("w1", scheduler, extra),
            self._worker("w2", scheduler, ""),
            self._worker("shelldef", "shell", ""),
        ]
        self.repository.write("workers/all.yaml", "---\n".join(documents))

    def _worker(self, name: str, scheduler: str, extra: str) -> str:
        spec = f"\n  type: local\n  scheduler_type: {scheduler}\n  work_dir: {self.root / name}\n{extra}"
        return _manifest("Worker", name, spec)

    def flow(self, spec: str, jobs: str = JOBS, name: str = "arithmetic") -> None:
        """Write a flow; its spec begins on line 5."""
        self.repository.write(f"flows/{name}.yaml", _manifest("Flow", name, f"\n{spec}{jobs}"))

    def rule(self, selector: str, values: str) -> str:
        """Write the next rule, return its file; the selector is on line 5 and the values begin on line 7."""
        self.rules += 1
        file = f"rules/r{self.rules}.yaml"
        lines = [f"  {selector}", "  set:", *(f"    {line}" for line in values.splitlines())]
        spec = "\n" + "".join(f"{line}\n" for line in lines)
        self.repository.write(file, _manifest("OverrideRule", f"r{self.rules}", spec))
        return file

    # what becomes of them -----------------------------------------------------------------------------

    def source(self) -> Source:
        """Commit, and open the repository."""
        self.repository.commit()
        return Source(self.repository.path / ".git", self.repository.path, None, "")

    def load(self) -> DesiredState:
        """Commit, and read the desired state with a store of its own."""
        store = Store(self.root / "planning")
        try:
            return Session(self.source(), store).load().state
        finally:
            store.close()

    def plan(self) -> Plan:
        """Commit, and plan against an empty store."""
        return make_plan(self.load(), ActualState())

    def problems(self) -> list[Diagnostic]:
        """What the plan says is wrong."""
        return list(self.plan().diagnostics)

    def waits(self, flow: str = "arithmetic") -> str | None:
        """Why the flow waits; None if it goes ahead."""
        for action in self.plan().actions:
            if action.subject is Subject.FLOW and action.key == flow and action.type is ActionType.KEEP:
                return str(action.reason)
        return None

    def run_configs(self, flow: str = "arithmetic") -> dict[str, dict[str, Value | None]]:
        """Return by job what the planner gives it; nothing may be wrong with it."""
        state = self.load()
        found = [one for one in make_plan(state, ActualState()).diagnostics if one.is_error]
        assert not found
        one = state.flows[flow]
        configs = FlowConfigs(state, one, worker_defaults(state))
        return {job.key: _shown(state, configs.of_preview(job)) for job in one.preview}


def _manifest(kind: str, name: str, spec: str) -> str:
    text = f"apiVersion: reconciler/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:{spec}"
    return text if text.endswith("\n") else text + "\n"


def _shown(state: DesiredState, config: RunConfig) -> dict[str, Value | None]:
    return {field: _value(state, config, field) for field in FIELDS}


def _value(state: DesiredState, config: RunConfig, field: str) -> Value | None:
    setting = config.setting(field)
    if setting is None:
        return None
    value = setting.value
    if isinstance(value, Resources):
        value = {"qresources": value.values} if value.generic else value.values
    found = state.provenance(setting.origin)
    return value, f"{found['level']} {found['file']}:{found['line']}"


def places(found: list[Diagnostic]) -> list[tuple[str, str, str | None]]:
    """Return code, file:line:column and hint of diagnostics."""
    return [(one.code, str(one.location), one.hint) for one in found]


class Silent:
    """A watcher that shows nothing."""

    def say(self, line: str) -> None:
        """Pass over a line."""

    def planned(self, plan: Plan) -> None:
        """Pass over the plan."""

    def progress(self, done: int, total: int, running: int) -> None:
        """Pass over a count."""


class Ran:
    """All jobs of a repository after the program ran them on shell workers."""

    def __init__(self, reconcile: Reconcile, exit_code: int = 0) -> None:
        self.reconcile = reconcile
        self.done = reconcile("--once", "--wait")
        assert self.done.returncode == exit_code, self.done.stderr

    def job(self, key: str) -> dict[str, Any]:
        """Return all that the program knows of a job."""
        found: dict[str, Any] = json.loads(_checked(self.reconcile("describe", "job", key, "-o", "json")))
        return found

    def script(self, key: str) -> str:
        """Return the submission script of a job's last attempt."""
        return (Path(self.job(key)["run_dir"]) / "submit.sh").read_text()

    def file(self, key: str, name: str) -> str:
        """Return a file of a job's run directory."""
        return (Path(self.job(key)["run_dir"]) / name).read_text()


def _checked(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout
