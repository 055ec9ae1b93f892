"""One edit of an override rule that patches 1000 jobs."""

import itertools

from _bench import head, median, project, show

RULE = """
apiVersion: reconciler/v1
kind: OverrideRule
metadata: {{name: urgent}}
spec: {{flows: [many], name_filter: value, set: {{priority: {priority}}}}}
"""


def main() -> None:
    """Edit, commit and reconcile; only the reconcile is measured. Beside it: the same edit, planned only."""
    head()
    peer = {10: "16 ms CPU of its client", 1_000: "1.6 s CPU of its client", 10_000: "16 s CPU of its client"}
    for count in (10, 1_000, 10_000):
        with project() as bench:
            bench.flow("many", "many", count, suspend=True)
            bench.commit()
            bench.run("--once")
            priorities = itertools.count(1)

            def edit(bench=bench, priorities=priorities) -> float:  # type: ignore[no-untyped-def]
                bench.write("rules/urgent.yaml", RULE.format(priority=next(priorities)))
                bench.commit()
                return float(bench.run("--once"))

            show(f"rule patches {count} jobs", median(edit, 5), f"<= {40 + 0.08 * count:.0f} ms", peer[count])
            show(f"plan of that, {count} jobs", median(lambda bench=bench: bench.run("plan"), 3))  # type: ignore[misc]


if __name__ == "__main__":
    main()
