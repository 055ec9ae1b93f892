"""jobflow-remote 1.0.1 with its own database, in a separate environment.

It is never imported here. The environment is made when first asked for, in ``benchmarks/peer/.venv``. No
MongoDB server can be installed by pip; SecantusDB speaks its protocol. What that server costs says nothing
about jobflow-remote: so the CPU time of its client is given apart from the wall time, as the lower bound
with any server.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

HERE = Path(__file__).resolve().parent / "peer"
VENV = HERE / ".venv"
PYTHON = str(VENV / "bin" / "python")
REQUIREMENTS = HERE / "requirements.txt"
STAMP = VENV / "requirements.stamp"


class Peer(msgspec.Struct, frozen=True):
    """The cost of one edit of this many jobs: seconds of wall time, and of CPU of the client."""

    jobs: int
    wall: float
    cpu: float


def peer(counts: Sequence[int]) -> dict[int, Peer]:
    """Make the edit with jobflow-remote; return the cost by number of jobs."""
    _provide()
    with tempfile.TemporaryDirectory(prefix="peer-bench-") as home, _database(Path(home)) as port:
        command = [PYTHON, str(HERE / "client.py"), home, str(port), *map(str, counts)]
        done = subprocess.run(command, cwd=home, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("jobflow-remote could not be measured, see above")
    found = [msgspec.json.decode(line, type=Peer) for line in done.stdout.splitlines() if line[:1] == "{"]
    return {one.jobs: one for one in found}


def _provide() -> None:
    """Make the environment, unless it is there with these requirements."""
    wanted = REQUIREMENTS.read_text()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    print(f"making {VENV} with jobflow-remote and SecantusDB", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)
    STAMP.write_text(wanted)


@contextmanager
def _database(home: Path) -> Iterator[int]:
    """Run the server in a separate process on a free port; yield the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [str(VENV / "bin" / "secantusd-py"), "--storage-path", str(home / "data"), "--port", str(port)]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
        try:
            _wait_for(port, server)
            yield port
        finally:
            server.terminate()
            server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("SecantusDB did not start")


if __name__ == "__main__":
    print(json.dumps(msgspec.to_builtins(list(peer([int(count) for count in sys.argv[1:]]).values()))))
