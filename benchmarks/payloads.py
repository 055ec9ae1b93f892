"""Large outputs from a job to its readers, beside jobflow's run_locally: time, memory and disk.

``payloads.py [DIRECTORY]``: with a directory, also of the version of this package that is checked out there.
Memory is the highest of the reconciling process, of ``reconcile output``, and of run_locally with its jobs;
disk is what the state and the run directories have at the end, each file once, however many links it has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from _bench import project

CODE = """
import random
from jobflow import Flow, job

@job
def numbers(n):
    draw = random.Random(1)
    return {"values": [draw.random() for _ in range(n)], "count": n}

@job(data="values")
def kept_apart(n):
    draw = random.Random(1)
    return {"values": [draw.random() for _ in range(n)], "count": n}

@job
def rows(n):
    return [{"n": i, "energy": i / 7, "name": f"row {i}"} for i in range(n)]

def structure(i, sites):
    lattice = {"matrix": [[4.0 + i / 1000, 0, 0], [0, 4.0, 0], [0, 0, 4.0]], "pbc": [True] * 3}
    site = {"species": [{"element": "Si", "occu": 1}], "properties": {}, "label": "Si"}
    return {"lattice": lattice, "sites": [site | {"abc": [s / sites, i / 999, 0.5]} for s in range(sites)]}

@job
def structures(n, sites):
    return [structure(i, sites) for i in range(n)]

@job
def trajectory(n, sites):
    frames = [{"positions": [[s / 7, f / 3, s / 9] for s in range(sites)], "energy": f / 5} for f in range(n)]
    return {"frames": frames, "species": ["Si"] * sites}

@job
def size(value):
    return len(value)

@job
def same(value):
    return value

def to_reader(function, *args):
    made = globals()[function](*args)
    return Flow([made, size(made.output)])

def values_to_reader(function, *args):
    made = globals()[function](*args)
    return Flow([made, size(made.output["values"])])

def to_many(n, readers):
    made = numbers(n)
    return Flow([made, *(same(made.output["count"]) for _ in range(readers))])
"""

PAYLOADS: Mapping[str, tuple[str, Sequence[object]]] = {
    "50 MB of numbers to a reader": ("values_to_reader", ["numbers", 6_000_000]),
    "the same in an additional store": ("values_to_reader", ["kept_apart", 6_000_000]),
    "200 000 rows": ("to_reader", ["rows", 200_000]),
    "500 structures": ("to_reader", ["structures", 500, 20]),
    "trajectory of 1 000 steps": ("to_reader", ["trajectory", 1000, 100]),
    "10 MB, 20 readers of one number": ("to_many", [1_200_000, 20]),
}

FLOW = """
apiVersion: reconciler/v1
kind: Flow
metadata: {{name: f}}
spec: {{factory: {{function: payload_code.{function}, args: {arguments}}}}}
"""

LOCAL = """
import sys
sys.path.insert(0, "lib")
import payload_code
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
store = JobStore(MemoryStore(), additional_stores={{"data": MemoryStore()}})
run_locally(payload_code.{function}(*{arguments}), store=store, log=False, ensure_success=True)
"""


class Cost(NamedTuple):
    """Seconds, and the highest memory of the process in MiB."""

    seconds: float
    memory: int


def run(arguments: Sequence[str], directory: Path, package: Path | None) -> Cost:
    """Run a process to its end."""
    environment = dict(os.environ)
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    begin, highest = time.perf_counter(), 0
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("VmHWM"):
                    highest = max(highest, int(line.split()[1]) >> 10)
            time.sleep(0.01)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{arguments} failed: {errors.read().decode()}")
    return Cost(time.perf_counter() - begin, highest)


def files_below(directories: Sequence[Path]) -> Iterator[os.stat_result]:
    """Yield each file once."""
    seen = set()
    for directory in directories:
        for path in directory.rglob("*"):
            found = path.lstat()
            if path.is_file() and found.st_ino not in seen:
                seen.add(found.st_ino)
                yield found


def measure(function: str, arguments: Sequence[object], package: Path | None) -> list[str]:
    """Return the columns of one payload with one version."""
    with project() as made:
        made.write("lib/payload_code.py", CODE)
        made.write("flows/f.yaml", FLOW.format(function=function, arguments=json.dumps(arguments)))
        made.commit()
        command = ["-m", "reconciler", "--state-dir", str(made.state_dir)]
        ours = run([*command, "--once", "--wait", "--timeout", "900"], made.repo, package)
        disk = sum(found.st_blocks * 512 for found in files_below([made.state_dir, made.root / "work"]))
        shown = run([*command, "output", f"f/{name_of(function, arguments)}"], made.repo, package)
        return [f"{ours.seconds:.1f} s", str(ours.memory), str(shown.memory), f"{disk / 1e6:.0f} MB"]


def name_of(function: str, arguments: Sequence[object]) -> str:
    """Return the name of the job that makes the payload."""
    return "numbers" if function == "to_many" else str(arguments[0])


def locally(function: str, arguments: Sequence[object]) -> Cost:
    """Run the same flow by jobflow alone in a fresh Python."""
    with tempfile.TemporaryDirectory(prefix="reconciler-payload-") as name:
        root = Path(name)
        (root / "lib").mkdir()
        (root / "lib" / "payload_code.py").write_text(CODE)
        (root / "run.py").write_text(LOCAL.format(function=function, arguments=arguments))
        return run(["run.py"], root, None)


def main() -> None:
    """Print the table."""
    before = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    versions = [("before", before), ("now", None)] if before is not None else [("now", None)]
    print("| payload | version | time | reconcile MiB | output MiB | disk | run_locally | its MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for payload, (function, arguments) in PAYLOADS.items():
        peer = locally(function, arguments)
        for version, package in versions:
            columns = measure(function, arguments, package)
            peers = [f"{peer.seconds:.1f} s", str(peer.memory)] if version == "now" else ["", ""]
            print("|", " | ".join([payload, version, *columns, *peers]), "|", flush=True)


if __name__ == "__main__":
    main()
