"""Count what makes code easy or hard to find one's way in: ``python scripts/figures.py [DIRECTORY]``.

Prints one table for the Python package in DIRECTORY (default: ``reconciler``):

- lines, modules, and modules under 70 lines (``__init__.py`` aside);
- private functions (``_name``) that their file names only once besides their definition, as a share of all
  functions, and those of them with at most 8 lines: candidates to be inlined;
- the length of functions in lines, from ``def`` to the last line: median, 90th percentile, share over 50;
- lines of docstrings and comments for each line of code.

The figures are there to notice by, not to obey.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SHORT_MODULE = 70
SHORT_FUNCTION = 8
LONG_FUNCTION = 50

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """The figures of one file."""

    lines: int
    prose: int
    code: int
    functions: list[int]
    """Length of each function."""
    named_once: list[int]
    """Length of each private function that the file names once."""


def measure(text: str) -> Module:
    """Return the figures of one source text."""
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    prose = _prose_lines(text, tree)
    code = {token.start[0] for token in _tokens(text) if token.type not in _NOT_CODE} - prose
    return Module(
        lines=text.count("\n"),
        prose=len(prose),
        code=len(code),
        functions=[_length(node) for node in functions],
        named_once=[_length(node) for node in functions if _is_named_once(node.name, text)],
    )


_NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(text).readline)


def _prose_lines(text: str, tree: ast.Module) -> set[int]:
    """Return the lines of docstrings (of attributes too) and the lines that are only a comment."""
    lines = text.splitlines()
    comments = {
        token.start[0]
        for token in _tokens(text)
        if token.type == tokenize.COMMENT and lines[token.start[0] - 1].lstrip().startswith("#")
    }
    strings = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    return comments | {
        line for node in strings for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _is_named_once(name: str, text: str) -> bool:
    is_private = name.startswith("_") and not name.startswith("__")
    return is_private and len(re.findall(rf"\b{re.escape(name)}\b", text)) == 2


def report(directory: Path) -> str:
    """Return the table for all modules below a directory."""
    measured = {file: measure(file.read_text(encoding="utf-8")) for file in sorted(directory.rglob("*.py"))}
    modules = list(measured.values())
    short = sum(m.lines < SHORT_MODULE for file, m in measured.items() if file.name != "__init__.py")
    functions = [length for module in modules for length in module.functions]
    once = [length for module in modules for length in module.named_once]
    rows = [
        ("lines", f"{sum(module.lines for module in modules):,}"),
        ("modules; under 70 lines", f"{len(modules)}; {short}"),
        (
            "private functions named once; of those <= 8 lines",
            f"{_share(len(once), functions)}; {_share(sum(n <= SHORT_FUNCTION for n in once), functions)}",
        ),
        (
            "function lines: median; 90th percentile; over 50",
            f"{statistics.median(functions):g}; {statistics.quantiles(functions, n=10)[-1]:g}; "
            f"{_share(sum(n > LONG_FUNCTION for n in functions), functions)}",
        ),
        (
            "docstring and comment lines for each code line",
            f"{sum(m.prose for m in modules) / sum(m.code for m in modules):.2f}",
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _share(count: int, functions: list[int]) -> str:
    return f"{100 * count / len(functions):.1f} %"


if __name__ == "__main__":
    print(report(Path(sys.argv[1] if len(sys.argv) > 1 else "reconciler")))
