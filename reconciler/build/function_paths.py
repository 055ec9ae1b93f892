"""By which paths the functions of jobs can be reached: a `function_filter` may name any of them.

jobflow compares function objects, so `pkg.add` and `pkg.jobs.add` are the same function, and so is the `make`
that a subclass of a Maker inherits. A plan imports no code: it compares paths, which a build collects here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Collection, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any


def function_paths(
    functions: Collection[str], code: Collection[str], filters: Sequence[str]
) -> dict[str, list[str]]:
    """Return {path of the definition: other paths} of the functions of jobs that have other paths.

    Looked at are the modules that are imported now, of the user's code (directories ``code``) and of the
    packages that ``functions`` come from; and modules of the user's code that ``filters`` name.
    """
    folders = tuple(f"{folder}/" for folder in code)
    for path in filters:
        _import_own(path, folders)
    packages = frozenset(path.partition(".")[0] for path in functions)
    found = _paths_in(_modules(packages, folders)) if code else _paths_in_packages(packages)
    return {one: others for one, others, is_job in found if is_job or one in functions}


_Modules = list[tuple[str, ModuleType]]
_Found = list[tuple[str, list[str], bool]]

_searched: dict[frozenset[str], tuple[int, _Modules, list[tuple[int, int]], _Found]] = {}
"""What was found last in packages, and when: the number of all modules, theirs, and what those were like."""


def _paths_in_packages(packages: frozenset[str]) -> _Found:
    """Return what :func:`_paths_in` returns; it is searched again if modules have been imported or filled."""
    count, modules, before, found = _searched.get(packages, (0, [], [], []))
    if count != len(sys.modules):
        modules = _modules(packages, ())
    now = [(id(sys.modules.get(name)), len(vars(module))) for name, module in modules]
    if now != before:
        found = _paths_in(modules)
    _searched[packages] = len(sys.modules), modules, now, found
    return found


def _modules(packages: Collection[str], folders: tuple[str, ...]) -> _Modules:
    """Return the imported modules of packages, and those below folders."""
    return [
        (name, module)
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType)
        and (
            name.partition(".")[0] in packages
            or (folders and str(getattr(module, "__file__", "")).startswith(folders))
        )
    ]


def _paths_in(modules: Sequence[tuple[str, ModuleType]]) -> _Found:
    """Return (path of the definition, other paths, whether ``@job`` decorates it) of functions."""
    paths: dict[int, set[str]] = {}
    found: dict[int, tuple[FunctionType, bool]] = {}
    for name, module in modules:
        for path, value in _functions_of(module):
            function = _unwrapped(value)
            known = found.get(id(function), (function, False))[1]
            found[id(function)] = function, known or hasattr(value, "original")
            paths.setdefault(id(function), set()).add(f"{name}.{path}")
    rows = []
    for key, (function, is_job) in found.items():
        definition = f"{function.__module__}.{function.__qualname__}"
        others = paths[key] - {definition}
        if others:
            rows.append((definition, sorted(others), is_job))
    return rows


def _import_own(path: str, folders: tuple[str, ...]) -> None:
    """Import the module of a path if it is part of the user's code and can be imported."""
    name = path
    while "." in name:
        name = name.rpartition(".")[0]
        try:
            spec = importlib.util.find_spec(name)
            if spec is not None and str(spec.origin).startswith(folders):
                importlib.import_module(name)
            if spec is not None:
                return
        except BaseException:  # whatever the user's module raises, also SystemExit
            continue


def _functions_of(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """Yield (path in the module, function) of its functions, and of the methods of its classes."""
    for name, value in list(vars(module).items()):
        if isinstance(value, FunctionType):
            yield name, value
        elif isinstance(value, type):
            methods: dict[str, Any] = {}
            for parent in reversed(value.__mro__):
                methods |= vars(parent)
            for method, bare in methods.items():
                function = bare.__func__ if isinstance(bare, staticmethod | classmethod) else bare
                if isinstance(function, FunctionType):
                    yield f"{name}.{method}", function


def _unwrapped(function: FunctionType) -> FunctionType:
    """Return the function below its decorators."""
    for _ in range(20):
        inner = vars(function).get("__wrapped__")
        if not isinstance(inner, FunctionType):
            break
        function = inner
    return function
