"""The interface of a host, and the framing of scripts and their output that all hosts share.

A script travels on the standard input of a bash, never on a command line. So it can have any length, no other
shell interprets its quoting, and the login shell of the account does not matter. That bash is a clean one: it
has the environment that the login files made, but none of their functions, aliases and options. Everything
that login files print before the script starts is cut off at a random sentinel line.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import BinaryIO, Protocol

import msgspec

from reconciler.errors import TransientError


class CommandResult(msgspec.Struct, frozen=True):
    """Exit code and output of a command. Bytes that are not UTF-8 are replaced by U+FFFD."""

    exit_code: int
    stdout: str
    stderr: str


class AccessError(TransientError):
    """The host refuses the login, or its identity cannot be confirmed: unknown host key, missing secret.

    For jobs this is an outage: they wait. It needs a person, whom the hint tells what to do.
    """


class Host(Protocol):
    """A machine that runs commands. Safe to use from several threads.

    ``name`` is for people: ``localhost``, ``ada@login.example.org``. ``commands`` counts the scripts that
    were run.
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

        ``data`` becomes the standard input of the commands in the script (default: empty). It is consumed in
        the calling thread, and an exception that it raises ends the script and is passed on.
        ``sink`` receives the standard output, which is then empty in the result. With both, streams of any
        size need little memory. ``timeout`` (seconds) limits the whole command; with ``data`` or ``sink`` it
        limits the time without progress of the stream.

        Raises
        ------
        TransientError
            The host cannot be reached, the connection was lost during the command, or the timeout passed.
            The script may have run completely, partly, or not at all.
        """
        ...

    def close(self) -> None:
        """Close the connection; the next command opens it again."""
        ...


# Framing of one script ------------------------------------------------------------------------------------


CLEAN_BASH = ("bash", "--norc", "--noprofile", "-p", "-s")
"""The shell that runs scripts. ``-p`` ignores BASH_ENV, SHELLOPTS and exported functions (``cd() { ... }``).

Children such as the scripts of jobs still inherit them.
"""

_LOGIN_LINES = 20
"""Empty lines before a script, for login files of the account's own shell that read standard input."""


_NO_OPTIONS = "set +o posix; unset POSIXLY_CORRECT TAR_OPTIONS QUOTING_STYLE BLOCK_SIZE LS_BLOCK_SIZE"
"""Variables that would change the output of the programs that scripts run."""


def remote_shell(login_shell: bool) -> str:
    """Return the command that starts the shell for scripts; the account's own shell, perhaps csh, runs it.

    Login files get an empty standard input, so that a ``read`` in them does not take a part of the script.
    """
    clean = " ".join(CLEAN_BASH)
    if not login_shell:
        return f"exec {clean}"
    return f"exec bash --norc -p -c 'exec bash -l -c \"exec {clean} <&3 3<&-\" 3<&0 </dev/null'"


def new_sentinel() -> str:
    """Return a random line that no other output contains."""
    return f"-=-{secrets.token_hex(12)}-=-"


def framed(script: str, sentinel: str, *, reads_data: bool) -> bytes:
    """Return the bytes to send to the shell before the data.

    The function wrapper makes bash read the script to its last line before it runs the first one: a script
    that a lost connection cut off runs nothing.
    """
    feed = "" if reads_data else " </dev/null"
    # stdout and stderr both get the sentinel, since login files can print to either.
    return (
        f"{_LOGIN_LINES * chr(10)}reconciler_script() {{\n"
        f"printf '\\n%s\\n' {sentinel}\nprintf '\\n%s\\n' {sentinel} >&2\n{_NO_OPTIONS}\n{script}\n}}\n"
        # bash reads this line as a whole, so what is left on its standard input is the data.
        f"reconciler_script{feed}; exit $?\n"
    ).encode()


def after_sentinel(raw: bytes, sentinel: str) -> bytes | None:
    """Return the bytes after the sentinel, or None if the script never started."""
    _, found, rest = raw.partition(f"\n{sentinel}\n".encode())
    return rest if found else None


class SentinelFilter:
    """Passes on to a sink the bytes after the sentinel, for output that is too big for memory."""

    def __init__(self, sentinel: str, sink: BinaryIO) -> None:
        self._sentinel = f"\n{sentinel}\n".encode()
        self._sink = sink
        self._head = b""
        self.began = False

    def write(self, chunk: bytes) -> None:
        """Process the next bytes of the output."""
        if self.began:
            self._sink.write(chunk)
            return
        self._head += chunk
        _, found, rest = self._head.partition(self._sentinel)
        if found:
            self.began, self._head = True, b""
            self._sink.write(rest)

    @property
    def noise(self) -> bytes:
        """The output of a shell that ended before the script started."""
        return self._head


def shell_never_started(name: str, exit_code: int, stdout: bytes, stderr: bytes) -> TransientError:
    """Return the error for a shell that ended before it ran the script."""
    output = (stderr.strip() or stdout.strip()).decode(errors="replace")[-300:]
    return TransientError(
        f"the shell of {name} ended before it ran anything, exit code {exit_code}: {output or 'no message'}",
        hint="check the login files of the account; `reconcile doctor` shows more",
    )


# Several commands in one script ---------------------------------------------------------------------------


def sections_script(commands: Mapping[str, str], sentinel: str) -> str:
    """Return a script that runs all commands one after the other, also after one that failed.

    The exit code, output and error output of each are printed as a section of its own, for
    :func:`read_sections`. Each command finds the exit code of the previous one in ``$section_code``. Names
    are words without blanks; ``sentinel`` is from :func:`new_sentinel`.
    """
    # Each command has a subshell, so that `cd` and `exit` affect no other. Its error output is kept in a
    # variable; its standard output passes through file descriptor 3.
    return "\n".join(
        f"printf '\\n%s\\n' {sentinel}+\n"
        f"{{ section_errors=$( ( {command}\n) 2>&1 >&3 3>&- ); section_code=$?; }} 3>&1\n"
        f'printf "\\n%s %s %s\\n%s\\n%s\\n" {sentinel} {name} "$section_code" "$section_errors" {sentinel}'
        for name, command in commands.items()
    )


def read_sections(stdout: str, sentinel: str) -> dict[str, CommandResult]:
    """Return the result of each command of :func:`sections_script` by name.

    A command whose end was not printed is missing.
    """
    sections: dict[str, CommandResult] = {}
    rest = stdout
    while True:
        output, found, rest = rest.partition(f"\n{sentinel} ")
        head, newline, rest = rest.partition("\n")
        errors, end, rest = rest.partition(f"\n{sentinel}\n")
        if not (found and newline and end):
            return sections
        output = output.rpartition(f"\n{sentinel}+\n")[2]  # output between two sections belongs to neither
        name, _, code = head.partition(" ")
        if code.isdigit():
            sections[name] = CommandResult(int(code), output, errors)
