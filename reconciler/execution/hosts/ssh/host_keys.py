"""Whether a host is the right one: the known_hosts files of OpenSSH, read as OpenSSH reads them.

A host can have several keys of one type (login nodes behind one name), names can be hashed or patterns, and
keys can be revoked. This module alone decides, for every connection.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.execution.hosts.base import AccessError
from reconciler.model.connections import HostKeyPolicy

SYSTEM_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")


class _KnownKey(NamedTuple):
    """One line of a known_hosts file: ``marker`` is ``@revoked``, ``@cert-authority`` or empty."""

    marker: str
    names: str
    key_type: str
    key: bytes


class KnownHosts:
    """The known keys of one host. ``name`` is as in known_hosts: ``host``, or ``[host]:port``."""

    def __init__(self, name: str, files: Sequence[Path], policy: HostKeyPolicy, scan: str) -> None:
        self.name = name
        self._files = files
        self._policy = policy
        self._scan = scan

    @property
    def key_types(self) -> set[str]:
        """The types of the keys that the host is known by."""
        return {entry.key_type for entry in self._entries() if not entry.marker}

    def check(self, key_type: str, key: bytes) -> None:
        """Accept or refuse the key that the host presents; ``accept-new`` saves an unknown one.

        Raises
        ------
        AccessError
            The key is unknown, differs from the known one, or is revoked.
        """
        entries = list(self._entries())
        if any(entry.marker == "@revoked" and entry.key == key for entry in entries):
            raise AccessError(
                f"the host key of {self.name} is revoked: {fingerprint(key)}",
                hint="do not connect; ask the administrators of the host",
            )
        known = [entry for entry in entries if not entry.marker]
        if any(entry.key == key for entry in known):
            return
        if known:
            before = ", ".join(f"{entry.key_type} {fingerprint(entry.key)}" for entry in known)
            raise AccessError(
                f"the host key of {self.name} has changed: {key_type} {fingerprint(key)}; known is {before}",
                hint="someone may be intercepting the connection. If the administrators announced the "
                f"change, run `ssh-keygen -R '{self.name}' -f {self._files[0]}` and add the new key",
            )
        if self._policy is not HostKeyPolicy.ACCEPT_NEW:
            raise AccessError(
                f"the host key of {self.name} is unknown: {key_type} {fingerprint(key)}",
                hint="compare it with the key that the administrators publish, then run "
                f"`{self._scan} >> {self._files[0]}`; or set host_key_policy: accept-new",
            )
        self._add(key_type, key)

    def _add(self, key_type: str, key: bytes) -> None:
        line = f"{self.name} {key_type} {base64.b64encode(key).decode()}\n"
        path = self._files[0]
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with path.open("a+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                stream.seek(0)
                text = stream.read()
                if line.encode() not in text:  # another process may have added it
                    stream.write((b"" if text.endswith(b"\n") or not text else b"\n") + line.encode())
        except OSError as error:
            raise AccessError(
                f"the host key of {self.name} cannot be added to {path}: {error.strerror}",
                hint=f"make the file writable, or run `{self._scan}` and add its output",
            ) from error

    def _entries(self) -> Iterator[_KnownKey]:
        for file in self._files:
            try:
                text = file.read_text(errors="replace")
            except FileNotFoundError:
                continue
            except OSError as error:
                message = f"the known host keys in {file} cannot be read: {error.strerror}"
                raise AccessError(message, hint="make the file readable") from error
            yield from (entry for entry in _parsed(text) if matches(entry.names, self.name))


def _parsed(text: str) -> Iterator[_KnownKey]:
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if len(fields) >= 3:
            try:
                yield _KnownKey(marker, fields[0], fields[1], base64.b64decode(fields[2], validate=True))
            except binascii.Error:
                continue


def matches(patterns: str, name: str) -> bool:
    """Return whether the first field of a known_hosts line (``host,*.org,!bad.org,|1|...``) names a host."""
    found = False
    for pattern in patterns.split(","):
        negated = pattern.startswith("!")
        if _matches_one(pattern.removeprefix("!"), name.lower()):
            if negated:
                return False
            found = True
    return found


def _matches_one(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):  # a hashed name: |1|salt|hmac
        _, _, salt, expected = [*pattern.split("|"), "", "", ""][:4]
        try:
            digest = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
            return hmac.compare_digest(digest, base64.b64decode(expected))
        except binascii.Error:
            return False
    escaped = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(escaped, name) is not None


def fingerprint(key: bytes) -> str:
    """Return the fingerprint of a key as `ssh-keygen -l` prints it: ``SHA256:...``."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


class Policy:
    """The missing-host-key policy of paramiko's client, which is given no host keys and so always asks."""

    def __init__(self, known: KnownHosts) -> None:
        self._known = known

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Check a key; see :meth:`KnownHosts.check`."""
        self._known.check(key.get_name(), key.asbytes())
