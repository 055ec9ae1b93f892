"""A FlowSet over a csv file of many rows: cold, and after one changed row. Every step is a whole process.

``SIZES=1000,10000`` chooses the numbers of rows, ``REPEATS`` how often a change is measured. The jobs are
suspended, so that none runs.
"""

from __future__ import annotations

import os
from statistics import median as middle

from _bench import Project, floor, project

SIZES = tuple(int(size) for size in os.environ.get("SIZES", "100,1000,10000").split(","))
REPEATS = int(os.environ.get("REPEATS", "3"))

FLOWSET = """
apiVersion: reconciler/v1
kind: FlowSet
metadata: {name: points}
spec:
  items: {from: [{csv: data/points.csv}]}
  key: "{element}-{number}"
  template:
    suspend: true
    labels: {element: {$item: element}}
    jobs:
      - {id: energy, function: reconciler.examples.value, args: [{$item: volume}]}
"""


def write_table(bench: Project, size: int, changed: int | None = None) -> None:
    """Write and commit the table; ``changed`` is the row with another volume."""
    rows = [f"Cu,{number},{10 + number / 7 + 100 * (number == changed):.3f},fcc\n" for number in range(size)]
    bench.write("data/points.csv", "element,number,volume,lattice\n" + "".join(rows))
    bench.commit()


def measure(size: int, imports: float) -> None:
    """Measure one size, and print a row for each step."""
    with project() as bench:
        bench.write("flows/points.yaml", FLOWSET)
        write_table(bench, size)

        def change(number: int, *arguments: str) -> float:
            write_table(bench, size, changed=number)
            return bench.run(*arguments)

        show(size, "first plan", bench.run("plan"), imports, "<= 3 s")
        show(size, "first submit", bench.run("--once"), imports, "<= 25 s")
        show(size, "nothing to do", middle(bench.run("--once") for _ in range(REPEATS)), imports, "flat")
        planned = middle(change(number, "plan") for number in range(REPEATS))
        show(size, "one row changed: plan", planned, imports, "<= 250 ms")
        applied = middle(change(number, "--once") for number in range(REPEATS))
        show(size, "one row changed: --once", applied, imports, "")


def show(size: int, what: str, seconds: float, imports: float, aim: str) -> None:
    """Print one step with its ratio to a bare interpreter with the imports."""
    text = f"{seconds * 1000:.0f} ms" if seconds < 2 else f"{seconds:.1f} s"
    print(f"| {size} | {what} | {text} | {seconds / imports:.1f} | {aim} |", flush=True)


def main() -> None:
    """Measure all sizes."""
    imports = floor("import click, lmdb, msgspec, json, subprocess, tempfile, traceback, platform, importlib")
    print(f"the floor, python with click, lmdb and msgspec: {imports * 1000:.0f} ms\n")
    print("| rows | what | median | / floor | aim at 10,000 rows |\n|---|---|---|---|---|")
    for size in SIZES:
        measure(size, imports)


if __name__ == "__main__":
    main()
