"""Runs the launcher in a forked process for each run directory that stdin names; prints the exit codes.

What takes a second is the import of jobflow; here it happens once for many cases.
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from pathlib import Path

import launcher_jobs  # noqa: F401
from maggma.core import Store  # noqa: F401


def run(launcher: str, directory: str) -> None:
    os.chdir(directory)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    code = 70
    try:
        runpy.run_path(launcher, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    os._exit(code)


def main() -> None:
    launcher = sys.argv[1]
    for directory in sys.stdin.read().splitlines():
        child = os.fork()
        if child == 0:
            run(launcher, directory)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), Path(directory).name)


main()
