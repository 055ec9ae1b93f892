"""A token in the URL of a remote reaches the server, and no place where others could read it."""

from __future__ import annotations

import base64
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from reconciler.cli.systemd import unit
from reconciler.desired.source.command import without_password, without_secrets
from reconciler.desired.source.mirror import mirror_of
from reconciler.errors import TransientError
from tests.support import Repository

TOKEN = "canary%2Ftoken"
PLAIN = "canary/token"


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves files to who gives the password, and looks who can read it meanwhile."""

    seen: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if PLAIN.encode() in command or TOKEN.encode() in command:
                self.seen.add(command.decode(errors="replace"))
        if PLAIN.encode() in base64.b64decode(given or "Og=="):
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port(repository: Repository) -> Iterator[int]:
    repository.write("a", "b")
    repository.commit()
    repository.run("update-server-info")
    Server.seen.clear()
    handler = functools.partial(Server, directory=str(repository.path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("userinfo", [f"ada:{TOKEN}", TOKEN, f"{TOKEN}:x-oauth-basic", f":{TOKEN}"])
def test_a_fetch(port: int, tmp_path: Path, userinfo: str) -> None:
    url = f"http://{userinfo}@127.0.0.1:{port}/.git"
    mirror = mirror_of(url, tmp_path / "mirrors", fetch=True)
    assert mirror_of(url, tmp_path / "mirrors", fetch=True) == mirror
    assert mirror_of(url.replace(TOKEN, "renewed"), tmp_path / "mirrors", fetch=False) == mirror
    assert Server.seen == set()
    for file in (tmp_path / "mirrors").rglob("*"):
        assert PLAIN not in str(file) and TOKEN not in str(file)
        if file.is_file():
            content = file.read_bytes()
            assert PLAIN.encode() not in content and TOKEN.encode() not in content, file


def test_a_mirror_of_an_earlier_version_goes(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://ada:{TOKEN}@127.0.0.1:{port}/.git"
    with monkeypatch.context() as patch:
        patch.setattr("reconciler.desired.source.mirror.without_secrets", lambda url: (url, {}))
        former = mirror_of(url, tmp_path, fetch=True)
    assert TOKEN in (former / "config").read_text()
    assert mirror_of(url, tmp_path, fetch=True) != former
    assert not former.exists()


def test_a_refusal(port: int, tmp_path: Path) -> None:
    with pytest.raises(TransientError) as caught:
        mirror_of(f"http://ada:wrong-{TOKEN[:6]}@127.0.0.1:{port}/.git", tmp_path, fetch=True)
    assert "wrong-canary" not in caught.value.message + (caught.value.hint or "")


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://t@h/x", "https://h/x"),
        ("https://u:p@h/x", "https://h/x"),
        ("http://u:p%40@h:1/x", "http://h:1/x"),
        ("https://h/x@y", "https://h/x@y"),
        ("ssh://git@h/x", "ssh://git@h/x"),
        ("git@h:x", "git@h:x"),
        ("/a@b", "/a@b"),
        ("https://h/", "https://h/"),
        ("https://:p@h/", "https://h/"),
        ("https://@h/", "https://h/"),
    ],
)
def test_urls(url: str, plain: str) -> None:
    assert without_secrets(url)[0] == plain
    assert "p%40" not in without_password(url)
    assert plain in unit(["reconcile", plain], plain, Path("/home"), {})
