"""What a host is: something that runs a bash script with a deadline.

A script travels on the standard input of ``bash -s``, never on the command line: so it may be of any length,
its quoting is the business of no other shell, and it does not matter which shell the user's account has.
What the login files print before is cut off by a sign that no banner can know.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, Protocol

import msgspec

from reconciler.errors import TransientError


class CommandResult(msgspec.Struct, frozen=True):
    """How a command ended. Bytes that are no UTF-8 are replaced."""

    exit_code: int
    stdout: str
    stderr: str


class Host(Protocol):
    """Where commands run. Safe to use from several threads.

    ``name`` is for people: ``localhost``, ``ada@login.example.org``. ``commands`` counts what was run so far.
    """

    name: str
    is_local: bool
    commands: int

    def run(
        self,
        script: str,
        timeout: float,
        *,
        data: Iterable[bytes] | None = None,
        sink: BinaryIO | None = None,
    ) -> CommandResult:
        """Run a bash script to its end.

        ``data`` is what the commands of the script find on their standard input (None: nothing). It is
        consumed in the calling thread, and what it raises comes out here, with the script cut off.
        ``sink`` gets the standard output, which is empty in the result then; so neither direction needs
        memory for all of it. ``timeout`` is in seconds: of the whole command, or, when data or a sink is
        given, without any progress of the stream.

        Raises
        ------
        TransientError
            The host cannot be reached, the connection was lost half-way, or there was no answer in time:
            the script may have run, partly or completely.
        """
        ...

    def close(self) -> None:
        """Let go of the connection; the next command opens it again."""
        ...


def new_sign() -> str:
    """Return a line that nothing else prints."""
    return f"-=-{secrets.token_hex(12)}-=-"


def framed(script: str, sign: str, *, reads_data: bool) -> bytes:
    """Return what goes to ``bash -s`` before the data.

    The function makes bash read the script to its last line before it runs the first: one that was cut off
    by a lost connection runs nothing.
    """
    feed = "" if reads_data else " </dev/null"
    # printf as the last argument of nothing: the sign goes to both streams, each has its own noise to cut.
    return (
        f"reconciler_script() {{\nprintf '\\n%s\\n' {sign}\nprintf '\\n%s\\n' {sign} >&2\n{script}\n}}\n"
        # One line: bash reads it whole, so that what is left on its standard input is the data.
        f"reconciler_script{feed}; exit $?\n"
    ).encode()


def after_sign(raw: bytes, sign: str) -> bytes | None:
    """Return what follows the sign; None if the script never began."""
    _, found, rest = raw.partition(f"\n{sign}\n".encode())
    return rest if found else None


class SignCutter:
    """Passes on to a sink what follows the sign; for output that is too big to keep."""

    def __init__(self, sign: str, sink: BinaryIO) -> None:
        self._sign = f"\n{sign}\n".encode()
        self._sink = sink
        self._head = b""
        self.began = False

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the output."""
        if self.began:
            self._sink.write(chunk)
            return
        self._head += chunk
        _, found, rest = self._head.partition(self._sign)
        if found:
            self.began, self._head = True, b""
            self._sink.write(rest)

    @property
    def noise(self) -> bytes:
        """What was printed although the script has not begun."""
        return self._head


def never_began(name: str, exit_code: int, stdout: bytes, stderr: bytes) -> TransientError:
    """Return the error for a shell that ended before it ran the script."""
    said = (stderr.strip() or stdout.strip()).decode(errors="replace")[-300:]
    return TransientError(
        f"the shell of {name} ended before it ran anything, exit code {exit_code}: {said or 'no message'}",
        hint="look at the login files of the account; `reconcile doctor` tells more",
    )


# Several commands in one script: each with its own exit code, output and error output.


def combined(commands: Mapping[str, str], sign: str) -> str:
    """Return a script that runs commands one after the other, whatever becomes of each.

    Each finds the exit code of the one before it in ``$section_code``. Names are words without blanks.
    ``sign`` is from :func:`~reconciler.execution.hosts.base.new_sign`.
    """
    return "\n".join(_section(name, command, sign) for name, command in commands.items())


def _section(name: str, command: str, sign: str) -> str:
    # A subshell each, so that `cd` and `exit` are the business of one section. Its error output is kept in
    # a variable; its standard output passes through file descriptor 3.
    return (
        f"printf '\\n%s\\n' {sign}+\n"
        f"{{ section_errors=$( ( {command}\n) 2>&1 >&3 3>&- ); section_code=$?; }} 3>&1\n"
        f'printf "\\n%s %s %s\\n%s\\n%s\\n" {sign} {name} "$section_code" "$section_errors" {sign}'
    )


def split(stdout: str, sign: str) -> dict[str, CommandResult]:
    """Return how each command ended, by name; one whose end was not printed is missing."""
    return dict(_sections(stdout, sign))


def _sections(stdout: str, sign: str) -> Iterator[tuple[str, CommandResult]]:
    rest = stdout
    while True:
        output, found, rest = rest.partition(f"\n{sign} ")
        head, newline, rest = rest.partition("\n")
        errors, end, rest = rest.partition(f"\n{sign}\n")
        if not (found and newline and end):
            return
        output = output.rpartition(f"\n{sign}+\n")[2]  # what is printed between sections belongs to none
        name, code = head.split()
        yield name, CommandResult(int(code), output, errors)
