"""The graph of a flow as Mermaid, DOT or data. Whatever a job is called, it stays one label."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reconciler.model.graph import EdgeKind, Graph
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE, BROKEN, JobState

_COLORS = {
    "done": ("#d5f0d8", "#2e7d32"),
    "failed": ("#f9d6d5", "#c62828"),
    "active": ("#d4e6fb", "#1565c0"),
    "paused": ("#fdf0c4", "#b28704"),
    "stopped": ("#e0e0e0", "#616161"),
    "pending": ("#fafafa", "#757575"),
}
"""Fill and line of each group of states."""

_MERMAID_ARROWS = {EdgeKind.DATA: "-->", EdgeKind.GENERATED: "-.->", EdgeKind.GENERATION: "==>"}
_DOT_ARROWS = {EdgeKind.DATA: "", EdgeKind.GENERATED: " [style=dashed]", EdgeKind.GENERATION: " [style=bold]"}

MERMAID_EDGES, MERMAID_CHARACTERS = 500, 50_000
"""More than this Mermaid does not draw unless its settings are changed; GitHub and GitLab do not."""


def state_group(state: JobState) -> str:
    """Return the group of a state that has a colour of its own."""
    if state is JobState.COMPLETED:
        return "done"
    if state in BROKEN:
        return "failed"
    if state in ACTIVE:
        return "active"
    if state in (JobState.STOPPED, JobState.USER_STOPPED):
        return "stopped"
    return "paused" if state is JobState.PAUSED else "pending"


def graph_data(graph: Graph, revision: str) -> dict[str, Any]:
    """Return a graph; the contract of ``graph -o json``."""
    return {
        "flow": graph.flow,
        "revision": revision,
        "nodes": [_node_data(job) for job in graph.jobs],
        "edges": [
            {"source": edge.source, "target": edge.target, "kind": str(edge.kind)} for edge in graph.edges
        ],
    }


def _node_data(job: JobRecord) -> dict[str, Any]:
    return {
        "id": job.id,
        "key": job.path,
        "flow": job.flow,
        "name": job.name,
        "function": job.function,
        "uuid": job.uuid,
        "index": job.index,
        "state": str(job.state),
        "worker": job.config.value("worker"),
        "generated": job.generated_by is not None,
        "current": job.current,
    }


# Mermaid --------------------------------------------------------------------------------------------------


def mermaid(graph: Graph) -> str:
    """Return a Mermaid flowchart."""
    return "\n".join(_mermaid_lines(graph))


def _mermaid_lines(graph: Graph) -> Iterator[str]:
    yield "flowchart TD"
    names = _short_names(graph)
    for job in graph.jobs:
        opening, closing = ("[", "]") if job.flow == graph.flow else ("([", "])")
        yield f'    {names[job.id]}{opening}"{_mermaid_label(_title(graph, job), job.state)}"{closing}'
    for edge in graph.edges:
        yield f"    {names[edge.source]} {_MERMAID_ARROWS[edge.kind]} {names[edge.target]}"
    yield from _mermaid_classes(graph, names)


def _mermaid_classes(graph: Graph, names: dict[str, str]) -> Iterator[str]:
    members: dict[str, list[str]] = {}
    for job in graph.jobs:
        for group in _classes(job):
            members.setdefault(group, []).append(names[job.id])
    for group, found in members.items():
        yield f"    classDef {group} {_mermaid_style(group)}"
        yield f"    class {','.join(found)} {group}"


def _classes(job: JobRecord) -> Iterator[str]:
    yield state_group(job.state)
    if job.generated_by is not None:
        yield "generated"
    if not job.current:
        yield "history"


def _mermaid_style(group: str) -> str:
    if group in _COLORS:
        fill, line = _COLORS[group]
        return f"fill:{fill},stroke:{line},color:#000"
    return "stroke-dasharray:5 4" if group == "generated" else "opacity:0.5"


def _mermaid_label(title: str, state: JobState) -> str:
    return f"{mermaid_text(title)}<br/>{state}"


_PLAIN = frozenset(" _-./,()@=")
_LIKE_A_LIST = re.compile(r"\s*(\d+[.)]|[-+])\s")
_NOTATION = re.compile(r"\\(?=n)|\$(?=\$)|:(?=fa-)")
_NO_WIDTH = "\N{WORD JOINER}"
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def mermaid_text(text: str) -> str:
    """Return any text so that it is shown as it is inside the quotes of a label.

    All but letters, digits and what is surely harmless becomes a number. What would then still be taken for
    an entry of a list, a line break, a formula or an icon is broken up by a character without width.
    """
    return "<br/>".join(map(_mermaid_line, _printable(text).split("\n")))


def _mermaid_line(line: str) -> str:
    shown = _NOTATION.sub(rf"\g<0>{_NO_WIDTH}", line)
    if _LIKE_A_LIST.match(line):
        shown = _NO_WIDTH + shown
    return "".join(c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in shown)


# DOT ------------------------------------------------------------------------------------------------------


def dot(graph: Graph) -> str:
    """Return the graph in the language of Graphviz."""
    return "\n".join(_dot_lines(graph))


def _dot_lines(graph: Graph) -> Iterator[str]:
    names = _short_names(graph)
    yield f"digraph {dot_text(graph.flow)} {{"
    yield '    graph [charset="UTF-8"];'
    yield '    node [shape=box, fontname="Helvetica", fontsize=11];'
    for job in graph.jobs:
        label = dot_text(f"{_title(graph, job)}\n{job.state}")
        yield f"    {names[job.id]} [label={label}, {_dot_style(graph, job)}];"
    for edge in graph.edges:
        yield f"    {names[edge.source]} -> {names[edge.target]}{_DOT_ARROWS[edge.kind]};"
    yield "}"


def _dot_style(graph: Graph, job: JobRecord) -> str:
    fill, line = _COLORS[state_group(job.state)]
    styles = ["filled"]
    styles += ["rounded"] * (job.flow != graph.flow) + ["dashed"] * (job.generated_by is not None)
    faded = "" if job.current else ', fontcolor="#9e9e9e"'
    return f'style="{",".join(styles)}", fillcolor="{fill}", color="{line}"{faded}'


def dot_text(text: str) -> str:
    """Return any text as a quoted string of DOT that is shown as it is: a line break as one."""
    # Graphviz reads escapes by a backslash, and entities as HTML has them.
    escaped = _printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return '"' + escaped.replace("\n", "\\n") + '"'


# both -----------------------------------------------------------------------------------------------------


def _short_names(graph: Graph) -> dict[str, str]:
    return {job.id: f"j{number}" for number, job in enumerate(graph.jobs, 1)}


def _title(graph: Graph, job: JobRecord) -> str:
    return job.key if job.flow == graph.flow else job.path


def _printable(text: str) -> str:
    r"""Return a text with ``\n`` between its lines, and a sign for what no terminal or browser can show."""
    return "\n".join(map(_printable_line, text.splitlines()))


def _printable_line(line: str) -> str:
    return "".join(c if c.isprintable() else " " if c.isspace() else _UNKNOWN for c in line)
