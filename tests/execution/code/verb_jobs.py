"""Jobs that notice when they are not alone. User code: it runs on workers."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from jobflow import job


@job
def alone(folder: str) -> str:
    """Begin, with a child process, and go on once ``go`` is there; fail if another attempt still lives."""
    place = Path(folder)
    place.mkdir(exist_ok=True)
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the child has it, too
    if (child := os.fork()) == 0:
        time.sleep(120)
        os._exit(0)
    here = str(Path.cwd())
    with (place / "begun").open("a") as begun:
        begun.write(f"{here}\n")
    while not (place / "go").exists():
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    with (place / "done").open("a") as done:
        done.write(f"{here}\n")
    return here
