"""The log of the daemon: lines for people, or JSON for programs."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import time
from pathlib import Path

import click

from reconciler.cli.context import Context
from reconciler.cli.views.plan_text import plan_lines, summary_line
from reconciler.errors import InputError
from reconciler.model.actions import Plan
from reconciler.watch.log import LOGGER, log_event

FORMATS = ("text", "json")


def start_log(form: str, file: Path | None, *, verbose: int, quiet: bool) -> None:
    """Send the log to stderr, or to a file that is opened again when log rotation has moved it away.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    try:
        handler = logging.handlers.WatchedFileHandler(file) if file else logging.StreamHandler(sys.stderr)
    except OSError as error:
        raise InputError(f"cannot write the log {file}: {error.strerror}") from error
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    LOGGER.handlers = [handler]
    LOGGER.propagate = False
    LOGGER.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


class TextLines(logging.Formatter):
    """``2026-01-31 12:00:00  warning: message``; a hint follows on its own line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        hint = getattr(record, "fields", {}).get("hint")
        text = f"{when}  {level}{record.getMessage()}" + (f"\n  help: {hint}" if hint else "")
        return text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class JsonLines(logging.Formatter):
    """One JSON object per line: time (seconds since the epoch), level, event, message, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", ""),
            "message": record.getMessage(),
            **{key: value for key, value in getattr(record, "fields", {}).items() if value is not None},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class LogReporter:
    """Logs what the loop reports; a ``Watcher`` of the loop."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def say(self, line: str) -> None:
        """Log a line of narration."""
        log_event("narration", line)

    def planned(self, plan: Plan) -> None:
        """Log the diagnostics of a plan, and with ``-v`` its actions."""
        for found in plan.diagnostics:
            level = logging.ERROR if found.is_error else logging.WARNING
            fields = {"code": found.code, "place": str(found.location), "hint": found.hint}
            log_event("diagnostic", f"{found.location}: {found.message}", level=level, **fields)
        for line in self.describe(plan)[:-1]:
            log_event("action", line.strip(), level=logging.DEBUG)

    def progress(self, done: int, total: int, running: int) -> None:
        """Do nothing: a log has no progress bar."""

    def describe(self, plan: Plan) -> list[str]:
        """Return the lines of a plan without colours; the last one is the summary."""
        lines = [*plan_lines(self._context, plan), summary_line(self._context, plan)]
        return [click.unstyle(line) for line in lines]
