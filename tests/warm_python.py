"""A Python that is there at once: a server that has imported everything forks for each script it is given.

Importing jobflow costs a second of processor time, the program itself a third, and most processes of the
tests do little else. ``command`` is run like ``python SCRIPT``, ``python -m MODULE`` or ``python -c TEXT``,
perhaps with ``-P``, and is their ``sys.executable``, so a program that runs by it builds and runs its jobs by
it, too. Each gets a process of its own with the real arguments, environment, directory, streams and exit
code, and dies if the command is killed.

Only for tests that are about what programs and jobs do. How they start, what they import, and how they are
killed is tested with the Python that runs the tests.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

IMPORTED = (
    "jobflow",
    "jobflow.core.schemas",
    "jobflow.utils.graph",
    "maggma.core",
    "monty.json",
    "numpy.random",
    "reconciler.cli.main",
    "reconciler.cli.once",
    "reconciler.cli.describe",
    "reconciler.cli.get",
    "reconciler.cli.plan",
    "reconciler.cli.planning",
    "reconciler.cli.saved_plan",
    "reconciler.cli.views.terminal_reporter",
    "reconciler.desired.yaml.reader",
    "reconciler.desired.schemas",
    "reconciler.build.construct",
    "reconciler.build.identity",
    "reconciler.build.round_trip",
    "reconciler.loop",
    "qtoolkit.io.shell",
)

CLIENT = """\
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [b"."], [0, 1, 2])
    request = {"cwd": os.getcwd(), "env": dict(os.environ), "argv": sys.argv[2:]}
    server.sendall(json.dumps(request).encode())
    server.shutdown(socket.SHUT_WR)
    code = int(server.makefile().read())
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextlib.contextmanager
def warm_python(*more: str, user: int | None = None) -> Iterator[Path]:
    """Start the server and yield the command; both end, and what they started, with the block.

    ``more`` modules are imported, too. ``user`` is the number of the user whom both are for, if it is another
    one.
    """
    with tempfile.TemporaryDirectory(prefix="warm-") as name:
        place = Path(name)  # not below pytest's directories: the address of a socket must be short
        command, client, address = place / "python", place / "client.py", place / "socket"
        client.write_text(CLIENT)
        start = [sys.executable, "-IS", str(client), str(address)]
        command.write_text(f'#!/bin/sh\nexec {shlex.join(start)} "$@"\n')
        command.chmod(0o755)
        if user is not None:
            os.chown(place, user, -1)
        server = subprocess.Popen(
            [sys.executable, __file__, str(address), str(command), *more],
            user=user,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        with server:  # ends when its stdin does
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield command


def serve(address: str) -> None:
    """Fork for every script that comes; when stdin ends, take along all that still runs."""
    for name in (*IMPORTED, *sys.argv[3:]):
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                attend(connection)
            connection.close()
    os.killpg(0, signal.SIGKILL)


def attend(connection: socket.socket) -> None:
    """Run one script in a process of its own, tell its exit code, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as file:
        request = json.load(file)
    child = os.fork()
    if child == 0:
        connection.close()
        run(request, streams)
    for stream in streams:
        os.close(stream)
    waiting = select.poll()
    waiting.register(os.pidfd_open(child), select.POLLIN)
    waiting.register(connection, 0)  # the command was killed
    if connection.fileno() in dict(waiting.poll()):
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(str(code).encode())
    os._exit(0)


def run(request: dict[str, Any], streams: Sequence[int]) -> None:
    """Become the process of a script."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 256)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    random.seed()
    sys.executable = sys.argv[2]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    code = outcome(request["argv"])
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            file.flush()
    os._exit(code)


def outcome(argv: list[str]) -> int:
    """Run what ``python ARGV`` would; return its exit code."""
    safe_path = argv[0] == "-P"
    argv = argv[safe_path:]
    module = argv[1] if argv[0] == "-m" else None
    command = argv[0] == "-c"
    sys.argv = ["-c", *argv[2:]] if command else argv[module is not None :]
    code_path = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    first = [] if safe_path else [str(Path.cwd() if module or command else Path(argv[0]).parent)]
    sys.path[0:1] = [*first, *code_path]
    try:
        if command:
            exec(argv[1], {"__name__": "__main__"})
        elif module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
