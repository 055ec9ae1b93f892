"""Random input for what reads from others: manifests, results, requests and backups.

``make fuzz`` runs this for minutes. Each example must end without an error that is not ours, in bounded time
and memory.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from reconciler.actual.backup import save_copy
from reconciler.actual.daemon_requests import Requests
from reconciler.actual.restore import drop, stage
from reconciler.actual.store import Store
from reconciler.desired.yaml.reader import parse_file
from reconciler.errors import ReconcilerError
from reconciler.execution.worker.termination import end_with_result
from tests.actual.fsck_support import furnish
from tests.support import ROOT

SECONDS = float(os.environ.get("RECONCILER_TEST_FUZZ", "0"))
"""How long each of the four runs; 0 is one short round that is always the same."""

MOST_CPU, MOST_MEMORY = 10.0, 200 << 20
"""Seconds and bytes that one example may take."""

MANIFESTS = sorted(ROOT.glob("example-repo/**/*.yaml"))
DOCUMENT = {"uuid": "u", "index": 1, "output": {"a": [1, 2.5, None]}, "metadata": {}}
JOB = {
    "uuid": "v",
    "index": 1,
    "name": "n",
    "function": {"@module": "m", "@callable": "f"},
    "function_args": [],
}
RESULT = {
    "ok": True,
    "started": 1.0,
    "ended": 2.0,
    "python": "3.11",
    "documents": [DOCUMENT],
    "blobs": {"data": [{"blob_uuid": "b", "job_uuid": "u", "job_index": 1}]},
    "refers": ["w"],
    "response": {"stored_data": {"x": 1}, "detour": [[JOB, []]], "stop_children": False},
}
PIECES = [
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'",
        b"\\",
        b"\n",
        b"\0",
        b"- ",
        b": ",
        b"? ",
        b"&a ",
        b"*a",
        b"!!x ",
        b"|\n",
    ),
    *(
        b">-\n",
        b"---\n",
        b"...\n",
        b"%YAML 1.1\n",
        b"<<: ",
        b"#",
        b"\t",
        b"\xff",
        b"\xef\xbb\xbf",
        b"1e999",
        b"~",
    ),
    *(b"9" * 400, b"NaN", b"null", b"true", b"[" * 3000, b'{"a":' * 3000, b"- " * 3000, b"a" * 70_000),
    *(
        "\u202e".encode(),
        "\u2028".encode(),
        b"\\ud800",
        b'{"@bytes": "AA=="}',
        b'"@class"',
        b"$output",
        b"../",
    ),
]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def changed(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Return one of some texts with pieces put in, taken out and moved."""
    text = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 40))
        text[place : place + length] = draw(st.sampled_from(PIECES) | st.binary(max_size=20))
    return bytes(text)


@st.composite
def changed_result(draw: st.DrawFn) -> bytes:
    """Return a result in which some values are others."""
    result: Any = json.loads(json.dumps(RESULT))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = result
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or draw(st.booleans()):
                place[key] = draw(PLAIN)
                break
            place = place[key]
    return json.dumps(result).encode()


def fuzz(strategy: st.SearchStrategy[bytes], target: Callable[[bytes], None], examples: int) -> None:
    """Give examples to a target until the time is up; each is measured."""

    def measured(data: bytes) -> None:
        began = time.process_time()
        tracemalloc.start()  # only here: Hypothesis itself would take five times as long
        try:
            target(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert time.process_time() - began < MOST_CPU
        assert peak < MOST_MEMORY

    deadline, number = time.monotonic() + SECONDS, 1
    while True:
        run = given(strategy)(measured)
        run = settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))(run)
        seed(number if not SECONDS else random.SystemRandom().getrandbits(64))(run)()
        number += 1
        if time.monotonic() >= deadline:
            break


def test_manifests() -> None:
    def read(data: bytes) -> None:
        parsed = parse_file(data)
        assert all(len(problem.message) < 2000 for problem in parsed.diagnostics)

    fuzz(changed([path.read_bytes() for path in MANIFESTS]) | st.binary(max_size=300), read, 25)


def test_results() -> None:
    def take(data: bytes) -> None:
        end = end_with_result(data)
        assert not end.unknown and (end.result is not None or end.error)

    fuzz(changed_result() | changed([json.dumps(RESULT).encode()]) | st.binary(max_size=300), take, 60)


def test_requests(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    requests.open()
    token = "0123456789abcdef"
    right = json.dumps({"token": token, "by": "ada", "time": 1.0, "allow_prune": False}).encode()

    def ask(data: bytes) -> None:
        (requests.directory / f"{token}.request").write_bytes(data)
        assert all(found.token == token for found in requests.pending())

    fuzz(changed([right]) | st.binary(max_size=300), ask, 60)


@pytest.fixture
def backup(tmp_path: Path) -> bytes:
    store = Store(tmp_path / "original")
    furnish(store)
    save_copy(store, tmp_path / "backup.mdb")
    store.close()
    return (tmp_path / "backup.mdb").read_bytes()


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """Return a backup with bytes changed, mostly those that are not zero, or cut off."""
    data = bytearray(original)
    used = [number for number, byte in enumerate(original) if byte]
    for _ in range(draw(st.integers(1, 20))):
        data[draw(st.sampled_from(used))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


def test_backups(backup: bytes, tmp_path: Path) -> None:
    """In a process of its own: the file is mapped into memory, so a fault would be fatal."""

    def restore(data: bytes) -> None:
        state = tmp_path / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        (tmp_path / "file").write_bytes(data)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(int(MOST_CPU) * 6)
                drop(stage(tmp_path / "file", state, 1.8e9).place)
                code = 0
            except ReconcilerError:
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    fuzz(damaged(backup), restore, 10)
