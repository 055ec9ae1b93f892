"""The graph of a flow as Mermaid, DOT or data. A label shows any text of a user literally."""

from __future__ import annotations

import re
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
"""Fill colour and line colour of each group of states."""

_MERMAID_ARROWS = {EdgeKind.DATA: "-->", EdgeKind.GENERATED: "-.->", EdgeKind.GENERATION: "==>"}
_DOT_ARROWS = {EdgeKind.DATA: "", EdgeKind.GENERATED: " [style=dashed]", EdgeKind.GENERATION: " [style=bold]"}

MERMAID_EDGES, MERMAID_CHARACTERS = 500, 50_000
"""The largest graph that Mermaid draws with its default settings, which GitHub and GitLab keep."""


def state_group(state: JobState) -> str:
    """Return which colour a state has: a key of ``_COLORS``."""
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
        "nodes": [
            {
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
            for job in graph.jobs
        ],
        "edges": [
            {"source": edge.source, "target": edge.target, "kind": str(edge.kind)} for edge in graph.edges
        ],
    }


# Mermaid --------------------------------------------------------------------------------------------------


def mermaid(graph: Graph) -> str:
    """Return a Mermaid flowchart: nodes, arrows, then a class for the look of each group of nodes."""
    names = _short_names(graph)
    lines = ["flowchart TD"]
    members: dict[str, list[str]] = {}
    for job in graph.jobs:
        name = names[job.id]
        opening, closing = ("[", "]") if job.flow == graph.flow else ("([", "])")
        lines.append(f'    {name}{opening}"{mermaid_text(_title(graph, job))}<br/>{job.state}"{closing}')
        members.setdefault(state_group(job.state), []).append(name)
        if job.generated_by is not None:
            members.setdefault("generated", []).append(name)
        if not job.current:
            members.setdefault("history", []).append(name)
    lines += [
        f"    {names[edge.source]} {_MERMAID_ARROWS[edge.kind]} {names[edge.target]}" for edge in graph.edges
    ]
    for group, nodes in members.items():
        if group in _COLORS:
            fill, line = _COLORS[group]
            style = f"fill:{fill},stroke:{line},color:#000"
        else:
            style = "stroke-dasharray:5 4" if group == "generated" else "opacity:0.5"
        lines += [f"    classDef {group} {style}", f"    class {','.join(nodes)} {group}"]
    return "\n".join(lines)


_PLAIN = frozenset(" _-./,()@=")
_LIKE_A_LIST = re.compile(r"\s*(\d+[.)]|[-+])\s")
_NOTATION = re.compile(r"\\(?=n)|\$(?=\$)|:(?=fa-)")
_NO_WIDTH = "\N{WORD JOINER}"
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def mermaid_text(text: str) -> str:
    """Return any text so that a quoted label shows it literally.

    Letters, digits and a few harmless characters stay; each other character becomes its number (``#34;``).
    A character without width breaks up what Mermaid would still interpret: a list item, a line break, a
    formula, an icon.
    """

    def line_text(line: str) -> str:
        shown = _NOTATION.sub(rf"\g<0>{_NO_WIDTH}", line)
        if _LIKE_A_LIST.match(line):
            shown = _NO_WIDTH + shown
        return "".join(c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in shown)

    return "<br/>".join(map(line_text, _printable(text).split("\n")))


# DOT ------------------------------------------------------------------------------------------------------


def dot(graph: Graph) -> str:
    """Return the graph in the language of Graphviz."""
    names = _short_names(graph)
    lines = [
        f"digraph {dot_text(graph.flow)} {{",
        '    graph [charset="UTF-8"];',
        '    node [shape=box, fontname="Helvetica", fontsize=11];',
    ]
    for job in graph.jobs:
        label = dot_text(f"{_title(graph, job)}\n{job.state}")
        fill, line = _COLORS[state_group(job.state)]
        rounded = ",rounded" if job.flow != graph.flow else ""
        dashed = ",dashed" if job.generated_by is not None else ""
        style = f'style="filled{rounded}{dashed}", fillcolor="{fill}", color="{line}"'
        faded = "" if job.current else ', fontcolor="#9e9e9e"'
        lines.append(f"    {names[job.id]} [label={label}, {style}{faded}];")
    lines += [
        f"    {names[edge.source]} -> {names[edge.target]}{_DOT_ARROWS[edge.kind]};" for edge in graph.edges
    ]
    return "\n".join([*lines, "}"])


def dot_text(text: str) -> str:
    """Return any text as a quoted string of DOT that shows it literally, line breaks included."""
    # Graphviz interprets backslashes, and entities as HTML has them.
    escaped = _printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return '"' + escaped.replace("\n", "\\n") + '"'


# both -----------------------------------------------------------------------------------------------------


def _short_names(graph: Graph) -> dict[str, str]:
    """Return an identifier for each job that every notation accepts: ``j1``, ``j2`` ..."""
    return {job.id: f"j{number}" for number, job in enumerate(graph.jobs, 1)}


def _title(graph: Graph, job: JobRecord) -> str:
    return job.key if job.flow == graph.flow else job.path


def _printable(text: str) -> str:
    r"""Return text with ``\n`` between its lines, and a replacement for each unprintable character."""
    return "\n".join(
        "".join(c if c.isprintable() else " " if c.isspace() else _UNKNOWN for c in line)
        for line in text.splitlines()
    )
