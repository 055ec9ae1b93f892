"""A state with one of everything, made once for all tests that only read it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.model.records import Allocation
from tests.execution.support import eventually
from tests.support import Reconcile, Repository, minimal_project

FLOWS = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: arithmetic, labels: {campaign: tests}}
    spec:
      exec_config: threads
      jobs:
        - {id: value, function: reconciler.examples.value, args: [5]}
        - {id: add, function: reconciler.examples.add, args: [{$output: value}, 2], priority: 3}
        - {id: twin-1, name: twin, function: reconciler.examples.value, args: [1]}
        - {id: twin-2, name: twin, function: reconciler.examples.value, args: [2]}
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: generating}
    spec:
      worker: w2
      jobs:
        - {id: list, function: reconciler.examples.make_list, args: [1, 2]}
        - {id: spread, function: reconciler.examples.add_distributed, args: [{$output: list}]}
        - {id: itself, function: reconciler.examples.self_replace, args: [1]}
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: failing}
    spec:
      jobs:
        - {id: bad, function: reconciler.examples.fail, args: ["no luck today"]}
        - {id: never, function: reconciler.examples.add, args: [{$output: bad}, 1]}
    """

SLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: slow}
    spec:
      jobs:
        - {id: nap, function: reconciler.examples.sleep, args: [600]}
    """

HELD = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: held}
    spec:
      worker: w9
      jobs: [{id: job, function: reconciler.examples.value, args: [1]}]
    """

EXEC_CONFIG = """
    apiVersion: reconciler/v1
    kind: ExecConfig
    metadata: {name: threads}
    spec: {export: {OMP_NUM_THREADS: "1"}, pre_run: echo before}
    """

MAKER = """
    apiVersion: reconciler/v1
    kind: Maker
    metadata: {name: adder}
    spec: {class: reconciler.examples.AddMaker, kwargs: {offset: 2}}
    """

RULE = """
    apiVersion: reconciler/v1
    kind: OverrideRule
    metadata: {name: hurry}
    spec:
      flows: [slow]
      set: {priority: 9, resources: {}}
    """


SET = """
    apiVersion: reconciler/v1
    kind: FlowSet
    metadata: {name: pair}
    spec:
      items: {from: [{list: [{n: 1}]}]}
      key: "{n}"
      suspend: true
      template:
        jobs: [{id: job, function: reconciler.examples.value, args: [{$item: n}]}]
    """


class World:
    """A repository and a state directory; ``run`` is the program on both."""

    def __init__(self, path: Path) -> None:
        self.repository = Repository(path / "repository")
        self.state = path / "state"
        self._reconcile = Reconcile(self.repository.path)

    def build(self) -> None:
        """Run three flows to their end, then leave one job running with a deferred change, one flow held."""
        minimal_project(self.repository, self.state.parent / "work")
        self.repository.write_yaml("exec_configs/threads.yaml", EXEC_CONFIG)
        self.repository.write_yaml("makers/adder.yaml", MAKER)
        self.repository.write_yaml("flows/flows.yaml", FLOWS)
        self.repository.commit("three flows")
        assert self.run("--once", "--wait").returncode == 1, "one flow fails"
        self.repository.write_yaml("flows/slow.yaml", SLOW)
        self.repository.commit("a long job")
        assert eventually(self._naps, 120)
        self.repository.write_yaml("rules/hurry.yaml", RULE)
        self.repository.write_yaml("flows/held.yaml", HELD)
        self.repository.write_yaml("flows/pair.yaml", SET)
        self.repository.commit("a rule, and a mistake")
        assert self.run("--once").returncode == 2
        self._note_an_allocation()

    def _note_an_allocation(self) -> None:
        """Let a worker have had an allocation: what listings show of one is tested without running it."""
        ended = Allocation(
            name="a0123456789", queue_id="4242", submitted=1e9, ended=1e9 + 60, node="n1", slots=4, done=7,
            closed=True,
        )  # fmt: skip
        with contextlib.closing(Store(self.state)) as store, store.read() as view:
            status = view.worker_status("w2")
        assert status is not None
        with contextlib.closing(Store(self.state)) as store:
            store.write(
                lambda writer: writer.put_worker_status(
                    "w2", msgspec.structs.replace(status, allocations=[ended])
                )
            )

    def _naps(self) -> bool:
        """Make a pass; return whether the long job runs by now."""
        assert self.run("--once").returncode == 0
        return [job["state"] for job in self.json("get", "jobs", "slow/nap")] == ["RUNNING"]

    def tear_down(self) -> None:
        """Cancel what runs."""
        self.repository.remove("flows/slow.yaml")
        self.repository.commit("stop")
        self.run("--once", "--wait", "--timeout", "20", "--allow-prune")

    def run(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run the program and return the finished process."""
        return self._reconcile("--state-dir", str(self.state), *arguments, **more)

    def run_to(self, file: Path, *arguments: str) -> None:
        """Run the program with its stdout in a file; it succeeds."""
        command = [sys.executable, "-m", "reconciler", "--state-dir", str(self.state), *arguments]
        with file.open("wb") as stream:
            subprocess.run(command, cwd=self.repository.path, stdout=stream, check=True)

    def json(self, *arguments: str) -> Any:
        """Run a verb with ``-o json`` and return what it prints."""
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the program and return the running process."""
        return subprocess.Popen(
            [sys.executable, "-m", "reconciler", "--state-dir", str(self.state), *arguments],
            cwd=self.repository.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
