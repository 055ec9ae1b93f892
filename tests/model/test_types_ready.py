"""Every type that some thread converts to is made ready before there are threads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import reconciler

PACKAGE = Path(reconciler.__file__).parent
SINGLE = ("cli", "build", "execution/launcher", "jobs/jobstore")
"""Where there is one thread only."""


def _calls() -> Iterator[ast.Call]:
    for file in PACKAGE.rglob("*.py"):
        if not str(file.relative_to(PACKAGE)).startswith(SINGLE):
            yield from (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))


def _named(expressions: list[ast.expr]) -> set[str]:
    """Return the names of classes; what stands for a type by a small letter is none."""
    names = (node.id for node in expressions if isinstance(node, ast.Name))
    return {name for name in names if name[0].isupper()}


def test_no_type_is_worked_out_by_a_thread() -> None:
    used: set[str] = set()
    ready: set[str] = set()
    for call in _calls():
        match ast.unparse(call.func):
            case "msgspec.convert":
                used |= _named(call.args[1:2])
            case "msgspec.json.decode" | "msgspec.msgpack.decode":
                used |= _named([word.value for word in call.keywords if word.arg == "type"])
            case "msgspec.json.Decoder" | "msgspec.msgpack.Decoder" | "make_ready":
                ready |= _named(call.args)
    nested = {"BuiltJob"}  # part of BuiltFlow
    assert used >= {"JobResult", "Retries", "FlowSpec", "Request"}
    assert used <= ready | nested
