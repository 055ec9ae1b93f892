"""Campaigns of many flow files with 10 jobs each: a change costs what it changes.

``SIZES=100,1000`` chooses the numbers of files, ``REPEATS`` how often each step is measured. Every step is a
whole process; the jobs are suspended, so that none runs. ``OUT=FILE`` appends the measurements as JSON lines.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median as middle

from _bench import Project, floor, project

SIZES = tuple(int(size) for size in os.environ.get("SIZES", "100,1000,10000").split(","))
REPEATS = int(os.environ.get("REPEATS", "3"))
JOBS = 10

RULE = """
apiVersion: reconciler/v1
kind: OverrideRule
metadata: {{name: {name}}}
spec: {{flows: ["{flows}"], name_filter: job, set: {{priority: {priority}}}}}
"""

TODAY: dict[str, dict[int, str]] = {
    "nothing to do": {1000: "115 ms", 10000: "106 ms"},
    "plan, nothing changed": {1000: "896 ms", 10000: "9.1 s"},
    "README committed": {1000: "834 ms", 10000: "10.2 s"},
    "one flow changed: plan": {1000: "905 ms", 10000: "9.1 s"},
    "one flow changed: --once": {1000: "1.5 s", 10000: "11.1 s"},
    "rule for 10 flows: --once": {1000: "814 ms", 10000: "10.1 s"},
    "rule for every job: --once": {1000: "1.3 s, 175 MB", 10000: "14.6 s, 1445 MB"},
    "first plan": {1000: "4.7 s", 10000: "70 s, 412 MB"},
    "first submit": {1000: "6.6 s, 150 MB", 10000: "78 s, 1224 MB"},
    "get jobs -o json": {1000: "0.42 s", 10000: "3.2 s"},
    "get flows": {1000: "183 ms", 10000: "807 ms"},
    "state on disk, a job": {1000: "6.2 KB", 10000: "6.2 KB"},
}
"""What version 0.3.0 took, measured at 59d1939."""

AIMS = {
    "nothing to do": "<= 2.5 x python + imports, flat",
    "plan, nothing changed": "<= no-op + 50 ms",
    "README committed": "<= no-op + 50 ms",
    "one flow changed: plan": "<= 250 ms",
    "one flow changed: --once": "<= 400 ms + a build process",
    "rule for 10 flows: --once": "<= 300 ms",
    "rule for every job: --once": "<= 60 us a job, <= 400 MB",
    "first plan": "<= 12 s, <= 300 MB",
    "first submit": "<= 25 s, <= 400 MB",
    "get jobs -o json": "<= 1.5 s",
    "get flows": "<= 250 ms",
    "state on disk, a job": "<= 2.5 KB",
}
"""What we want at 10,000 files and 100,000 jobs."""


def flow_text(name: str, number: int, changed: int = 0) -> str:
    """Return a flow of 10 jobs, each of which uses the output of the one before."""
    lines = [
        "apiVersion: reconciler/v1",
        "kind: Flow",
        f"metadata: {{name: {name}, labels: {{group: g{number % 10}}}}}",
        "spec:",
        "  suspend: true",
        "  jobs:",
    ]
    for job in range(JOBS):
        first = f"{number + changed}" if job == 0 else f"{{$output: job{job - 1}}}"
        lines += [
            f"    - id: job{job}",
            "      function: reconciler.examples.add",
            f"      args: [{first}, {job}]",
        ]
    return "\n".join(lines) + "\n"


class Campaign:
    """One project of many files, and the peak memory of the processes that worked on it."""

    def __init__(self, bench: Project, size: int) -> None:
        self.bench = bench
        self.size = size
        self.numbers = itertools.count(1)
        for number in range(size):
            bench.write(self.file(number), flow_text(f"flow-{number:05}", number))
        bench.commit()

    @staticmethod
    def file(number: int) -> str:
        """Return the file of a flow."""
        return f"flows/{number // 100:03}/flow-{number:05}.yaml"

    def measured(self, *arguments: str) -> tuple[float, float]:
        """Run the program; return seconds and the peak of its memory in MB."""
        command = [
            sys.executable, "-m", "reconciler", *arguments, "--state-dir", str(self.bench.state_dir)
        ]  # fmt: skip
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=self.bench.repo, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{output[-2000:]}")
        return seconds, usage.ru_maxrss / 1024

    def steps(self) -> dict[str, Callable[[], tuple[float, float]]]:
        """Return what is measured more than once, in order: each step prepares itself first."""

        def readme() -> tuple[float, float]:
            self.bench.write("README.md", f"{next(self.numbers)}\n")
            self.bench.commit()
            return self.measured("--once")

        def change() -> None:
            number = next(self.numbers)
            index = number % self.size
            self.bench.write(self.file(index), flow_text(f"flow-{index:05}", index, changed=number * 100000))
            self.bench.commit()

        def plan_change() -> tuple[float, float]:
            change()
            return self.measured("plan")

        def apply_change() -> tuple[float, float]:
            change()
            return self.measured("--once")

        def rule(flows: str) -> Callable[[], tuple[float, float]]:
            def run() -> tuple[float, float]:
                number = next(self.numbers)
                text = RULE.format(name=f"rule-{len(flows)}", flows=flows, priority=number)
                self.bench.write(f"rules/rule-{len(flows)}.yaml", text)
                self.bench.commit()
                return self.measured("--once")

            return run

        return {
            "nothing to do": lambda: self.measured("--once"),
            "plan, nothing changed": lambda: self.measured("plan"),
            "README committed": readme,
            "one flow changed: plan": plan_change,
            "one flow changed: --once": apply_change,
            "rule for 10 flows: --once": rule("flow-0001?"),
            "get jobs -o json": lambda: self.measured("get", "jobs", "-o", "json"),
            "get flows": lambda: self.measured("get", "flows"),
            "rule for every job: --once": rule("*"),
        }

    def disk(self) -> float:
        """Return how many bytes of the store are in use for each job."""
        store = self.bench.state_dir / "lmdb"
        code = "import lmdb, sys; e = lmdb.open(sys.argv[1], readonly=True); i = e.info(); s = e.stat()\n"
        code += "print((i['last_pgno'] + 1) * s['psize'])"
        done = subprocess.run(
            [sys.executable, "-c", code, str(store)], check=True, capture_output=True, text=True
        )
        return int(done.stdout) / (self.size * JOBS)


def measure(size: int, imports: float) -> None:
    """Measure one size, and print a row for each step."""
    with project() as bench:
        campaign = Campaign(bench, size)
        show(size, "first plan", [campaign.measured("plan")], imports)
        show(size, "first submit", [campaign.measured("--once")], imports)
        bytes_of_a_job = campaign.disk()
        what = "state on disk, a job"
        was = TODAY.get(what, {}).get(size, "")
        print(f"| {size} | {what} | {bytes_of_a_job / 1000:.1f} KB | | | {was} | {AIMS[what]} |", flush=True)
        note(size, what, bytes_of_a_job / 1000, 0.0)
        for what, step in campaign.steps().items():
            show(size, what, [step() for _ in range(REPEATS)], imports)


def show(size: int, what: str, found: list[tuple[float, float]], imports: float) -> None:
    """Print the medians of one step, and their ratio to the bare interpreter with the imports."""
    seconds, memory = middle(one for one, _ in found), max(one for _, one in found)
    text = f"{seconds * 1000:.0f} ms" if seconds < 2 else f"{seconds:.1f} s"
    was = TODAY.get(what, {}).get(size, "")
    print(
        f"| {size} | {what} | {text} | {memory:.0f} MB | {seconds / imports:.1f} | {was} | {AIMS[what]} |",
        flush=True,
    )
    note(size, what, seconds, memory)


def note(size: int, what: str, value: float, memory: float) -> None:
    """Append a measurement to the file in ``OUT``, from which the plots are drawn."""
    out = os.environ.get("OUT")
    if out:
        with Path(out).open("a") as stream:
            row = {"files": size, "what": what, "value": value, "memory": memory}
            stream.write(json.dumps(row) + "\n")


def main() -> None:
    """Measure all sizes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    imports = floor("import click, lmdb, msgspec, json, subprocess, tempfile, traceback, platform, importlib")
    print(f"the floor, python with click, lmdb and msgspec: {imports * 1000:.0f} ms\n")
    print("| files | what | median | memory | / floor | 0.3.0 | aim at 10,000 files |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        measure(size, imports)


if __name__ == "__main__":
    main()
