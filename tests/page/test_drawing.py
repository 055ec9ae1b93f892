"""Drawings of graphs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from reconciler.page.drawing import MOST_BOXES, boxes_of, drawing, layers_of


def graph(nodes: Sequence[str], edges: Sequence[tuple[str, str]] = (), **fields: Any) -> dict[str, Any]:
    return {
        "flow": "f",
        "nodes": [
            {"id": one, "name": one, "function": f"m.{one}", "state": "COMPLETED"} | fields for one in nodes
        ],
        "edges": [{"source": source, "target": target, "kind": "data"} for source, target in edges],
    }


@pytest.mark.parametrize(
    ("ids", "edges", "layers"),
    [
        ("abc", [], [["a", "b", "c"]]),
        ("abc", [("a", "c"), ("b", "c")], [["a", "b"], ["c"]]),
        ("cba", [("a", "b"), ("b", "c"), ("a", "c")], [["a"], ["b"], ["c"]]),
        ("abc", [("b", "c"), ("c", "b"), ("a", "b")], [["a"], ["b", "c"]]),  # a cycle
        ("ab", [("a", "a"), ("x", "b"), ("b", "y")], [["a", "b"]]),  # itself, and jobs that are not shown
    ],
)
def test_each_layer_comes_after_what_it_needs(
    ids: str, edges: list[tuple[str, str]], layers: list[list[str]]
) -> None:
    assert layers_of(list(ids), edges) == layers


def test_many_like_jobs_share_a_box() -> None:
    nodes = {str(n): {"name": f"s{n}", "function": "m.strain", "state": "COMPLETED"} for n in range(30)}
    nodes["29"]["state"] = "FAILED"
    boxes = boxes_of(list(nodes), nodes)
    assert [(box.name, box.state, box.count) for box in boxes] == [
        ("strain", "COMPLETED", 29),
        ("s29", "FAILED", 1),
    ]


def test_an_arrow_for_each_edge_and_one_for_those_of_a_shared_box() -> None:
    many = [f"s{n}" for n in range(10)]
    svg = drawing(
        graph(["start", *many], [("start", one) for one in many], function="m.f"), {"COMPLETED": "done"}
    )
    assert svg is not None
    assert len(re.findall("<path", svg)) == 1
    assert len(re.findall("<rect", svg)) == 2
    assert "10 x f" in svg
    assert svg.count('class="done"') == 2


def test_a_graph_that_nobody_could_read_is_left_out() -> None:
    assert drawing(graph([f"n{n}" for n in range(MOST_BOXES + 1)]), {}) is None
    assert drawing(graph([]), {}) is None


def test_names_are_escaped_and_cut() -> None:
    svg = drawing(graph(["<b>&\"'"]) | {"flow": '"><script>'}, {}) or ""
    assert "<b>" not in svg and "<script>" not in svg
    assert "&lt;b&gt;&amp;" in svg
    long = drawing(graph(["x" * 100]), {}) or ""
    assert f">{'x' * 20}…<" in long
