"""A job that generates thousands of jobs, which another job waits for: recording its result, and listing."""

import time
from statistics import median as middle

from _bench import Project, head, median, project, show
from _inside import Silent, TimedStore, cpu

from reconciler.desired.source.git import open_source
from reconciler.execution.hosts.choice import Hosts
from reconciler.loop import Session

COUNTS = (200, 2_000, 20_000)
TARGET = 2_000


def taken_in(bench: Project, count: int) -> tuple[float, float]:
    """Run the generator; return the wall time of the one write transaction that takes it in, and its CPU."""
    store, hosts = TimedStore(bench.state_dir), Hosts()
    try:
        source = open_source(str(bench.repo), None, "", bench.root / "mirrors")
        session = Session(source, store, hosts=hosts)
        session.reconcile(Silent())
        executor = session.executor()
        while True:
            store.longest = store.its_cpu = 0.0
            executor.advance(time.time())
            with store.read() as view:
                if len(view.glances_of("generated")) == count + 2:
                    return store.longest, store.its_cpu
            time.sleep(0.02)
    finally:
        hosts.close()
        store.close()


def measure(count: int) -> None:
    """Measure one number of generated jobs."""
    wanted = ("<= 2 s", "<= 500 ms") if count == TARGET else ("", "")
    took = []
    for last in (False, False, True):
        with project() as bench:
            bench.flow("generated", "generated", count, suspend=False)
            bench.commit()
            took.append(taken_in(bench, count))
            if last:
                show(f"{count} generated jobs are recorded", middle(wall for wall, _ in took), wanted[0])
                show("- its CPU", middle(used for _, used in took))
                listing(bench, wanted[1])


def listing(bench: Project, wanted: str) -> None:
    """Measure what people look at then."""
    show("- get flows", median(lambda: bench.run("get", "flows"), 5), wanted)
    before = cpu()
    bench.run("get", "flows")
    show("- its CPU", cpu() - before)
    show("- plan: nothing to do", median(lambda: bench.run("plan"), 3))


def main() -> None:
    """Measure 200, 2 000 and 20 000 generated jobs."""
    head()
    for count in COUNTS:
        measure(count)


if __name__ == "__main__":
    main()
