"""Who is at the command line: for the record of what people asked for."""

from __future__ import annotations

import getpass
import os

from reconciler.cli.context import Context
from reconciler.errors import ReconcilerError


def who(context: Context) -> str:
    """Return ``login (Name <mail>)``; without an identity in git just the login."""
    login, identity = _login(), _identity(context)
    return f"{login} ({identity})" if identity else login


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return f"uid {os.getuid()}"


def _identity(context: Context) -> str:
    """Return the identity that a commit here would have; git must not guess one."""
    try:
        done = context.source(fetch=False).run(
            "-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT", check=False
        )
    except ReconcilerError:
        return ""
    text = done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""
    return text[: text.rfind(">") + 1]
