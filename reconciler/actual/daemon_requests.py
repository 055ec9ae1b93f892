"""Requests to the daemon that works on a state: small files in the state directory, each with an answer.

A request is written completely or not at all. It stays until it is answered, so a daemon that died finds it
when it starts again. The process that made the request deletes the answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from reconciler.errors import WorldError
from reconciler.files import atomic_file
from reconciler.model.types_ready import make_ready

_FORGOTTEN = 3600.0
"""Seconds after which an answer that was not read is deleted."""


class Request(msgspec.Struct, kw_only=True, frozen=True):
    """A request by the user ``by`` for a pass; ``allow_prune`` permits a plan that a guard refuses.

    ``follow`` is the branch to follow from now on; empty for the present one.
    """

    token: str
    by: str
    time: float
    allow_prune: bool = False
    follow: str = ""


class Answer(msgspec.Struct, kw_only=True, frozen=True):
    """The result of the first pass that began after a request.

    ``lines`` is the plan as text. ``error`` and ``hint`` are set if there is no plan. ``code`` is the exit
    code for the process that made the request.
    """

    code: int
    revision: str = ""
    lines: list[str] = []
    error: str = ""
    hint: str = ""


make_ready(Request, Answer)


class Requests:
    """The requests in one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "requests"

    def open(self) -> None:
        """Create the directory, so that it can be watched.

        Raises
        ------
        WorldError
            The directory cannot be created.
        """
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.directory, error) from error

    def ask(self, by: str, now: float, *, allow_prune: bool = False, follow: str = "") -> str:
        """Write a request; return its token.

        Raises
        ------
        WorldError
            It cannot be written.
        """
        self.open()
        token = secrets.token_hex(8)
        request = Request(token=token, by=by, time=now, allow_prune=allow_prune, follow=follow)
        self._write(token, "request", request)
        return token

    def poke(self) -> None:
        """Wake a daemon because this program has changed jobs, which it would notice somewhat later."""
        with contextlib.suppress(OSError):
            (self.directory / "poke").touch()

    def names(self) -> set[str]:
        """Return the names of the unanswered requests, without reading them."""
        return {file.name for file in self._files("request") if _is_usable(file)}

    def pending(self) -> list[Request]:
        """Return the unanswered requests, oldest first. What is not a request is deleted, or passed over."""
        found = []
        for file in self._files("request"):
            if not _is_usable(file):
                with contextlib.suppress(OSError):  # a folder stays, and is passed over
                    file.unlink()
                continue
            try:
                request = msgspec.json.decode(_content(file), type=Request)
                if request.token != file.stem:
                    raise ValueError("it is another request")
                found.append(request)
            except FileNotFoundError:  # withdrawn meanwhile
                continue
            except (ValueError, RecursionError):
                file.unlink(missing_ok=True)
            except OSError:
                continue
        return sorted(found, key=lambda request: request.time)

    def answer(self, requests: Iterable[Request], answer: Answer) -> None:
        """Answer requests. One that was withdrawn gets no answer.

        Raises
        ------
        WorldError
            An answer cannot be written; that request stays.
        """
        for request in requests:
            asked = self._file(request.token, "request")
            if asked.exists():
                self._write(request.token, "answer", answer)
                asked.unlink(missing_ok=True)

    def take_answer(self, token: str) -> Answer | None:
        """Return and delete the answer to a request; None if there is none yet."""
        file = self._file(token, "answer")
        try:
            found = msgspec.json.decode(_content(file), type=Answer)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise WorldError(f"the answer of the daemon in {file} cannot be read: {error}") from error
        file.unlink(missing_ok=True)
        return found

    def take_back(self, token: str) -> None:
        """Withdraw a request."""
        self._file(token, "request").unlink(missing_ok=True)

    def tidy_up(self, now: float) -> None:
        """Delete answers that were not read for an hour."""
        for file in self._files("answer"):
            with contextlib.suppress(OSError):
                if not 0 <= now - file.stat().st_mtime < _FORGOTTEN:
                    file.unlink()

    def _files(self, kind: str) -> list[Path]:
        try:
            return list(self.directory.glob(f"*.{kind}"))
        except OSError:
            return []

    def _file(self, token: str, kind: str) -> Path:
        return self.directory / f"{token}.{kind}"

    def _write(self, token: str, kind: str, content: Request | Answer) -> None:
        file = self._file(token, kind)
        # Not in the same directory: a process that watches it is notified once, when the file is complete.
        partial = self.directory.with_name(f".{file.name}.partial")
        try:
            with atomic_file(file, sync=False, partial=partial) as stream:
                stream.write(msgspec.json.encode(content))
        except OSError as error:
            raise _unwritable(file, error) from error


_TOKEN = re.compile(r"[0-9a-f]{16}")
_LONGEST = 64 << 20
"""Bytes of an answer, which holds a plan."""


def _is_usable(file: Path) -> bool:
    """Return whether a file in the directory can be a request: a plain file, named by a token."""
    try:
        return _TOKEN.fullmatch(file.stem) is not None and stat.S_ISREG(file.lstat().st_mode)
    except OSError:
        return False


def _content(file: Path) -> bytes:
    """Return the content of a plain file. Raises ValueError if it is not one, or very large."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _LONGEST:
            raise ValueError("it is not a plain file of a few megabytes")
        return stream.read()


def _unwritable(path: Path, error: OSError) -> WorldError:
    return WorldError(f"cannot write {path}: {error.strerror}", hint="check the disk and its permissions")
