"""The edit of benchmarks/rules.py with jobflow-remote; runs in a separate environment, see _peer.py.

For each number of jobs that its arguments give it submits a flow and sets worker and priority of all its
jobs. Prints one line of JSON for each: seconds of wall time and of CPU of this process alone, without its
database.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

PROJECT = """
name: bench
base_dir: {home}/base
workers:
  w: &worker
    type: local
    scheduler_type: shell
    work_dir: {home}/work
    timeout_execute: 60
  w2: *worker
queue:
  store:
    type: MongoStore
    host: 127.0.0.1
    port: {port}
    database: queue
    collection_name: jobs
jobstore:
  docs_store:
    type: MongoStore
    host: 127.0.0.1
    port: {port}
    database: results
    collection_name: outputs
"""

WORKERS = ("w", "w2")


def main() -> None:
    """Arguments: a directory for everything, the port of the database, numbers of jobs."""
    home, port, *counts = sys.argv[1:]
    Path(home, "bench.yaml").write_text(PROJECT.format(home=home, port=port))
    os.environ |= {"JFREMOTE_PROJECTS_FOLDER": home, "JFREMOTE_PROJECT": "bench", "HOME": home}
    # Only now: jobflow-remote reads its settings when it is imported.
    from jobflow_remote.jobs.jobcontroller import JobController

    controller = JobController.from_project_name("bench")
    controller.reset()
    for count in map(int, counts):
        flow = submitted(count)
        repeats = 3 if count <= 100 else 1  # a minute and more of wall time each, in the database
        took = [edit(controller, flow, count, number) for number in range(1, repeats + 1)]
        walls, cpus = zip(*took, strict=True)
        answer = {"jobs": count, "wall": statistics.median(walls), "cpu": statistics.median(cpus)}
        print(json.dumps(answer), flush=True)


def submitted(count: int) -> str:
    """Submit a flow of this many jobs; return its uuid."""
    from jobflow import Flow, job
    from jobflow_remote import submit_flow

    @job
    def value(number: int) -> int:
        return number

    flow = Flow([value(number) for number in range(count)], name=f"many-{count}")
    submit_flow(flow, worker=WORKERS[0], project="bench")
    return str(flow.uuid)


def edit(controller: Any, flow: str, count: int, number: int) -> tuple[float, float]:
    """Set worker and priority of all jobs of a flow; return seconds of wall time and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = controller.set_job_run_properties(worker=WORKERS[number % 2], priority=number, flow_ids=flow)
    took = time.perf_counter() - wall, time.process_time() - cpu
    if len(done) != count:
        raise SystemExit(f"{len(done)} of {count} jobs were edited")
    return took


if __name__ == "__main__":
    main()
