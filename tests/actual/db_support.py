"""What the tests of the LMDB environment share: other processes and writes of a known size."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from reconciler.actual.db import Database, Transaction

ROOT = Path(__file__).parents[2]
SMALL = 2**20  # bytes: a map that is soon full
HEAD = """
import os, sys
from pathlib import Path
from reconciler.actual import db
path = Path(sys.argv[1])
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run Python with ``db``, ``os``, ``sys`` and ``path`` (the first argument) at hand."""
    program = [sys.executable, "-c", HEAD + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(
        program, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(code: str, *arguments: object) -> str:
    """Run Python to its end and return what it prints."""
    with start(code, *arguments) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def fill(mark: int, size: int = SMALL // 4) -> Callable[[Transaction], None]:
    """A write that gives two entries the same content."""

    def change(txn: Transaction) -> None:
        for key in (b"a", b"b"):
            txn.put("jobs", key, bytes([mark]) * size)
            txn.put("jobs", b"%s%d" % (key, mark), bytes([mark]) * size)

    return change


def size_of(database: Database) -> int:
    return int(database._env.info()["map_size"])


def in_child(work: Callable[[], str]) -> str:
    """Fork, work there, and return what came of it."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = work()
        except BaseException as error:
            told = f"failed: {error!r}"
        os.write(send, told.encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as stream:
        told = stream.read()
    os.waitpid(child, 0)
    return told
