"""``reconcile results``: one row for each flow, with values of its item and parts of its outputs."""

from __future__ import annotations

import csv
import fnmatch
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from reconciler.actual import packed
from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.formats import as_json, as_yaml
from reconciler.cli.job_output import MissingPartError, loader, output_part
from reconciler.cli.job_selectors import check_filters, read_flow_words
from reconciler.cli.live_names import complete_flow_selectors
from reconciler.cli.options import global_options
from reconciler.cli.views.listing import table_lines
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.health import Progress, flow_progress
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.summaries import summary_of

Row = dict[str, Any]

_PLAIN = ("flow", "flowset", "state", "seconds", "cpu", "memory", "revision")
_ONLY = {"completed": Progress.COMPLETED, "failed": Progress.FAILED, "missing": Progress.OPEN}
_DEFAULT = "flow,item.*,state,seconds"
_PAGE = 1000
"""Rows that are held at once."""


@click.command(name="results")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...", shell_complete=complete_flow_selectors)
@click.option(
    "--columns", default=_DEFAULT, show_default=True, metavar="NAME,...",
    help="Columns: flow, flowset, state, seconds, cpu, memory, revision, item.COLUMN or item.*, labels.KEY, "
    "output.JOB or output.JOB.PATH.",
)  # fmt: skip
@click.option("--only", metavar="completed,failed,missing", help="Only flows that stand like this.")
@global_options
def command(context: Context, *, selectors: tuple[str, ...], columns: str, only: str | None) -> None:
    """Print a table with one row for each flow: values of its item, and parts of its outputs.

    SELECTORs are FLOW (globs work), label:KEY=VALUE, flowset:SET and 'item.COLUMN>VALUE'. `output.` takes
    the id of a job and a path into its output, as in output.fit.v0; in a flow with one job, the path alone.
    A value that a flow does not have is empty. -o csv, json and parquet read the flows one after the other.
    """
    wanted = read_flow_words(selectors, hint="use --only failed,missing")
    standing = set()
    for word in only.split(",") if only is not None else ():
        if word not in _ONLY:
            raise InputError(f"there is no standing '{word}'", hint=did_you_mean(word, _ONLY))
        standing.add(_ONLY[word])
    with context.store(must_exist=True, read_only=True) as store:
        with store.read() as view:
            check_filters(wanted, view, view.flows())

            def selects(flow: FlowRecord) -> bool:
                named = wanted.selects_flow(flow.name, flow.labels, flow.flowset, flow.item)
                return named and not flow.removed

            names = [flow.name for flow in view.flows() if selects(flow)]
            for pattern in wanted.names:
                if not fnmatch.filter(names, pattern):
                    hint = did_you_mean(pattern, [flow.name for flow in view.flows()])
                    context.say(f"no flow matches '{pattern}'" + (f"; {hint}" if hint is not None else ""))
            fields = _fields(view, names, [word.strip() for word in columns.split(",") if word.strip()])
        rows = _Rows(store, names, fields, standing)
        writers: dict[str | None, Callable[[], None]] = {
            "csv": lambda: _write_csv(rows, fields),
            "json": lambda: _write_json(rows),
            "yaml": lambda: click.echo(as_yaml(list(rows)), nl=False),
            "name": lambda: _write_names(_Rows(store, names, ["flow"], standing)),
            "parquet": lambda: _write_parquet(rows, fields),
        }
        writers.get(context.options.output, lambda: _write_table(context, list(rows), fields))()


def _fields(view: View, names: Iterable[str], columns: Iterable[str]) -> list[str]:
    """Return the columns, with ``item.*`` as the columns that the items have.

    Raises
    ------
    InputError
        There is no such column.
    """
    items: dict[str, None] = {}
    for name in names:
        flow = view.flow(name)
        items |= dict.fromkeys(flow.item if flow is not None else ())
    found: dict[str, None] = {}
    for column in columns:
        kind, dot, rest = column.partition(".")
        known = kind in ("item", "labels", "output") and rest if dot else column in _PLAIN
        if not known:
            choices = [*_PLAIN, *(f"item.{name}" for name in items), "labels.KEY", "output.JOB.PATH"]
            raise InputError(f"there is no column '{column}'", hint=did_you_mean(column, choices))
        if column == "item.*":
            found |= dict.fromkeys(f"item.{name}" for name in items)
        elif kind == "item" and items and rest not in items:
            hint = did_you_mean(column, (f"item.{name}" for name in items))
            raise InputError(f"no item has a column '{rest}'", hint=hint)
        else:
            found[column] = None
    return list(found)


