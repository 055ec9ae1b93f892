"""What the manager of services hears of the daemon, by sd_notify(3)."""

from __future__ import annotations

import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.watch.support import PATIENCE, WatchWorld


class Manager:
    """The other end: a socket on which the daemon sends its facts."""

    def __init__(self, talk: socket.socket) -> None:
        self._talk = talk
        self.heard: list[str] = []

    def until(self, fact: str) -> str:
        """Wait for a fact that begins so, and return it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for found in self.heard:
                if found.startswith(fact):
                    return found
            self._talk.settimeout(max(0.01, deadline - time.monotonic()))
            self.heard += self._talk.recv(65536).decode().split("\n")


@contextmanager
def listening(address: str) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as talk:
        talk.bind(address)
        yield Manager(talk)


@pytest.fixture(params=["file", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address as systemd writes it into the environment."""
    return str(tmp_path / "notify") if request.param == "file" else f"@reconcile-{secrets.token_hex(8)}"


def test_a_service_tells_how_it_is(watched: WatchWorld, address: str) -> None:
    gate = watched.waiting_flow("flow")
    revision = watched.commit()
    with listening(address.replace("@", "\0")) as manager:
        watch = watched.start(env={"NOTIFY_SOCKET": address})
        manager.until("READY=1")
        manager.until("WATCHDOG=1")
        manager.until(f"STATUS={revision}; 1 job")
        manager.heard.clear()
        manager.until("WATCHDOG=1")
        gate.touch()
        manager.until(f"STATUS={revision}; 0 job")
        watch.send(signal.SIGTERM)
        manager.until("STOPPING=1")
        assert watch.wait() == 0


def test_builds_and_jobs_do_not_speak_for_the_service(watched: WatchWorld, tmp_path: Path) -> None:
    """They would be refused, or taken for it."""
    seen = tmp_path / "seen"
    watched.repository.write("lib/looking.py", _LOOKING.format(file=str(seen)))
    watched.put("Flow", "look", {"factory": {"function": "looking.make"}})
    watched.commit()
    with listening(str(tmp_path / "notify")):
        watched.start(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        watched.until_state("look/look", "COMPLETED")
    lines = seen.read_text().split()
    assert "build" in lines
    assert "job" in lines
    assert "NOTIFY_SOCKET" not in lines


_LOOKING = """
import os
from jobflow import Flow, job


def note(what):
    with open({file!r}, "a") as file:
        print(what, *(["NOTIFY_SOCKET"] if "NOTIFY_SOCKET" in os.environ else []), file=file)


@job
def look():
    note("job")


def make():
    note("build")
    return Flow([look()])
"""


def test_a_manager_that_does_not_listen_is_no_reason_to_stop(watched: WatchWorld, tmp_path: Path) -> None:
    watched.commit()
    watch = watched.start(env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    watch.until("reconciled")
    assert watch.end() == 0
