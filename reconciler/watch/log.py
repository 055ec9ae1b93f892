"""What the daemon tells: log records with fields, for people and for programs alike."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

LOGGER = logging.getLogger("reconciler.watch")

_PASS: ContextVar[str | None] = ContextVar("pass", default=None)


@contextmanager
def log_context() -> Iterator[None]:
    """Let all that this thread tells meanwhile be known as of one pass: by the field ``reconcile``."""
    token = _PASS.set(secrets.token_hex(4))
    try:
        yield
    finally:
        _PASS.reset(token)


def log_event(event: str, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log a message; ``event`` is its kind, one word or two, and ``fields`` are its facts."""
    LOGGER.log(level, message, extra=_extra(event, fields))


def log_bug(event: str, error: BaseException, **fields: Any) -> None:
    """Log an error that nobody expected, with its traceback: the thread goes on, the error is ours."""
    text = f"a bug in reconciler, please report it: {type(error).__name__}: {error}"
    LOGGER.error(text, exc_info=error, extra=_extra(event, fields))


def _extra(event: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"event": event, "fields": {"reconcile": _PASS.get(), **fields}}
