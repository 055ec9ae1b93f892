"""The one call of the ``git`` command for reading, hardened against configuration and environment.

What we read of a repository must not depend on the settings of the user who reads it, nor on where we are
called from. So settings that change output are overridden, hooks and monitors do not run, replacement refs
are ignored, and only those variables of git are passed on that say how to reach a remote or find
configuration.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from reconciler.errors import TransientError, UnfitError, WorldError

COMMAND_TIMEOUT = 60.0
"""Seconds after which a call of git is given up."""

_CHUNK = 1 << 16

_OLD_FLAWS = (
    *(
        "zeroPaddedFilemode",
        "badFilemode",
        "badTimezone",
        "missingSpaceBeforeDate",
        "missingSpaceBeforeEmail",
    ),
    *("missingNameBeforeEmail", "badDateOverflow", "zeroPaddedDate", "missingTaggerEntry", "badTagName"),
)

_SETTINGS = (
    # Nothing of the repository runs while we read it.
    *("core.fsmonitor=false", "core.hooksPath=/dev/null", "safe.bareRepository=explicit"),
    *("core.alternateRefsCommand=:", "protocol.ext.allow=never", "protocol.fd.allow=never"),
    # What is fetched is checked first; flaws that old tools left in long histories do no harm.
    *("transfer.fsckObjects=true", "fetch.fsckObjects=true"),
    *(f"fetch.fsck.{flaw}=ignore" for flaw in _OLD_FLAWS),
    # Settings that change the output of the commands that we use.
    *("core.quotePath=true", "i18n.logOutputEncoding=UTF-8"),
    *("color.ui=false", "color.diff=false", "color.status=false", "color.branch=false"),
    *("log.showSignature=false", "log.follow=false", "log.showRoot=true", "log.mailmap=true"),
    *("mailmap.file=/dev/null", "mailmap.blob=HEAD:.mailmap"),
    *("diff.suppressBlankEmpty=false", "diff.renames=true", "diff.renameLimit=1000", "diff.relative=false"),
    *("diff.algorithm=default", "diff.indentHeuristic=true", "diff.context=3", "diff.interHunkContext=0"),
    *("diff.noprefix=false", "diff.mnemonicPrefix=false", "diff.orderFile=/dev/null"),
    *("diff.ignoreSubmodules=untracked", "diff.submodule=short", "diff.wsErrorHighlight=none"),
    *("status.showUntrackedFiles=normal", "status.relativePaths=false", "status.branch=false"),
)
HARDENED = ("--no-pager", *(part for setting in _SETTINGS for part in ("-c", setting)))
"""The options of git before the name of a command."""

_PASSED_ON = re.compile(
    r"GIT_(CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+)"
    r"|SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS|PROXY_\w+|SSL_\w+|HTTP_\w+|ALLOW_PROTOCOL|PROTOCOL_FROM_USER"
    r"|EXEC_PATH|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM|TEST_ASSUME_\w+)"
)
"""The variables of git that reading calls keep: how to reach a remote, and where configuration is."""

_OF_ONE_REPOSITORY = re.compile(
    r"GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|COMMON_DIR|NAMESPACE|PREFIX"
    r"|GRAFT_FILE|SHALLOW_FILE|IMPLICIT_WORK_TREE|INTERNAL_SUPER_PREFIX|REPLACE_REF_BASE|QUARANTINE_PATH"
    r"|CONFIG|CONFIG_PARAMETERS|ATTR_SOURCE|(LITERAL|GLOB|NOGLOB|ICASE)_PATHSPECS)"
)
"""Variables that belong to the repository for which git started us, as in a hook."""


def users_environment() -> dict[str, str]:
    """Return the environment for commands that act as the user, such as ``git commit``.

    It lacks the variables that select another repository than the one that the user named.
    """
    return {key: value for key, value in os.environ.items() if not _OF_ONE_REPOSITORY.fullmatch(key)}


def reading_environment(git_dir: Path | None = None) -> dict[str, str]:
    """Return the environment for commands that only read, without prompts and in English.

    In a hook that checks a push, new objects are in quarantine. If the quarantine is that of ``git_dir``, its
    objects can be read.
    """
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("GIT_", "LC_")) or _PASSED_ON.fullmatch(key)
    }
    environment |= {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "LC_ALL": "C",
        "LANGUAGE": "",
    }
    quarantine = os.environ.get("GIT_QUARANTINE_PATH")
    if quarantine and git_dir is not None:
        objects = common_dir(git_dir) / "objects"
        if Path(quarantine).resolve().parent == objects.resolve():
            environment["GIT_OBJECT_DIRECTORY"] = str(Path(quarantine).resolve())
            environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(objects.resolve())
    return environment


def common_dir(git_dir: Path) -> Path:
    """Return the directory that holds objects and branches; for a linked work tree, that of the main one."""
    pointer = git_dir / "commondir"
    if not pointer.is_file():
        return git_dir.resolve()
    return (git_dir / os.fsdecode(pointer.read_bytes().rstrip(b"\n"))).resolve()


def run_git(
    arguments: list[str], *, git_dir: Path | None = None, stdin: bytes | None = None, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a git command that only reads; return its result as bytes.

    ``arguments`` begin with ``-C DIRECTORY`` or ``--git-dir=DIRECTORY``; ``git_dir`` is that of the
    repository, if it is known.

    Raises
    ------
    WorldError
        git failed, and ``check`` is set.
    TransientError
        git gave no answer in time, or cannot be started now.
    """
    try:
        result = subprocess.run(
            ["git", *HARDENED, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=reading_environment(git_dir),
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise not_started(error) from error
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"git {arguments[1]} did not answer within {COMMAND_TIMEOUT:.0f} s") from error
    if check and result.returncode != 0:
        command = " ".join(arguments[1:3])
        raise WorldError(f"git {command} failed: {first_line(result.stderr)}")
    return result


def list_by_git(
    arguments: list[str], most: int, *, git_dir: Path | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a git command like :func:`run_git`, but keep at most ``most`` bytes of what it prints.

    A tree of a few kilobytes can have more files than any memory holds: folders that contain each other.

    Raises
    ------
    UnfitError
        It prints more.
    TransientError
        git gave no answer in time, or cannot be started now.
    """
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as questions:
        questions.write(stdin)
        questions.seek(0)
        try:
            process = subprocess.Popen(
                ["git", *HARDENED, *arguments],
                stdin=questions,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=reading_environment(git_dir),
            )
        except OSError as error:
            raise not_started(error) from error
        assert process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(COMMAND_TIMEOUT, give_up)
        timer.daemon = True
        timer.start()
        try:
            printed = bytearray()
            while len(printed) <= most and (chunk := process.stdout.read(_CHUNK)):
                printed += chunk
            if len(printed) > most:
                raise UnfitError(
                    f"the list of the files of this revision is longer than {most >> 20} MiB",
                    hint="this many files are usually a mistake: remove folders that hold data",
                )
            process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.stdout.close()
            process.wait()
        if late.is_set():
            raise TransientError(f"git {arguments[1]} did not answer within {COMMAND_TIMEOUT:.0f} s")
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, process.returncode, bytes(printed), errors.read(_CHUNK))


@contextlib.contextmanager
def streaming_git(
    arguments: list[str], *, git_dir: Path | None = None
) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Start a git command that answers line by line; give its input and its output.

    It is killed at the end, or when it has taken too long; then its output ends.

    Raises
    ------
    TransientError
        git cannot be started now, or has ended before its time.
    """
    try:
        process = subprocess.Popen(
            ["git", *HARDENED, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=reading_environment(git_dir),
        )
    except OSError as error:
        raise not_started(error) from error
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(COMMAND_TIMEOUT, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield process.stdin, process.stdout
    except BrokenPipeError as error:
        raise TransientError(f"git {arguments[1]} ended early") from error
    finally:
        timer.cancel()
        process.kill()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        process.wait()


def not_started(error: OSError) -> WorldError:
    """Return the error when git cannot be started: it is missing, or resources are exhausted."""
    if isinstance(error, FileNotFoundError):
        return WorldError("the command `git` is not installed", hint="install git")
    return TransientError(
        f"git cannot be started: {error.strerror}",
        hint="check the limits of this machine: memory, processes, open files",
    )


def printable(text: bytes | str) -> str:
    r"""Return text of git for messages and for the store; a byte that is not UTF-8 becomes ``\xe9``."""
    raw = text if isinstance(text, bytes) else os.fsencode(text)
    return raw.decode(errors="backslashreplace")


def first_line(text: bytes) -> str:
    """Return the first line of git's error output."""
    lines = [line for line in printable(text).splitlines() if line.strip()]
    return lines[0].strip().removeprefix("stderr: ").strip("'") if lines else ""


def is_remote(location: str) -> bool:
    """Return whether a location is a URL or ``host:path``, rather than a directory of this machine."""
    return "://" in location or (":" in location.split("/")[0] and not Path(location).exists())


def without_password(text: str) -> str:
    """Hide the credentials before the host of a URL; git itself repeats them in its messages."""
    return re.sub(r"://[^/@\s]+@", "://***@", printable(text))


GIT_USER, GIT_PASSWORD = "RECONCILER_GIT_USER", "RECONCILER_GIT_PASSWORD"
"""The variables in which a credential helper finds what a URL had."""


def without_secrets(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without user and password, and the variables that hand them to git.

    On a command line or in the configuration of a mirror, others could read them. A token often stands in the
    place of the user. Only HTTP has them; of other URLs, the user is part of the address.
    """
    found = re.match(r"(https?://)([^/@\s]*)@", url)
    if found is None:
        return url, {}
    user, _, password = found[2].partition(":")
    variables = {GIT_USER: unquote(user) or "git", GIT_PASSWORD: unquote(password)}
    return f"{found[1]}{url[found.end() :]}", variables
