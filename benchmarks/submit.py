"""The first reconcile of a big flow: build it, plan it, store it. The jobs are suspended, so none runs."""

from _bench import Project, head, median, project, show

WRITTEN = """
apiVersion: reconciler/v1
kind: Flow
metadata: {name: written}
spec:
  suspend: true
  jobs:
"""


def first_submit(count: int) -> float:
    """Return the wall time of the first reconcile of a flow that a function makes."""
    with project() as bench:
        bench.flow("many", "many", count, suspend=True)
        return _commit_and_run(bench)


def first_submit_written(count: int) -> float:
    """Return the same for jobs that are written out in YAML."""
    jobs = "".join(
        f"    - {{id: job{i}, function: reconciler.examples.value, args: [{i}]}}\n" for i in range(count)
    )
    with project() as bench:
        bench.write("flows/written.yaml", WRITTEN + jobs)
        return _commit_and_run(bench)


def _commit_and_run(bench: Project) -> float:
    bench.commit()
    return bench.run("--once")


def main() -> None:
    """Measure flows of one job, a thousand and ten thousand."""
    head()
    peer = {1: "24 ms CPU of its client", 1_000: "0.6 s CPU of its client", 10_000: "6 s CPU of its client"}
    for count, target in ((1, ""), (1_000, ""), (10_000, "<= 5.5 s")):
        took = median(lambda count=count: first_submit(count), 3)  # type: ignore[misc]
        show(f"first submit of {count} jobs (factory)", took, target, peer[count])
    show("first submit of 1000 jobs (written out)", median(lambda: first_submit_written(1_000), 3))


if __name__ == "__main__":
    main()
