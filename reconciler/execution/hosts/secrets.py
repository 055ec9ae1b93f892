"""Passphrases and passwords, read when they are needed from where a manifest says they are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reconciler.errors import TransientError
from reconciler.model.connections import Secret

# What a person has to put right before a host lets us in.


class AccessError(TransientError):
    """The host refuses us, or we refuse the host: an unknown host key, no fitting key, a missing secret.

    An outage for the jobs, which wait; but one that does not heal by itself. The hint tells what to do.
    """


_LONGEST = 10_000


def read_secret(secret: Secret, what: str) -> str:
    """Return a secret, without the line break at its end. ``what`` tells what it is of, for the error.

    Raises
    ------
    AccessError
        It is not there, is empty, or stands in a file that others can read. The text never quotes it.
    """
    value = _of_variable(secret, what) if secret.env is not None else _of_file(secret, what)
    if not value:
        raise AccessError(f"{what} {secret.spoken} is empty", hint="put the secret there")
    return value


def _of_variable(secret: Secret, what: str) -> str:
    name = secret.env or ""
    if name not in os.environ:
        raise AccessError(
            f"{what} {secret.spoken}: there is no such variable in the environment of reconciler",
            hint=f"set {name} where reconciler is started, or use {{file: PATH}}",
        )
    return os.environ[name]


def _of_file(secret: Secret, what: str) -> str:
    path = Path(secret.file or "").expanduser()
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            raw = stream.read(_LONGEST) if stat.S_ISREG(mode) else b""
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
        raise AccessError(f"{what} {secret.spoken} is no text", hint="write it as UTF-8") from None
