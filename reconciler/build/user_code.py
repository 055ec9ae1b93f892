"""Importing and calling the code of users; what goes wrong becomes a BuildError that names its line."""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.diagnostics import did_you_mean
from reconciler.model.policy import is_below_name


class BuildError(Exception):
    """The flow cannot be built; ``pointer`` is the value of the manifest that causes it."""

    def __init__(self, message: str, pointer: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.pointer = pointer
        self.hint = hint


def call(
    function: Any, args: list[Any], kwargs: Mapping[str, Any], pointer: str, code: Mapping[str, str]
) -> Any:
    """Call the user's code; an exception becomes a BuildError that names the line of code."""
    try:
        return function(*args, **kwargs)
    except (Exception, SystemExit) as error:
        name = getattr(function, "__qualname__", type(function).__name__)
        what = f"raised {headline(error)}"
        if isinstance(error, SystemExit):
            what = f"ended with exit code {error.code or 0}"
        raise BuildError(f"{name} {what}{where_raised(error, code)}", pointer) from error


_LONGEST_MESSAGE = 1000
_NOISE = re.compile(r"^\s*(For further information visit |\+-+|-{4,}|={4,}).*$\n?", re.MULTILINE)
"""Lines of messages that say nothing: the advertisements of pydantic, the frames of exception groups."""


def headline(error: BaseException) -> str:
    """Return type and message of an error, of a bounded length and without decoration."""
    message = _NOISE.sub("", str(error)).strip()
    if len(message) > _LONGEST_MESSAGE:
        message = message[: _LONGEST_MESSAGE - 3] + "..."
    return f"{type(error).__name__}{': ' if message else ''}{message}"


def where_raised(error: BaseException, code: Mapping[str, str]) -> str:
    """Return where an error was raised: `` (lib/mycamp/jobs.py:63)``.

    The innermost line of the repository's code counts, else the innermost line of all code below ours.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        frames.append(traceback.FrameSummary(error.filename, error.lineno or 1, ""))
    for frame in reversed(frames):
        for place, name in code.items():
            if frame.filename.startswith(f"{place}/"):
                inside = frame.filename.removeprefix(f"{place}/")
                return f" ({name}/{inside}:{frame.lineno})"
    others = [frame for frame in frames if not frame.filename.startswith((_HERE, "<frozen"))]
    return f" ({Path(others[-1].filename).name}:{others[-1].lineno})" if others else ""


_HERE = str(Path(__file__).parent)


def find_callable(path: str, pointer: str, code: Mapping[str, str]) -> Any:
    """Import ``package.module.name`` or ``package.module.Class.name``.

    Raises
    ------
    BuildError
        It cannot be imported; the message says which part, and the hint names the nearest name.
    """
    parts = path.split(".")
    module, error = None, None
    for end in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
            break
        except ModuleNotFoundError as missing:
            if missing.name is None or not (".".join(parts[:end]) + ".").startswith(f"{missing.name}."):
                where = where_raised(missing, code)
                hint = "install the package, or add its folder to spec.python_path of the Project"
                raise BuildError(f"cannot import '{path}': {missing}{where}", pointer, hint) from missing
            error = missing
        except (Exception, SystemExit) as broken:
            name, where = ".".join(parts[:end]), where_raised(broken, code)
            raise BuildError(f"importing '{name}' raised {headline(broken)}{where}", pointer) from broken
    if module is None:
        raise BuildError(
            f"cannot import '{path}': {error}", pointer,
            "install the package, or add its folder to spec.python_path of the Project",
        )  # fmt: skip
    found: Any = module
    for name in parts[end:]:
        if not hasattr(found, name):
            known = [known for known in vars(found) if not known.startswith("_")]
            where = getattr(found, "__name__", path)
            raise BuildError(f"'{where}' does not have '{name}'", pointer, did_you_mean(name, known))
        found = getattr(found, name)
    if not callable(found):
        raise BuildError(f"'{path}' is not callable", pointer)
    return found


def is_allowed(name: str, prefixes: Sequence[str]) -> bool:
    """Return whether a policy with these prefixes allows a dotted name."""
    return any(is_below_name(name, prefix) for prefix in prefixes)


def defined_name(found: Any) -> str:
    """Return where a callable is defined: a module that is allowed may have imported one that is not.

    A class method counts as its class, and an object that can be called as its type.
    """
    owner = getattr(found, "__self__", None) if inspect.ismethod(found) else None
    named = owner if inspect.isclass(owner) else getattr(found, "original", found)
    if not hasattr(named, "__qualname__"):
        named = type(named)
    module = getattr(named, "__module__", None) or getattr(named, "__objclass__", type(named)).__module__
    return f"{module}.{named.__qualname__}"
