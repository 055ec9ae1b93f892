"""A reconcile with nothing to do: must cost the same with 10 jobs and with 10 000."""

from _bench import floor, head, median, project, show


def main() -> None:
    """Measure a bare interpreter with the imports of the program, then the no-op by number of jobs."""
    head()
    show("bare python", floor())
    imports = floor("import click, lmdb, msgspec, json, subprocess, tempfile, traceback, platform, importlib")
    show("bare python with click, lmdb and msgspec", imports)
    for count in (10, 1_000, 10_000):
        with project() as bench:
            bench.flow("many", "many", count, suspend=True)
            bench.commit()
            bench.run("--once")
            took = median(lambda bench=bench: bench.run("--once"), 9)  # type: ignore[misc]
            target = f"<= {2.5 * imports * 1000:.0f} ms, flat"
            show(f"nothing to do, {count} jobs", took, target, "(`jf --help`: 1.35 s)")


if __name__ == "__main__":
    main()
