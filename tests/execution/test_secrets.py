"""Secrets are read from where they are said to be, and are never part of an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.execution.hosts.base import AccessError
from reconciler.execution.secrets import read_secret
from reconciler.model.connections import Secret


def file_with(path: Path, content: bytes, mode: int = 0o600) -> Secret:
    path.write_bytes(content)
    path.chmod(mode)
    return Secret(file=str(path))


def test_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHRASE", " with blanks ✓ ")
    assert read_secret(Secret(env="PHRASE"), "the passphrase") == " with blanks ✓ "


@pytest.mark.parametrize(
    ("content", "secret"), [(b"a b\n", "a b"), (b"a b", "a b"), (b" \xc3\xa4\r\n", " ä")]
)
def test_of_a_file(tmp_path: Path, content: bytes, secret: str) -> None:
    assert read_secret(file_with(tmp_path / "s", content), "the password") == secret


def test_of_a_file_in_the_home_directory() -> None:
    file_with(Path("~/secret").expanduser(), b"x")
    assert read_secret(Secret(file="~/secret"), "the password") == "x"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read(tmp_path: Path, mode: int) -> None:
    secret = file_with(tmp_path / "s", b"hunter2", mode)
    with pytest.raises(AccessError, match=f"can be read by others \\(mode {mode:o}\\)") as caught:
        read_secret(secret, "the password")
    assert caught.value.hint == f"run `chmod 600 {tmp_path}/s`"
    assert "hunter2" not in f"{caught.value!r}{caught.value.hint}"


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHRASE", raising=False)
    with pytest.raises(
        AccessError,
        match=r"the passphrase \{env: PHRASE\}: the environment of reconciler lacks this variable",
    ):
        read_secret(Secret(env="PHRASE"), "the passphrase")
    with pytest.raises(AccessError, match=r"the password \{file: .*/none\} cannot be read: No such file"):
        read_secret(Secret(file=f"{tmp_path}/none"), "the password")


def test_empty_and_unreadable_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHRASE", "")
    with pytest.raises(AccessError, match="is empty"):
        read_secret(Secret(env="PHRASE"), "the passphrase")
    with pytest.raises(AccessError, match="is empty"):
        read_secret(file_with(tmp_path / "s", b"\n"), "the passphrase")
    with pytest.raises(AccessError, match="is not text"):
        read_secret(file_with(tmp_path / "b", b"\xff\xfe"), "the passphrase")
    with pytest.raises(AccessError, match="Is a directory"):
        read_secret(Secret(file=str(tmp_path)), "the passphrase")
