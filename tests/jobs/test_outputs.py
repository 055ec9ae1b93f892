"""Outputs that JSON does not have: kept as with jobflow's ``run_locally``, and read back alike."""

from __future__ import annotations

import pytest

from reconciler.jobs.job_json import read_result
from tests.execution.support import World


@pytest.mark.usefixtures("warm")
def test_bytes_are_kept_and_reach_the_jobs_that_read_them(world: World) -> None:
    world.flow(
        "f",
        {"id": "a", "function": "some_bytes"},
        {"id": "b", "function": "joined", "args": [{"$output": "a"}]},
    )
    world.reconcile()
    world.run()
    assert world.states("f/a", "f/b") == ["COMPLETED", "COMPLETED"]
    wanted = {"blob": b"abc\x00\xff", "empty": b"", "list": [b"x", {"deep": b"y"}], "text": "@bytes"}
    assert world.output("f/a") == wanted
    assert world.output("f/b") == ["bytes b'abc\\x00\\xff'", "bytes b''", "bytes b'x'"]


@pytest.mark.parametrize("value", ['{"@bytes": "no base64!"}', '{"@bytes": 5}', '{"@bytes": "eA==", "b": 1}'])
def test_a_mapping_that_only_looks_like_bytes_stays_as_it_is(value: str) -> None:
    raw = f'{{"ok": true, "started": 1, "ended": 2, "documents": [{{"uuid": "a", "output": {value}}}]}}'
    assert isinstance(read_result(raw.encode()).documents[0]["output"], dict)