class _Rows:
    """The rows, read anew with each iteration: a page of flows at a time."""

    def __init__(self, store: Store, names: list[str], fields: list[str], standing: set[Progress]) -> None:
        from reconciler.loop import open_outputs

        self.store = store
        self.names = names
        self.fields = fields
        self.standing = standing
        with store.read() as view:
            config = view.applied_config()
        self.outputs = open_outputs(store, config)

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self.names), _PAGE):
            with self.store.read() as view:
                page = [(view.flow(name), view.jobs_of(name)) for name in self.names[start : start + _PAGE]]
            for flow, jobs in page:
                current = [job for job in jobs if job.current]
                progress = flow_progress(summary_of(current))
                if flow is not None and (not self.standing or progress in self.standing):
                    yield self._row(flow, current, progress)

    def _row(self, flow: FlowRecord, jobs: list[JobRecord], progress: Progress) -> Row:
        documents: dict[str, Any] = {}
        seconds = [job.attempt.seconds for job in jobs if job.attempt.seconds is not None]
        cpu = [job.attempt.cpu for job in jobs if job.attempt.cpu is not None]
        memory = [job.attempt.memory for job in jobs if job.attempt.memory is not None]
        values: Row = {
            "flow": flow.name,
            "flowset": flow.flowset,
            "state": "missing" if progress is Progress.OPEN else str(progress),
            "seconds": sum(seconds) if seconds else None,
            "cpu": sum(cpu) if cpu else None,
            "memory": max(memory, default=None),
            "revision": flow.revision,
        }
        row: Row = {}
        for field in self.fields:
            kind, _, rest = field.partition(".")
            if kind == "item":
                row[field] = flow.item.get(rest)
            elif kind == "labels":
                row[field] = flow.labels.get(rest)
            elif kind == "output":
                row[field] = self._output(jobs, rest, documents)
            else:
                row[field] = values[field]
        return row

    def _output(self, jobs: list[JobRecord], path: str, documents: dict[str, Any]) -> Any:
        """Return a part of an output; None if there is no such job, or it has no such part."""
        named = [job for job in jobs if re.match(rf"{re.escape(job.key)}(?:[.\[]|$)", path)]
        if named:
            job = max(named, key=lambda one: len(one.key))
            path = path[len(job.key) :]
        elif len(jobs) == 1:
            (job,) = jobs
        else:
            return None
        if job.uuid not in documents:
            documents[job.uuid] = self.outputs.packed(job.uuid)
        document = documents[job.uuid]
        if document is None:
            return None
        load = loader(self.outputs, job)
        content = packed.members(document).get("output", memoryview(b"\xc0"))
        try:
            return packed.loaded(output_part(job.path, content, path, load), load)
        except MissingPartError:
            return None


def _write_table(context: Context, rows: list[Row], fields: list[str]) -> None:
    if not rows:
        context.say("nothing to show")
    for line in table_lines(context, rows, fields):
        click.echo(line)


def _write_names(rows: Iterable[Row]) -> None:
    for row in rows:
        click.echo(row["flow"])


def _write_csv(rows: Iterable[Row], fields: list[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(fields)
    for row in rows:
        writer.writerow([_flat(row[field]) for field in fields])


def _flat(value: Any) -> Any:
    """Return a value for a cell: lists and mappings as JSON, booleans as in JSON."""
    return as_json(value, indent=None) if isinstance(value, bool | dict | list) else value


def _write_json(rows: Iterable[Row]) -> None:
    before = "[\n"
    for row in rows:
        click.echo(f"{before}  {as_json(row, indent=None)}", nl=False)
        before = ",\n"
    click.echo("[]" if before == "[\n" else "\n]")


def _write_parquet(rows: Iterable[Row], fields: list[str]) -> None:
    """Write a parquet file to stdout. The rows are read twice: first for the types of the columns.

    Numbers of both kinds in a column become floats; lists, mappings and mixed types become JSON text.

    Raises
    ------
    InputError
        pyarrow is not installed, or stdout is a terminal.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        hint = "install it with `pip install 'jobflow-reconciler[results]'`, or use -o csv"
        raise InputError("-o parquet needs pyarrow, which is not installed", hint=hint) from error
    if sys.stdout.isatty():
        raise InputError("a terminal cannot show parquet", hint="write it to a file: > results.parquet")
    types: dict[str, set[type]] = {field: set() for field in fields}
    for row in rows:
        for field in fields:
            types[field].add(type(row[field]))
    arrow = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    chosen: dict[str, type] = {}  # field -> bool, int, float or str
    for field, found in types.items():
        kinds = found - {type(None)}
        one: type = float if kinds == {int, float} else next(iter(kinds)) if len(kinds) == 1 else str
        chosen[field] = one if one in arrow else str
    schema = pyarrow.schema([(field, arrow.get(chosen[field], pyarrow.string())) for field in fields])

    def value(field: str, row: Row) -> Any:
        found = row[field]
        if found is None or isinstance(found, str):
            return found
        if chosen[field] is str:
            return as_json(found, indent=None)
        return float(str(found)) if chosen[field] is float else found

    stream = sys.stdout.buffer
    with ParquetWriter(stream, schema) as writer:
        page: list[Row] = []
        for row in rows:
            page.append({field: value(field, row) for field in fields})
            if len(page) == _PAGE:
                writer.write_table(pyarrow.Table.from_pylist(page, schema))
                page = []
        if page:
            writer.write_table(pyarrow.Table.from_pylist(page, schema))
