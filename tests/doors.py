"""Which module may import which dependency, and a reader of source code that finds the breaches."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

Doors = Mapping[str, tuple[str, ...]]

ONE_DOOR: Doors = {
    "lmdb": ("reconciler.actual.db",),
    "git": ("reconciler.desired.source.mirror",),
    "ruamel": (
        "reconciler.desired.yaml.splice",
        "reconciler.desired.yaml.reader",
        "reconciler.desired.yaml.writer",
    ),
    "jsonschema": ("reconciler.desired.validation",),
    "jobflow": (
        "reconciler.build",
        "reconciler.execution.launcher",
        "reconciler.jobs.jobstore",
        "reconciler.examples",
    ),
    "qtoolkit": ("reconciler.execution.qtk",),
    "msgpack": ("reconciler.execution.launcher",),
    "maggma": ("reconciler.actual.jobstore", "reconciler.execution.launcher", "reconciler.jobs.jobstore"),
    "apprise": ("reconciler.notify.targets",),
    "fabric": ("reconciler.execution.hosts.ssh",),
    "paramiko": ("reconciler.execution.hosts.ssh",),
    "pyarrow": ("reconciler.cli.results",),
    "watchdog": ("reconciler.watch.file_notices",),
    "yaml": ("reconciler.desired.yaml.reader",),
}
"""Dependency -> the modules (with all that is below them) that may import it."""

_IMPORT_CALLS = ("import_module", "__import__", "find_spec")


def breaches(package: Path, doors: Doors) -> list[str]:
    """Return ``module:line imports dependency`` for every import in ``package`` that passes no door."""
    found = []
    for file in sorted(package.rglob("*.py")):
        module = module_name(file, package.parent)
        for line, name in imports(ast.parse(file.read_text(encoding="utf-8"), str(file))):
            dependency = name.partition(".")[0]
            if dependency in doors and not _is_below(module, doors[dependency]):
                found.append(f"{module}:{line} imports {dependency}")
    return found


def module_name(file: Path, source_root: Path) -> str:
    """Return the dotted name of a file; that of a package is the name of its directory."""
    parts = file.relative_to(source_root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute name) of every import, also inside functions and by ``import_module("name")``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module
        elif isinstance(node, ast.Call) and _called(node.func) in _IMPORT_CALLS and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield node.lineno, argument.value


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_below(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)
