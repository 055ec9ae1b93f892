"""Delivery to real commands, a real HTTP server, and real apprise."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from reconciler.errors import TransientError
from reconciler.model.connections import Secret
from reconciler.model.notifications import Notice, NotifyRule, Webhook, message_of
from reconciler.notify.targets import deliver

MESSAGE = message_of(
    "metals",
    "r",
    [Notice(object="flow/eos-al", reason="JobsFailed", message="strain-1 FAILED: é", fix="retry")],
)


class Server(HTTPServer):
    """Keeps what it receives; answers ``status``."""

    status = 200
    location = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def rule(**target: object) -> NotifyRule:
    return NotifyRule(name="r", **target)  # type: ignore[arg-type]


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_command_gets_json_on_its_standard_input(tmp_path: Path) -> None:
    tell = script(tmp_path / "tell it", f"cat > '{tmp_path}/said'; echo \"$1\" > '{tmp_path}/arguments'")
    deliver(rule(command=[str(tell), "$(touch x); a b"]), MESSAGE)
    said = json.loads((tmp_path / "said").read_text())
    assert said["project"] == "metals"
    assert said["notices"] == [
        {
            "object": "flow/eos-al",
            "reason": "JobsFailed",
            "message": "strain-1 FAILED: é",
            "fix": "retry",
            "revision": "",
            "labels": {},
        }
    ]
    assert (tmp_path / "arguments").read_text() == "$(touch x); a b\n"


def test_a_command_sees_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_PASSWORD", "canary")
    tell = script(tmp_path / "tell", f"env > '{tmp_path}/env'")
    deliver(rule(command=[str(tell)]), MESSAGE)
    assert "canary" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [("echo out of order >&2; exit 3", "ended with 3: out of order"), ("exit 4", "ended with 4")],
)
def test_a_command_that_fails_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TransientError, match=said):
        deliver(rule(command=[str(script(tmp_path / "tell", text))]), MESSAGE)


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="nowhere"):
        deliver(rule(command=[str(tmp_path / "nowhere")]), MESSAGE)


def test_mail_goes_through_sendmail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin" / "sendmail", f"cat > '{tmp_path}/mail'; echo \"$@\" > '{tmp_path}/arguments'")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    deliver(rule(mail=["ada@example.org", "bo@example.org"]), MESSAGE)
    mail = (tmp_path / "mail").read_text()
    head, _, body = mail.partition("\n\n")
    assert "To: ada@example.org, bo@example.org" in head
    assert "Subject: [metals] flow/eos-al: JobsFailed" in head
    assert "strain-1 FAILED" in body
    assert (tmp_path / "arguments").read_text() == "-oi -t\n"


def test_a_webhook_is_signed(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    deliver(rule(webhook=Webhook(url=f"{server.url}/hook", secret=Secret(file=str(secret)))), MESSAGE)
    ((path, headers, body),) = server.received
    assert path == "/hook"
    assert json.loads(body)["subject"] == "[metals] flow/eos-al: JobsFailed"
    expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["X-Reconciler-Signature"] == f"sha256={expected}"


def test_a_webhook_without_a_secret_has_no_signature(server: Server) -> None:
    deliver(rule(webhook=Webhook(url=server.url)), MESSAGE)
    ((_, headers, _),) = server.received
    assert "X-Reconciler-Signature" not in headers


@pytest.mark.parametrize("status", [302, 307, 404, 500])
def test_an_answer_other_than_success_is_a_failure(server: Server, status: int) -> None:
    server.status, server.location = status, f"{server.url}/elsewhere"
    with pytest.raises(TransientError, match=str(status)):
        deliver(rule(webhook=Webhook(url=f"{server.url}/hook")), MESSAGE)
    assert [path for path, _, _ in server.received] == ["/hook"]


def test_a_webhook_that_does_not_answer_is_a_failure(server: Server) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(TransientError, match=url):
        deliver(rule(webhook=Webhook(url=url)), MESSAGE)


def test_a_secret_that_others_can_read_is_not_used(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    with pytest.raises(TransientError, match="can be read by others"):
        deliver(rule(webhook=Webhook(url=server.url, secret=Secret(file=str(secret)))), MESSAGE)
    assert not server.received


def test_apprise_delivers_by_its_own_configuration(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "apprise.yaml"
    config.write_text(f"urls:\n  - json://127.0.0.1:{server.server_port}/hook\n")
    deliver(rule(apprise=str(config)), MESSAGE)
    ((_, _, body),) = server.received
    assert "strain-1 FAILED" in json.loads(body)["message"]


@pytest.mark.parametrize("content", [None, "urls:\n  - json://127.0.0.1:1/hook\n", "urls: []\n"])
def test_apprise_that_delivers_nothing_is_a_failure(tmp_path: Path, content: str | None) -> None:
    config = tmp_path / "apprise.yaml"
    if content is not None:
        config.write_text(content)
    with pytest.raises(TransientError, match=r"apprise"):
        deliver(rule(apprise=str(config)), MESSAGE)
