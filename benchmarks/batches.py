"""Jobs that do nothing on a batch worker, beside a bare fork server that makes what every job needs."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _bench import head, project, show

FORK_SERVER = """
import os, sys, jobflow
from pathlib import Path
root, count, slots = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
running = 0
for number in range(count):
    if running == slots:
        os.wait()
        running -= 1
    if os.fork() == 0:
        os.setsid()
        here = root / str(number)
        here.mkdir()
        (here / "result.json").write_text("{}")
        os._exit(0)
    running += 1
while running:
    os.wait()
    running -= 1
"""


def fork_server(count: int, slots: int) -> float:
    """Return the seconds of a process that imports jobflow and forks for each job, without the import."""

    def run(jobs: int) -> float:
        with tempfile.TemporaryDirectory() as root:
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", FORK_SERVER, root, str(jobs), str(slots)], check=True)
            return time.perf_counter() - started

    return max(run(count) - run(0), 0.001)


def batch(function: str, count: int, slots: int) -> float:
    """Return the wall time of ``reconcile --once --wait`` on a fresh flow, building and imports included."""
    with project(1) as bench:
        file = Path(bench.repo / "reconciler.yaml")
        batched = f"max_jobs: 1, batch: {{parallel_jobs: {slots}, max_wait: 1}}"
        file.write_text(file.read_text().replace("max_jobs: 1", batched, 1))
        bench.flow("flow", function, count, suspend=False)
        bench.commit()
        return bench.run("--once", "--wait")


def main() -> None:
    """Measure; what one job takes, start and imports included, is subtracted."""
    head()
    count = 100 if "--quick" in sys.argv else 1000
    slots = os.cpu_count() or 2
    one = batch("many", 1, slots)
    show("one job in a batch, end to end", one)
    many = (batch("many", count, slots) - one) / (count - 1)
    floor = fork_server(count, slots) / count
    show(f"{count} trivial jobs, {slots} slots, each ({1 / many:.0f} jobs/s)", many)
    show(f"a bare fork server, each ({1 / floor:.0f} jobs/s)", floor)
    show("chain of 20 jobs in a batch, each step", (batch("chain", 20, slots) - one) / 19, "<= 50 ms")


if __name__ == "__main__":
    main()
