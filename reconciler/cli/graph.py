"""``reconcile graph``: the jobs of a flow and how they depend on each other, as a drawing or as data."""

from __future__ import annotations

import sys

import click

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.views.graph_text import MERMAID_CHARACTERS, MERMAID_EDGES, dot, graph_data, mermaid
from reconciler.cli.views.listing import echo_data
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError, WorldError
from reconciler.model.graph import Graph, flow_graph, missing_parents

_PNG_TIMEOUT = 120.0  # seconds


@click.command(name="graph", help="Draw the jobs of a flow (Mermaid; -o dot, json or png).")
@click.argument("flow")
@click.option("--all", "history", is_flag=True, help="Also history: jobs that newer content replaced.")
@global_options
def command(context: Context, *, flow: str, history: bool) -> None:
    """Print the graph of one flow."""
    chosen = context.options.output
    if chosen == "png" and sys.stdout.isatty():
        raise InputError(
            "a picture is not for a terminal", hint=f"reconcile graph {flow} -o png > {flow}.png"
        )
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        graph, revision = _read(view, flow, history=history)
    match chosen:
        case "json" | "yaml":
            echo_data(context, graph_data(graph, revision))
        case "name":
            for job in graph.jobs:
                click.echo(job.path)
        case "dot":
            click.echo(dot(graph))
        case "png":
            click.echo(_png(dot(graph)), nl=False)
        case _:
            _show_mermaid(context, graph)


def _read(view: View, flow: str, *, history: bool) -> tuple[Graph, str]:
    record = view.flow(flow)
    if record is None:
        raise _no_flow(view, flow)
    members = view.jobs_of(flow)
    missing = sorted(missing_parents(members, history=history))
    others = [job for uuid in missing for job in view.generations(uuid)]
    return flow_graph(flow, members, others, history=history), record.revision


def _no_flow(view: View, flow: str) -> InputError:
    config = view.config()
    reason = config.out_of_sync.get(flow) if config is not None else None
    if reason is not None:
        return InputError(f"flow '{flow}' has no jobs yet: {reason}", hint="see `reconcile validate`")
    return InputError(
        f"there is no flow '{flow}'", hint=did_you_mean(flow, [record.name for record in view.flows()])
    )


def _show_mermaid(context: Context, graph: Graph) -> None:
    text = mermaid(graph)
    click.echo(text)
    if len(graph.edges) > MERMAID_EDGES or len(text) > MERMAID_CHARACTERS:
        context.say(
            f"note: {len(graph.jobs)} jobs and {len(graph.edges)} arrows are more than Mermaid draws "
            "by default; use -o dot or -o png"
        )


def _png(text: str) -> bytes:
    """Return the picture that Graphviz makes of a graph.

    Raises
    ------
    WorldError
        Graphviz is not installed, fails, or takes too long.
    """
    import subprocess

    try:
        done = subprocess.run(
            ["dot", "-Tpng"], input=text.encode(), capture_output=True, timeout=_PNG_TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        hint = "install the package graphviz, or use -o mermaid or -o dot"
        raise WorldError("-o png needs the program `dot`, which is not installed", hint=hint) from error
    except subprocess.TimeoutExpired as error:
        raise WorldError(
            f"`dot` made no picture in {_PNG_TIMEOUT:.0f} s", hint="use -o dot, and `sfdp` for many jobs"
        ) from error
    if done.returncode != 0 or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise WorldError(f"`dot` failed: {lines[0]}")
    return done.stdout
