"""Delivering a message: to a command, a webhook, by mail, or through apprise. Each try has a time limit."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import shlex
import urllib.error
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.secrets import read_secret
from reconciler.model.notifications import Message, NotifyRule, Webhook

TIMEOUT = 30.0
"""Seconds for one try."""


def deliver(rule: NotifyRule, message: Message) -> None:
    """Deliver a message to the target of a rule.

    Raises
    ------
    TransientError
        The target did not take it; the text says why.
    """
    if rule.command is not None:
        _run(shlex.join(rule.command), _json(message), rule.command[0])
    elif rule.webhook is not None:
        _post(rule.webhook, _json(message))
    elif rule.mail is not None:
        # On many systems sendmail is in a directory that is not on the PATH of users.
        _run("PATH=$PATH:/usr/sbin:/usr/lib; sendmail -oi -t", _mail(rule.mail, message), "sendmail")
    else:
        _apprise(rule.apprise or "", message)


def _json(message: Message) -> bytes:
    return msgspec.json.encode(message.data)


def _run(script: str, data: bytes, name: str) -> None:
    """Run a command in the clean environment of local jobs, with ``data`` as its standard input."""
    result = LocalHost().run(script, TIMEOUT, data=[data])
    if result.exit_code != 0:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise TransientError(f"{name} ended with {result.exit_code}" + (f": {said[-1]}" if said else ""))


def _post(webhook: Webhook, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "reconciler"}
    if webhook.secret is not None:
        secret = read_secret(webhook.secret, "the secret of the webhook").encode()
        headers["X-Reconciler-Signature"] = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    request = urllib.request.Request(webhook.url, body, headers, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        raise TransientError(f"{webhook.url} answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise TransientError(f"{webhook.url}: {getattr(error, 'reason', error)}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a signed message goes to the host that the manifest names, and to no other."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _mail(addresses: list[str], message: Message) -> bytes:
    mail = EmailMessage()
    mail["To"] = ", ".join(addresses)
    mail["Subject"] = message.subject
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    return mail.as_bytes()


def _apprise(file: str, message: Message) -> None:
    try:
        import apprise
    except ImportError:
        raise TransientError(
            "the package apprise is not installed", hint="run `pip install 'jobflow-reconciler[apprise]'`"
        ) from None
    path = Path(file).expanduser()
    if not path.is_file():
        raise TransientError(f"{path} does not exist", hint="write the URLs of apprise there")
    config = apprise.AppriseConfig()
    config.add(str(path))
    targets = apprise.Apprise()
    targets.add(config)
    if not targets.notify(title=message.subject, body=message.text):
        raise TransientError(f"apprise could not deliver to every target of {path}")
