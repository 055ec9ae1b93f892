"""Jobs of the worker contract. User code: it runs on workers, in the run directory of the job."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

from jobflow import job


@job
def waits() -> str:
    """Write the own pid to ``pids``, and go on once there is a file ``go``."""
    _say([os.getpid()])
    while not Path("go").exists():
        time.sleep(0.02)
    return "went on"


@job
def clings() -> None:
    """Refuse to end when asked, together with a child; write both pids to ``pids``."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if (child := os.fork()) == 0:
        time.sleep(120)
        os._exit(0)
    _say([os.getpid(), child])
    time.sleep(120)


def _say(pids: list[int]) -> None:
    Path(".pids").write_text(" ".join(map(str, pids)))
    Path(".pids").rename("pids")


@job
def span(seconds: float = 0.0) -> list[float]:
    """Return when the job began and when it ended, in seconds since the epoch."""
    began = time.time()
    time.sleep(seconds)
    return [began, time.time()]


@job
def tells(*values: Any) -> dict[str, Any]:
    """Return what the job was given, its environment, and its directory."""
    return {"values": list(values), "environment": dict(os.environ), "directory": str(Path.cwd())}


@job
def adds(*numbers: float) -> float:
    """Return the sum."""
    return sum(numbers)


@job
def prints(text: str, error: str) -> None:
    """Print, also what is no text."""
    os.write(1, text.encode() + b"\xff\n")
    os.write(2, error.encode() + b"\n")


@job
def fails(text: str) -> NoReturn:
    """Raise an error."""
    raise ValueError(text)


@job
def leaves(code: int) -> NoReturn:
    """End the process at once, with last words."""
    os.write(2, b"last words\n")
    os._exit(code)


@job
def big(megabytes: int) -> list[str]:
    """Return that many strings of a million characters, each another one."""
    return [f"{number:08d}-{number * 7919:015d} " * 40_000 for number in range(megabytes)]
