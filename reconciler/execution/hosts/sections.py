"""Several commands in one script: each with its own exit code, output and error output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.execution.hosts.command import CommandResult


def combined(commands: Mapping[str, str], sign: str) -> str:
    """Return a script that runs commands one after the other, whatever becomes of each.

    Each finds the exit code of the one before it in ``$section_code``. Names are words without blanks.
    ``sign`` is from :func:`~reconciler.execution.hosts.command.new_sign`.
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
