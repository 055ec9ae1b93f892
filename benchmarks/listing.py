"""Listing 100 jobs of many, in a new process."""

from _bench import Project, head, median, project, show

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import JobState

ORIGIN = Origin(Level.PROJECT, "Project", "bench", "/spec/defaults")


def fill(bench: Project, count: int) -> None:
    """Put jobs into the store as a reconcile would, a thousand to a flow."""
    store = Store(bench.state_dir)
    config = RunConfig(worker=Setting("w", ORIGIN), priority=Setting(0, ORIGIN))
    for first in range(0, count, 1000):
        name = f"flow-{first // 1000:03}"

        def write(writer: Writer, first: int = first, name: str = name) -> None:
            writer.put_flow(FlowRecord(name=name, identity="i", build_key="b"))
            for number in range(first, min(first + 1000, count)):
                writer.put_job(
                    JobRecord(
                        uuid=f"{number:032x}",
                        index=1,
                        flow=name,
                        key=f"value#{number}",
                        name="value",
                        function="reconciler.examples.value",
                        state=JobState.PAUSED,
                        config=config,
                        content="c" * 64,
                        sequence=number,
                    )
                )

        store.write(write)
    store.close()


def main() -> None:
    """Measure ``get jobs --limit 100``, ``get flows`` and ``get jobs --state``."""
    head()
    for count in (10_000, 100_000):
        with project() as bench:
            bench.commit()
            fill(bench, count)
            target = "<= 160 ms" if count == 100_000 else ""
            peer = "3.3 s" if count == 10_000 else ""
            took = median(lambda bench=bench: bench.run("get", "jobs", "--limit", "100"), 7)  # type: ignore[misc]
            show(f"get jobs --limit 100 of {count}", took, target, peer)
            show(f"get flows, {count} jobs", median(lambda bench=bench: bench.run("get", "flows"), 3))  # type: ignore[misc]


if __name__ == "__main__":
    main()
