"""The log of the daemon: records with fields, which a view prints as text or JSON."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from reconciler.errors import BugError, ReconcilerError

LOGGER = logging.getLogger("reconciler.watch")

_PASS: ContextVar[str | None] = ContextVar("pass", default=None)


@contextmanager
def log_context() -> Iterator[None]:
    """Give all records that this thread logs in the block the same field ``reconcile``, the id of a pass."""
    token = _PASS.set(secrets.token_hex(4))
    try:
        yield
    finally:
        _PASS.reset(token)


def log_event(event: str, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log a message. ``event`` is its kind, in one or two words; ``fields`` are its facts."""
    LOGGER.log(level, message, extra=_extra(event, fields))


def log_bug(event: str, error: BaseException, **fields: Any) -> None:
    """Log an unexpected error with its traceback."""
    LOGGER.error(f"{_bug_text(error)}; please report it", exc_info=error, extra=_extra(event, fields))


@contextmanager
def bugs_logged(event: str, **fields: Any) -> Iterator[None]:
    """Log any unexpected error and raise it again as one that callers expect, so that a thread can go on.

    Raises
    ------
    ReconcilerError
        Unchanged if the block raises one, else a :class:`~reconciler.errors.BugError`.
    """
    try:
        yield
    except ReconcilerError:
        raise
    except Exception as error:
        log_bug(event, error, **fields)
        raise BugError(_bug_text(error), hint="see the log") from error


def _bug_text(error: BaseException) -> str:
    return f"a bug in reconciler: {type(error).__name__}: {error}"


def _extra(event: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"event": event, "fields": {"reconcile": _PASS.get(), **fields}}
