"""``reconcile output`` of a large value: in little more memory than the value takes itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.watch.support import WatchWorld

NUMBERS = 2_500_000
MAKE = f"""
from jobflow import job

@job
def numbers(kind):
    values = [n / 7 for n in range({NUMBERS})]
    return {{"values": values, "count": {NUMBERS}}} if kind == "mapping" else values
"""


FILE = """
from pathlib import Path
from jobflow import job

@job
def write():
    with open("large.bin", "wb") as stream:
        stream.truncate(1 << 30)
        stream.write(b"begin")
    return str(Path("large.bin").resolve())

@job
def size(path):
    return Path(path).stat().st_size

@job
def content():
    return b"\\x00\\xff\\n" * 50_000
"""


def peak(watched: WatchWorld, printed: Path, *arguments: str) -> int:
    """Run a command, with its output in a file; return its highest memory in MiB."""
    # Not ru_maxrss: that of a new process begins with what its parent has.
    run = "import sys; from reconciler.cli.main import main\ntry: main()\n"
    run += "finally: print(open('/proc/self/status').read(), file=sys.stderr)"
    with printed.open("wb") as stream:
        done = subprocess.run(
            [sys.executable, "-c", run, "--state-dir", str(watched.state), *arguments],
            cwd=watched.repository.path,
            stdout=stream,
            stderr=subprocess.PIPE,
            check=True,
        )
    highest = re.search(rb"VmHWM:\s+(\d+)", done.stderr)
    assert highest is not None
    return int(highest[1]) >> 10


def test_a_file_of_a_gigabyte_stays_where_it_is(watched: WatchWorld, tmp_path: Path) -> None:
    watched.repository.write("lib/large.py", FILE)
    jobs = [{"id": "a", "function": "large.write"}]
    jobs.append({"id": "c", "function": "large.content"})
    jobs.append({"id": "b", "function": "large.size", "args": [{"$output": "a"}]})
    watched.put("Flow", "f", {"jobs": jobs})
    watched.commit()
    assert peak(watched, tmp_path / "said", "--once", "--wait") < 256
    assert watched.run("output", "f/b").stdout.strip() == str(1 << 30)
    assert peak(watched, tmp_path / "path", "output", "f/a", "-o", "raw") < 100
    assert Path((tmp_path / "path").read_text()).stat().st_size == 1 << 30
    peak(watched, tmp_path / "bytes", "output", "f/c", "-o", "raw")
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff\n" * 50_000
    assert peak(watched, Path("/dev/null"), "files", "f/a", "large.bin") < 100


@pytest.mark.parametrize("kind", ["mapping", "list"])
def test_it_is_printed_piece_by_piece(watched: WatchWorld, kind: str, tmp_path: Path) -> None:
    watched.repository.write("lib/large.py", MAKE)
    job = {"id": "a", "function": "large.numbers", "args": [kind]}
    watched.put("Flow", "f", {"jobs": [job]})
    watched.commit()
    assert watched.run("--once", "--wait").returncode == 0
    printed = tmp_path / "printed.json"
    highest = peak(watched, printed, "output", "f/a")
    size = 9 * NUMBERS >> 20  # MiB; once from the store, once mapped
    assert highest < 60 + 3 * size
    value = json.loads(printed.read_bytes())
    values = value["values"] if kind == "mapping" else value
    assert (len(values), values[7]) == (NUMBERS, 1.0)
