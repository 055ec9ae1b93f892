"""Jobs that do nothing, from commit to result: one, a chain of ten, and a hundred beside each other."""

import sys

from _bench import floor, head, median, project, show


def run(function: str, count: int, max_jobs: int = 2) -> float:
    """Return the wall time of ``reconcile --once --wait`` on a fresh flow, building included."""
    with project(max_jobs) as bench:
        bench.flow("flow", function, count, suspend=False)
        bench.commit()
        return bench.run("--once", "--wait")


def main() -> None:
    """Measure; the floor is the cost of the job's process alone."""
    head()
    floor_of_one = floor("import jobflow")
    show("python -c 'import jobflow': the floor of one job", floor_of_one)
    show("one job, end to end", median(lambda: run("many", 1), 5), "<= 2 s", "31 s (default delays)")
    one = median(lambda: run("chain", 1), 3)
    ten = median(lambda: run("chain", 10), 3)
    step = (ten - one) / 9
    show("chain of 10 jobs, each step", step, f"<= {(floor_of_one + 0.1) * 1000:.0f} ms", "1 s and more")
    if "--quick" not in sys.argv:
        hundred = run("many", 100)
        show(f"100 trivial jobs, 2 at a time ({100 / hundred:.1f} jobs/s)", hundred, "", "100 s (1.0 jobs/s)")


if __name__ == "__main__":
    main()
