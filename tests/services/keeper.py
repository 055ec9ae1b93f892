"""Watches over the services of a test run, for the case that pytest is killed: ``keeper DIRECTORY``.

It waits for the owner of the run to be gone. Normally the owner has removed the directory by then, and ended
this process too.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from tests.services.shared import owner_is_alive, remove_run

PAUSE_S = 0.5


def main(directory: Path) -> int:
    """Return 0 when the run is over and nothing of it is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while directory.exists() and owner_is_alive(directory):
        time.sleep(PAUSE_S)
    if directory.exists():
        remove_run(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
