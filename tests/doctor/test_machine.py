"""Doctor on this machine and its state directory."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

import reconciler.actual.state_dir as state_dir_module
from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from reconciler.doctor.check import Check, Status, first_line, space_finding
from reconciler.doctor.machine import STATE_DIR_CHECKS, Here, check_machine
from reconciler.files import space_text


def checks(state_dir: Path | None, problem: str = "") -> dict[str, Check]:
    return {check.name: check for check in check_machine(Here(state_dir, problem))}


def listing(directory: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in directory.rglob("*"))


def test_nothing_is_there_yet_and_nothing_is_made(tmp_path: Path) -> None:
    found = checks(tmp_path / "deep" / "state")
    assert [check.name for check in found.values()] == [
        "python",
        "git",
        *(name for name, _ in STATE_DIR_CHECKS),
    ]
    assert {check.status for check in found.values()} == {Status.OK, Status.SKIPPED}
    assert "does not exist yet" in found["state directory"].message
    assert found["store"].message == "no state yet"
    assert found["lease"].message == "free"
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


def test_unknown_state_directory_is_no_failure_of_its_own() -> None:
    found = checks(None, "there is no repository")
    assert found["python"].status is Status.OK
    skipped = [check for check in found.values() if check.status is Status.SKIPPED]
    assert {check.message for check in skipped} == {
        "the state directory is not known: there is no repository"
    }
    assert "store" in {check.name for check in skipped}


def test_a_good_state_is_left_as_it_is(state_dir: Path) -> None:
    state_dir.mkdir(mode=0o700)
    Store(state_dir).close()
    before = (state_dir / "lmdb" / "data.mdb").read_bytes()
    found = checks(state_dir)
    assert {check.status for check in found.values()} == {Status.OK}
    assert "opens, schema 3; no revision was applied yet" in found["store"].message
    assert (state_dir / "lmdb" / "data.mdb").read_bytes() == before
    assert [path.name for path in state_dir.iterdir()] == ["lmdb"], "no probe file stays"


def test_state_that_others_can_read(state_dir: Path) -> None:
    state_dir.mkdir()
    state_dir.chmod(0o755)
    check = checks(state_dir)["permissions"]
    assert (check.status, check.fix) == (Status.WARNING, f"chmod 700 {state_dir}")
    assert "mode 0755" in check.message


def test_a_network_file_system_is_no_place_for_the_state(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of this machine is declared to be one."""
    found = state_dir_module._file_system(state_dir)
    monkeypatch.setattr(state_dir_module, "_NETWORK_FILE_SYSTEMS", frozenset([found]))
    check = checks(state_dir)["state directory"]
    assert check.status is Status.FAILED
    assert f"network file system ({found})" in check.message
    assert "--state-dir" in check.fix


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = checks(tmp_path / "file" / "state")["state directory"]
    assert check.status is Status.FAILED
    assert f"{tmp_path / 'file'} is a file" in check.message
    assert "--state-dir" in check.fix


def test_damaged_store(state_dir: Path) -> None:
    (state_dir / "lmdb").mkdir(parents=True)
    (state_dir / "lmdb" / "data.mdb").write_bytes(b"no store" * 4096)
    check = checks(state_dir)["store"]
    assert check.status is Status.FAILED
    assert "is damaged, or is not a store" in check.message
    assert "restore a backup" in check.fix


def test_git_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = checks(tmp_path / "state")["git"]
    assert (check.status, check.fix) == (Status.FAILED, "install git, and put it on the PATH")


def test_git_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(f"#!{shutil.which('bash')}\necho 'no such library' >&2\nexit 127\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(git.parent))
    check = checks(tmp_path / "state")["git"]
    assert (check.status, check.message) == (Status.FAILED, "does not work: no such library")


class TestLease:
    """Who holds it is told without touching it."""

    def test_held(self, state_dir: Path) -> None:
        with Lease(state_dir) as lease:
            lease.acquire(time.time())
            assert "held by pid" in checks(state_dir)["lease"].message
        assert checks(state_dir)["lease"].message == "free", "the note stays, the lock does not"

    def test_looking_takes_nothing(self, state_dir: Path) -> None:
        Lease(state_dir).holder()
        assert not state_dir.exists()
        with Lease(state_dir) as first:
            first.acquire(time.time())
        assert Lease(state_dir).holder() is None
        with Lease(state_dir) as second:
            second.acquire(time.time())
            assert Lease(state_dir).holder() is not None


@pytest.mark.parametrize(
    ("free", "text"),
    [
        (0, "0 bytes"),
        (1500, "1.5 KiB"),
        (2**30, "1.0 GiB"),
        (250 * 2**30, "250 GiB"),
        (5 * 2**50, "5120 TiB"),
    ],
)
def test_space_in_words(free: int, text: str) -> None:
    assert space_text(free) == text


def test_little_space_is_a_warning() -> None:
    assert space_finding(2**30, "here", "fix").status is Status.OK
    low = space_finding(2**30 - 1, "here", "fix")
    assert (low.status, low.fix) == (Status.WARNING, "fix")
    assert low.message == "only 1024 MiB in here"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n  bash: line 12: x: not found\nmore", "x: not found"),
        ("main: line 3: /a b/python: No such file", "/a b/python: No such file"),
        ("plain: line of text", "plain: line of text"),
        ("", ""),
    ],
)
def test_first_line_that_says_anything(text: str, line: str) -> None:
    assert first_line(text) == line
