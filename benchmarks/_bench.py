"""What the benchmarks share: throw-away projects, the program as a process, medians, how to print them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import reconciler

PROJECT = """
apiVersion: reconciler/v1
kind: Project
metadata: {{name: bench}}
spec:
  python_path: [lib]
  defaults: {{worker: w}}
---
apiVersion: reconciler/v1
kind: Worker
metadata: {{name: w}}
spec: {{type: local, scheduler_type: shell, work_dir: "{work_dir}", max_jobs: {max_jobs}}}
---
apiVersion: reconciler/v1
kind: Worker
metadata: {{name: w2}}
spec: {{type: local, scheduler_type: shell, work_dir: "{work_dir}2", max_jobs: {max_jobs}}}
"""

CODE = """
from jobflow import Flow, Response, job
from reconciler.examples import add, value

def many(n):
    return Flow([value(i) for i in range(n)])

@job
def generate(n):
    return Response(output=n, detour=Flow([value(i) for i in range(n)]))

def generated(n):
    first = generate(n)
    return Flow([first, add(first.output, 1)])

def chain(n):
    jobs = [value(0)]
    for _ in range(n - 1):
        jobs.append(add(jobs[-1].output, 1))
    return Flow(jobs)
"""

FLOW = """
apiVersion: reconciler/v1
kind: Flow
metadata: {{name: {name}}}
spec:
  suspend: {suspend}
  factory: {{function: bench_code.{function}, args: [{count}]}}
"""


class Project:
    """A git repository with one project, and the program run on it as a process."""

    def __init__(self, root: Path, max_jobs: int = 2) -> None:
        self.root = root
        self.repo = root / "repo"
        self.state_dir = root / "state"
        self.repo.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.write("reconciler.yaml", PROJECT.format(work_dir=root / "work", max_jobs=max_jobs))
        self.write("lib/bench_code.py", CODE)

    def git(self, *arguments: str) -> None:
        """Run git in the repository."""
        identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
        subprocess.run(["git", *identity, *arguments], cwd=self.repo, check=True, stdout=subprocess.DEVNULL)

    def write(self, path: str, text: str) -> None:
        """Write a file of the repository."""
        file = self.repo / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def flow(self, name: str, function: str, count: int, *, suspend: bool) -> None:
        """Write a flow that ``bench_code`` makes; of a suspended one the jobs are stored but not run."""
        text = FLOW.format(name=name, function=function, count=count, suspend=str(suspend).lower())
        self.write(f"flows/{name}.yaml", text)

    def commit(self) -> None:
        """Commit everything."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=bench")

    def run(self, *arguments: str) -> float:
        """Run the program; return its wall time in seconds."""
        started = time.perf_counter()
        self.answer(*arguments)
        return time.perf_counter() - started

    def answer(self, *arguments: str) -> str:
        """Run the program; return its output."""
        command = [sys.executable, "-m", "reconciler", *arguments, "--state-dir", str(self.state_dir)]
        done = subprocess.run(command, cwd=self.repo, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


@cache
def compiled() -> None:
    """Have the byte code of the program written, as an installation has it, whatever the environment says."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-m", "compileall", "-q", *reconciler.__path__], check=True)


@contextmanager
def project(max_jobs: int = 2) -> Iterator[Project]:
    """Yield a project in a temporary directory with its own home directory."""
    compiled()
    with tempfile.TemporaryDirectory(prefix="reconciler-bench-", ignore_cleanup_errors=True) as directory:
        root = Path(directory)
        for name in [name for name in os.environ if name.startswith(("RECONCILER_", "XDG_"))]:
            del os.environ[name]
        os.environ["HOME"] = directory
        yield Project(root, max_jobs)


def median(measure: Callable[[], float], repeats: int) -> float:
    """Return the median of some measurements."""
    return statistics.median(measure() for _ in range(repeats))


def floor(code: str = "pass") -> float:
    """Return the median wall time of a bare interpreter that runs ``code``."""

    def once() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - started

    return median(once, 7)


def show(what: str, seconds: float, target: str = "", peer: str = "") -> None:
    """Print one line: what, the median, where we want to be, and what jobflow-remote takes."""
    text = f"{seconds * 1000:.0f} ms" if seconds < 2 else f"{seconds:.2f} s"
    print(f"| {what} | {text} | {target} | {peer} |", flush=True)


def head() -> None:
    """Print the head of the table."""
    print("| what | median | wanted | jobflow-remote 1.0.1 |\n|---|---|---|---|", flush=True)
