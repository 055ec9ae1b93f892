"""Requests to a daemon: each is answered once, and what nobody needs any more goes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from reconciler.actual.daemon_requests import Answer, Requests
from reconciler.errors import WorldError

DONE = Answer(code=0, revision="main@1234567", lines=["no changes"])


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    found = Requests(tmp_path)
    found.open()
    return found


def names(requests: Requests) -> list[str]:
    return sorted(file.name for file in requests.directory.iterdir())


def test_a_request_is_answered_once(requests: Requests) -> None:
    token = requests.ask("ada", 10.0, allow_prune=True)
    (found,) = requests.pending()
    assert (found.token, found.by, found.time, found.allow_prune) == (token, "ada", 10.0, True)
    assert requests.take_answer(token) is None
    requests.answer([found], DONE)
    assert requests.pending() == []
    assert requests.take_answer(token) == DONE
    assert requests.take_answer(token) is None
    assert names(requests) == []


def test_the_oldest_comes_first(requests: Requests) -> None:
    tokens = [requests.ask("ada", when) for when in (3.0, 1.0, 2.0)]
    assert [found.token for found in requests.pending()] == [tokens[1], tokens[2], tokens[0]]


def test_who_asks_no_longer_gets_no_answer(requests: Requests) -> None:
    token = requests.ask("ada", 1.0)
    (found,) = requests.pending()
    requests.take_back(token)
    requests.answer([found], DONE)
    assert names(requests) == []


def test_what_is_no_request_is_removed(requests: Requests) -> None:
    (requests.directory / "x.request").write_text("half of it")
    assert requests.pending() == []
    assert names(requests) == []


def test_answers_that_nobody_took_are_removed_after_an_hour(requests: Requests) -> None:
    requests.ask("ada", 1.0)
    requests.answer(requests.pending(), DONE)
    (answer,) = requests.directory.iterdir()
    written = answer.stat().st_mtime
    requests.tidy_up(written + 3599)
    assert answer.exists()
    requests.tidy_up(written + 3601)
    assert not answer.exists()


def test_one_notice_a_request(requests: Requests, tmp_path: Path) -> None:
    """A half-written file is never in the directory that is watched."""
    requests.ask("ada", 1.0)
    assert [file.suffix for file in requests.directory.iterdir()] == [".request"]
    assert not list(tmp_path.glob(".*.partial"))


def test_nobody_else_may_look(requests: Requests) -> None:
    assert stat.S_IMODE(requests.directory.stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "requests").touch()
    with pytest.raises(WorldError, match="cannot write"):
        Requests(tmp_path).ask("ada", 1.0)


def test_a_poke_needs_no_directory(tmp_path: Path) -> None:
    Requests(tmp_path).poke()
    assert not (tmp_path / "requests").exists()
