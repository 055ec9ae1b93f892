"""``reconcile graph``: the jobs of a flow and their dependencies, as a drawing or as data."""

from __future__ import annotations

import sys

import click

from reconciler.cli.context import Context
from reconciler.cli.formats import emit
from reconciler.cli.live_names import complete_flows
from reconciler.cli.options import global_options
from reconciler.cli.views.data import ordered_jobs
from reconciler.cli.views.graph_text import MERMAID_CHARACTERS, MERMAID_EDGES, dot, graph_data, mermaid
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError, WorldError
from reconciler.model.graph import flow_graph, missing_parents

_PNG_TIMEOUT = 120.0
"""Seconds."""


@click.command(name="graph", help="Draw the jobs of a flow (Mermaid; -o dot, json or png).")
@click.argument("flow", shell_complete=complete_flows)
@click.option("--all", "history", is_flag=True, help="Include history: superseded jobs.")
@global_options
def command(context: Context, *, flow: str, history: bool) -> None:
    """Print the graph of one flow."""
    if context.options.output == "png" and sys.stdout.isatty():
        raise InputError(
            "cannot print an image on a terminal", hint=f"reconcile graph {flow} -o png > {flow}.png"
        )
    with context.store(must_exist=True, read_only=True) as store, store.read() as view:
        record = view.flow(flow)
        if record is None:
            config = view.config()
            reason = config.out_of_sync.get(flow) if config is not None else None
            if reason is not None:
                raise InputError(f"flow '{flow}' has no jobs yet: {reason}", hint="see `reconcile validate`")
            hint = did_you_mean(flow, [record.name for record in view.flows()])
            raise InputError(f"there is no flow '{flow}'", hint=hint)
        members = ordered_jobs(view, flow)
        missing = sorted(missing_parents(members, history=history))  # jobs of other flows
        others = [job for uuid in missing for job in view.generations(uuid)]
        graph, revision = flow_graph(flow, members, others, history=history), record.revision

    def text() -> None:
        drawing = mermaid(graph)
        click.echo(drawing)
        if len(graph.edges) > MERMAID_EDGES or len(drawing) > MERMAID_CHARACTERS:
            context.say(
                f"note: {len(graph.jobs)} jobs and {len(graph.edges)} arrows exceed Mermaid's default "
                "limits; use -o dot or -o png"
            )

    emit(
        context,
        lambda: graph_data(graph, revision),
        text,
        names=lambda: (job.path for job in graph.jobs),
        dot=lambda: click.echo(dot(graph)),
        png=lambda: click.echo(_png(dot(graph)), nl=False),
    )


def _png(text: str) -> bytes:
    """Return the image that Graphviz draws of a graph.

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
            f"`dot` did not finish within {_PNG_TIMEOUT:.0f} s", hint="use -o dot, and `sfdp` for many jobs"
        ) from error
    if done.returncode != 0 or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise WorldError(f"`dot` failed: {lines[0]}")
    return done.stdout
