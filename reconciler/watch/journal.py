"""What the daemon tells: log records with fields, for people and for programs alike."""

from __future__ import annotations

import logging
from typing import Any

LOGGER = logging.getLogger("reconciler.watch")


def tell(event: str, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log a message; ``event`` is its kind, one word or two, and ``fields`` are its facts."""
    LOGGER.log(level, message, extra={"event": event, "fields": fields})


def tell_bug(event: str, error: BaseException, **fields: Any) -> None:
    """Log an error that nobody expected, with its traceback: the thread goes on, the error is ours."""
    text = f"a bug in reconciler, please report it: {type(error).__name__}: {error}"
    LOGGER.error(text, exc_info=error, extra={"event": event, "fields": fields})
