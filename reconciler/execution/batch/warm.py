"""A warm interpreter: imports jobflow once and forks for each job of a batch worker.

``python warm.py LAUNCHER FD`` runs in the environment of one exec_config, on a worker, beside the agent that
started it; like the launcher, it imports nothing of reconciler. The agent sends a line of JSON for each job
through the socket FD: ``{"marker": ..., "dir": ..., "module": ...}``. The answers are ``{"ready": true}``,
``{"marker": ..., "pid": ...}`` and ``{"marker": ..., "code": ...}``.

A job has its own session, process group, run directory and streams, and dies with this process. It begins
only if it is the first to create ``claim/process``; an agent that was started again may have been faster.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

LATE = 137
"""The exit code of a job that may not begin any more."""


def serve(launcher_path: str, channel: socket.socket) -> None:
    """Fork for every request until the agent closes the channel."""
    die_with(os.getppid())
    launcher = launcher_at(launcher_path)
    for name in ("jobflow", "monty.json", "maggma.core"):
        attempt_import(name)
    gc.collect()
    gc.freeze()
    wake, pinged = socket.socketpair()
    for end in (wake, pinged):
        end.setblocking(False)
    signal.set_wakeup_fd(pinged.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, str] = {}
    imported: set[str] = set()
    buffer = b""

    def tell(**answer: Any) -> None:
        with contextlib.suppress(OSError):  # an agent that is gone is noticed below
            channel.sendall(json.dumps(answer).encode() + b"\n")

    tell(ready=True)
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        with contextlib.suppress(BlockingIOError):
            wake.recv(4096)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid in running:
                    tell(marker=running.pop(pid), code=os.waitstatus_to_exitcode(status))
        if channel not in ready:
            continue
        chunk = channel.recv(1 << 16)
        if not chunk:
            return
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["module"] not in imported:
                imported.add(request["module"])
                attempt_import(request["module"])
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                begin(launcher, request, parent, [channel, wake, pinged])
            running[pid] = request["marker"]
            tell(marker=request["marker"], pid=pid)


def attempt_import(name: str) -> None:
    """Import a module; a job that needs it reports what is wrong, in its own directory."""
    directory = Path.cwd()
    while name:
        before = set(sys.modules)
        try:
            importlib.import_module(name)
            break
        except BaseException as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name and "." in name:
                name = name.rpartition(".")[0]  # of ``module.Class.method``
                continue
            for added in set(sys.modules) - before:
                del sys.modules[added]
            break
    os.chdir(directory)


def begin(launcher: Any, request: dict[str, Any], parent: int, private: list[socket.socket]) -> None:
    """Become the process of a job; never returns."""
    code = LATE
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with(parent)
        os.setsid()
        for end in private:
            end.close()
        os.chdir(request["dir"])
        streams = [os.open("queue.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)]
        streams.append(os.open("queue.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
            os.close(stream)
        os.environ["PWD"] = request["dir"]
        claim = os.open("claim/process", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(claim, f"{os.uname().nodename} {boot_id()} {os.getpid()}\n".encode())
        os.close(claim)
        for name in ("numpy.random", "torch"):  # Python's own generator is seeded anew after a fork
            if name in sys.modules:
                with contextlib.suppress(Exception):
                    sys.modules[name].seed()
        code = 1
        code = launcher.main()
        leave()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except FileExistsError:
        code = LATE
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def leave() -> None:
    """Do what an interpreter does before it ends: wait for threads, and run what was registered for then."""
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does
    atexit._run_exitfuncs()


def die_with(parent: int) -> None:
    """Let this process be killed when its parent ends; at once if that has happened."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(LATE)


def boot_id() -> str:
    """Return the id of the boot of this machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or "-"
    return "-"


def launcher_at(path: str) -> Any:
    """Return the module of the launcher."""
    spec = importlib.util.spec_from_file_location("reconciler_launcher", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reconciler_launcher"] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
