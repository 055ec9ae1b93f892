"""The graph of a flow as SVG: layers from left to right, and many like jobs as one box."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import msgspec

MOST_BOXES = 60
"""Boxes of one drawing; a larger graph is left to ``reconcile graph``."""

_ALIKE = 4
"""Jobs of one layer with the same function and state from which on they share a box."""

_WIDTH, _HEIGHT, _ACROSS, _DOWN, _MARGIN = 150, 34, 60, 14, 10
"""Size of a box, and the gaps between boxes, in pixels."""
_LETTERS = 21
"""Letters that fit into a box."""


class Box(msgspec.Struct, frozen=True):
    """One job, or ``count`` jobs with the same function and state that come after the same layer."""

    name: str
    state: str
    count: int
    members: tuple[str, ...]


def layers_of(ids: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return ids in layers: each comes after all that it depends on. What is in a cycle comes last."""
    needs: dict[str, set[str]] = {one: set() for one in ids}
    for source, target in edges:
        if source in needs and target in needs and source != target:
            needs[target].add(source)
    layers: list[list[str]] = []
    placed: set[str] = set()
    while needs:
        free = [one for one, before in needs.items() if before <= placed] or list(needs)
        layers.append(free)
        placed.update(free)
        for one in free:
            del needs[one]
    return layers


def boxes_of(layer: Sequence[str], nodes: Mapping[str, Mapping[str, Any]]) -> list[Box]:
    """Return the boxes of a layer; jobs that are alike share one if there are many."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in layer:
        alike[nodes[one]["function"], nodes[one]["state"]].append(one)
    boxes = []
    for (function, state), members in alike.items():
        if len(members) < _ALIKE:
            boxes += [Box(nodes[one]["name"], state, 1, (one,)) for one in members]
        else:
            boxes.append(Box(function.rpartition(".")[2], state, len(members), tuple(members)))
    return boxes


def drawing(graph: Mapping[str, Any], group_of: Mapping[str, str]) -> str | None:
    """Return the SVG of a graph, as ``graph -o json`` prints it; None if it is too large to be looked at.

    ``group_of`` gives the CSS class of a state.
    """
    nodes = {node["id"]: node for node in graph["nodes"]}
    pairs = [(edge["source"], edge["target"], edge["kind"]) for edge in graph["edges"]]
    columns = [
        boxes_of(layer, nodes)
        for layer in layers_of(list(nodes), ((source, target) for source, target, _ in pairs))
    ]
    if not nodes or sum(map(len, columns)) > MOST_BOXES:
        return None
    places: dict[str, tuple[int, int]] = {}
    shapes = []
    for column, boxes in enumerate(columns):
        for row, box in enumerate(boxes):
            left, top = _MARGIN + column * (_WIDTH + _ACROSS), _MARGIN + row * (_HEIGHT + _DOWN)
            places |= dict.fromkeys(box.members, (left, top))
            shapes.append(_shape(box, left, top, group_of.get(box.state, "pending")))
    arrows = dict.fromkeys(
        _arrow(places[source], places[target], kind)
        for source, target, kind in pairs
        if source in places and target in places
    )
    width = 2 * _MARGIN + len(columns) * _WIDTH + (len(columns) - 1) * _ACROSS
    rows = max(map(len, columns))
    height = 2 * _MARGIN + rows * _HEIGHT + (rows - 1) * _DOWN
    title = escape(f"Jobs of {graph['flow']} and what they need")
    return (
        f'<svg class="graph" role="img" aria-label="{title}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(arrows)}{"".join(shapes)}</svg>'
    )


def _shape(box: Box, left: int, top: int, group: str) -> str:
    name = box.name if box.count == 1 else f"{box.count} x {box.name}"
    short = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
    return (
        f'<g class="{group}"><title>{escape(name)}: {escape(box.state)}</title>'
        f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>'
        f'<text x="{left + _WIDTH // 2}" y="{top + 15}">{escape(short)}</text>'
        f'<text class="state" x="{left + _WIDTH // 2}" y="{top + 28}">{escape(box.state)}</text></g>'
    )


def _arrow(source: tuple[int, int], target: tuple[int, int], kind: str) -> str:
    x1, y1 = source[0] + _WIDTH, source[1] + _HEIGHT // 2
    x2, y2 = target[0], target[1] + _HEIGHT // 2
    bend = max(20, (x2 - x1) // 2)
    return f'<path class="{escape(kind)}" d="M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"/>'
