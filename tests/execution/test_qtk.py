"""The threads of a daemon use qtoolkit for the first time at the same moment."""

from __future__ import annotations

import subprocess
import sys

THREADS = """
import sys, threading
from reconciler.execution import qtk

sys.setswitchinterval(1e-6)
calls = [
    lambda: qtk.standard_state("shell", "R"),
    lambda: qtk.scheduler_io("slurm"),
    lambda: qtk.scheduler_io("shell"),
]
begin = threading.Barrier(len(calls))
errors = []

def run(call):
    begin.wait()
    try:
        call()
    except BaseException as error:
        errors.append(repr(error))

threads = [threading.Thread(target=run, args=[call]) for call in calls]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit("; ".join(errors) or 0)
"""


def test_threads_that_import_it_at_once_do_not_wait_for_each_other() -> None:
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
