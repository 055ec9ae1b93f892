"""Secrets: read when they are needed, from the environment or from a file that only its owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reconciler.execution.hosts.base import AccessError
from reconciler.model.connections import Secret

_LONGEST_SECRET = 10_000
"""Bytes that are read of a file."""


def read_secret(secret: Secret, what: str) -> str:
    """Return a secret without the line break at its end. ``what`` names it in errors: ``the password``.

    Raises
    ------
    AccessError
        It does not exist, is empty, or is in a file that other users can read. The text never quotes it.
    """
    value = _from_variable(secret, what) if secret.env is not None else _from_file(secret, what)
    if not value:
        raise AccessError(f"{what} {secret.spoken} is empty", hint="put the secret there")
    return value


def _from_variable(secret: Secret, what: str) -> str:
    name = secret.env or ""
    if name not in os.environ:
        raise AccessError(
            f"{what} {secret.spoken}: the environment of reconciler lacks this variable",
            hint=f"set {name} where reconciler is started, or use {{file: PATH}}",
        )
    return os.environ[name]


def _from_file(secret: Secret, what: str) -> str:
    path = Path(secret.file or "").expanduser()
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            raw = stream.read(_LONGEST_SECRET) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise AccessError(
            f"{what} {secret.spoken} cannot be read: {error.strerror}",
            hint=f"write the secret to {path} and run `chmod 600 {path}`",
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise AccessError(
            f"{what} {secret.spoken} can be read by others (mode {stat.S_IMODE(mode):o}) and is not used",
            hint=f"run `chmod 600 {path}`",
        )
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise AccessError(f"{what} {secret.spoken} is not text", hint="write it as UTF-8") from None
