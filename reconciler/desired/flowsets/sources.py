"""Sources of items: csv, json, jsonl and yaml files, lists, and the names of files. All or nothing.

A source that cannot be read in full raises :class:`SourceProblem`: half of a table looks like one from which
the other half was removed.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NoReturn

import msgspec

from reconciler.diagnostics import Location, nearest_path

FORMATS = ("csv", "json", "jsonl", "yaml")
"""The kinds of source that are one file of the repository."""

_INT_RANGE = range(-(2**63), 2**63)
_DEEPEST = 32
_BOM = "\ufeff"


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of a source: its values by column, and its place."""

    values: dict[str, Any]
    place: Location


class SourceTable(msgspec.Struct, frozen=True):
    """All rows of one source, and all columns that they have.

    ``delimiter`` is that of a csv file, else empty. The values of a csv file are text until
    :mod:`reconciler.desired.flowsets.columns` gives them their types.
    """

    columns: frozenset[str]
    rows: list[Row]
    delimiter: str = ""


class SourceProblem(Exception):  # noqa: N818 (it is a finding about the user's data)
    """A source cannot be read in full. ``place`` is None where the FlowSet's own document is meant."""

    def __init__(self, message: str, place: Location | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint


def file_of(source: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return (format, path) of a source that is one file; None for a list or the names of files."""
    return next(((name, source[name]) for name in FORMATS if name in source), None)


def read_source(
    source: Mapping[str, Any], own: Location, contents: Mapping[str, bytes], paths: Iterable[str]
) -> SourceTable:
    """Return the rows of a source.

    ``contents`` are the files that sources name, ``paths`` all files of the repository, ``own`` is the place
    of the source in the FlowSet.

    Raises
    ------
    SourceProblem
        It cannot be read in full.
    """
    named = file_of(source)
    header: Iterable[str] = ()
    if "list" in source:
        rows = [_checked(Row(dict(values), own), at) for at, values in enumerate(source["list"], start=1)]
    elif named is None:
        rows = _files(source, own, paths)
    else:
        kind, path = named
        if path not in contents:
            guess = nearest_path(path, paths)
            hint = (
                f"did you mean '{guess}'?" if guess else "paths are relative to the folder of reconciler.yaml"
            )
            raise SourceProblem(f"this revision does not have a file '{path}'", hint=hint)
        text = _decoded(contents[path], path)
        if kind == "csv":
            header, rows = _csv(text, path, source.get("delimiter", ","))
        else:
            rows = {"json": _json, "jsonl": _jsonl, "yaml": _yaml}[kind](text, path)
    if "key" in source and "files" not in source:
        rows = [_with_key(row, source["key"], at) for at, row in enumerate(rows, start=1)]
    if "csv" in source:  # each of its rows has all columns
        key = ["key"] if "key" in source else []
        return SourceTable(frozenset([*header, *key]), rows, source.get("delimiter", ","))
    return SourceTable(frozenset().union(*(row.values for row in rows)), rows)


def _with_key(row: Row, column: str, number: int) -> Row:
    """Return a row with its identifying column under the name ``key``, for joins."""
    if column not in row.values:
        raise SourceProblem(f"row {number} does not have the column '{column}' that is its key", row.place)
    return Row({"key": row.values[column], **row.values}, row.place)


def _decoded(data: bytes, path: str) -> str:
    if data.startswith(b"version https://git-lfs.github.com/spec/"):
        message = f"'{path}' is a pointer of Git LFS, not a table"
        raise SourceProblem(message, Location(path, 1, 1), "commit the file itself")
    try:
        return data.decode().removeprefix(_BOM)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceProblem(
            f"'{path}' is not UTF-8 text", Location(path, line, 1), "save the file with the encoding UTF-8"
        ) from error


def _files(source: Mapping[str, Any], own: Location, paths: Iterable[str]) -> list[Row]:
    """Return a row for each file that the glob matches; ``*`` matches within one folder, ``**`` any depth."""
    pattern = _glob_pattern(source["files"])
    column, key = source.get("as", "file"), source.get("key", "stem")
    rows = []
    for path in sorted(path for path in paths if pattern.fullmatch(path)):
        pure = PurePosixPath(path)
        name = {"stem": pure.stem, "name": pure.name, "path": path}[key]
        rows.append(Row({"key": name, column: path}, Location(path, 1, 1)))
    if not rows:
        raise SourceProblem(f"no file of this revision matches '{source['files']}'")
    return rows


def _glob_pattern(glob: str) -> re.Pattern[str]:
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(meanings.get(part, re.escape(part)) for part in parts))


# csv ------------------------------------------------------------------------------------------------------


def _csv(text: str, path: str, delimiter: str) -> tuple[list[str], list[Row]]:
    """Return the header and the rows of a csv file; blanks around a cell do not count."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceProblem(f"'{path}' contains a NUL byte", Location(path, line, 1), "is it a csv file?")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True,
        skipinitialspace=True,
    )  # fmt: skip
    header: list[str] | None = None
    rows: list[Row] = []
    line = 1
    try:
        for cells in reader:
            place, line = Location(path, line, 1), reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = _header([cell.strip() for cell in cells], place)
                continue
            if len(cells) != len(header):
                what = "cell" if len(cells) == 1 else "cells"
                raise SourceProblem(
                    f"row {len(rows) + 1} has {len(cells)} {what}, but the header has {len(header)} columns",
                    place,
                    "the file may be cut off; put a cell with a comma in quotes",
                )
            values = dict(zip(header, map(str.strip, cells), strict=True))
            rows.append(Row(values, place))
    except csv.Error as error:
        message = f"row {len(rows) + 1} cannot be read: {error}"
        raise SourceProblem(message, Location(path, line, 1), "check the quotes in this row") from error
    if header is None:
        raise SourceProblem(f"'{path}' is empty: it does not even have a header", Location(path, 1, 1))
    return header, rows


def _header(names: list[str], place: Location) -> list[str]:
    for number, name in enumerate(names, start=1):
        if not name:
            raise SourceProblem(f"column {number} of the header does not have a name", place)
        if names.index(name) != number - 1:
            raise SourceProblem(f"the header has the column '{name}' twice", place)
    return names


def cell_place(row: Row, line: str, column: str, delimiter: str) -> Location:
    """Return the place of a cell of a csv file; ``line`` is the first line of the row. Quotes count."""
    at = list(row.values).index(column) if column in row.values else 0
    quoted = False
    for position, character in enumerate(line):
        if at == 0:
            blank = len(line[position:]) - len(line[position:].lstrip(" "))
            return Location(row.place.file, row.place.line, position + 1 + blank)
        quoted ^= character == '"'
        at -= character == delimiter and not quoted
    return row.place


# json, jsonl, yaml ----------------------------------------------------------------------------------------


def _json(text: str, path: str) -> list[Row]:
    """Return the rows of a list of objects. Each is decoded alone, since its line is needed."""
    decoder = _decoder()
    blank = re.compile(r"[ \t\r\n]*")
    rows: list[Row] = []
    line, counted = 1, 0

    def place(at: int) -> Location:
        nonlocal line, counted
        line, counted = line + text.count("\n", counted, at), at
        return Location(path, line, at - text.rfind("\n", 0, at))

    def skip(at: int) -> int:
        found = blank.match(text, at)
        return found.end() if found is not None else at

    at = skip(0)
    if text[at : at + 1] != "[":
        raise SourceProblem(f"'{path}' must contain a list of objects", place(min(at, len(text))))
    at = skip(at + 1)
    while text[at : at + 1] != "]":
        if rows:
            if text[at : at + 1] != ",":
                cut_off = at >= len(text)
                what = "the list does not end: the file is cut off" if cut_off else "a comma is missing"
                raise SourceProblem(f"after row {len(rows)}: {what}", place(min(at, len(text))))
            at = skip(at + 1)
        here = place(at)
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise SourceProblem(f"row {len(rows) + 1} is not valid JSON: {error}", here) from error
        rows.append(_object(value, here, len(rows) + 1))
        at = skip(at)
    if text[at + 1 :].strip():
        raise SourceProblem("text follows the end of the list", place(skip(at + 1)))
    return rows


def _jsonl(text: str, path: str) -> list[Row]:
    decoder = _decoder()
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = Location(path, number, 1)
        try:
            value = decoder.decode(line)
        except ValueError as error:
            raise SourceProblem(f"row {len(rows) + 1} is not valid JSON: {error}", place) from error
        rows.append(_object(value, place, len(rows) + 1))
    return rows


def _decoder() -> json.JSONDecoder:
    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number of JSON")

    def pairs(found: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(found)
        if len(values) < len(found):
            names = [name for name, _ in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"'{twice}' is given twice")
        return values

    return json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant)


def _yaml(text: str, path: str) -> list[Row]:
    from reconciler.desired.yaml.reader import read_documents

    result = read_documents(text.encode())
    problems = [problem for document in result.documents for problem in document.problems]
    problems += [result.failure] if result.failure is not None else []
    for problem in problems:
        at = problem.location
        raise SourceProblem(problem.message, Location(path, at.line, at.column) if at else None, problem.hint)
    first = Location(path, 1, 1)
    if len(result.documents) != 1 or not isinstance(result.documents[0].content, list):
        raise SourceProblem(f"'{path}' must contain one list of mappings", first)
    (document,) = result.documents
    rows = []
    for number, value in enumerate(document.content):
        mark = document.marks.get(f"/{number}")
        place = Location(path, mark.line, mark.column) if mark is not None else first
        rows.append(_object(value, place, number + 1))
    return rows


def _object(value: Any, place: Location, number: int) -> Row:
    if not isinstance(value, dict):
        raise SourceProblem(f"row {number} must be a mapping of columns to values", place)
    return _checked(Row(value, place), number)


def _checked(row: Row, number: int) -> Row:
    """Return a row whose values are plain data: what a table says is never a directive or a class."""
    for column, value in row.values.items():
        why = next(value_problems(value), None)
        if why is not None:
            raise SourceProblem(f"row {number}, column '{column}': {why}", row.place)
    return row


def value_problems(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield why a value of an item cannot be used, at any depth."""
    if depth > _DEEPEST:
        yield f"lists and mappings are nested deeper than {_DEEPEST} levels"
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key.startswith(("$", "@")):
                yield f"'{key}': data cannot have keys that begin with '$' or '@'"
            yield from value_problems(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from value_problems(inner, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        yield "the number is not finite"
    elif type(value) is int and value not in _INT_RANGE:
        yield "the number does not fit into 64 bits"
