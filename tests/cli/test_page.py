"""The report of a campaign, in a real browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.store import Store
from reconciler.cli.page import report_facts
from reconciler.page.drawing import drawing
from reconciler.page.report import render
from tests.cli.world import World
from tests.page.browser import opened

pytestmark = pytest.mark.usefixtures("warm")

HOSTILE = "\"'><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class Seen(HTMLParser):
    """What a page shows: visible rows by their text, ids, and every value that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.hidden: list[str] = []
        self.opened: list[str | None] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: list[str] = []
        self.scripts = 0
        self._row: list[str] | None = None
        self._depth = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.ids.add(found["id"] or "")
        if "href" in found:
            self.links.add(found["href"] or "")
        self.loads += [f"{tag} {name}" for name in found if name in ("src", "srcset", "data", "action")]
        self.loads += [name for name in found if name.startswith("on")]
        self.scripts += tag == "script"
        self.loads += [tag] * (tag in ("link", "img", "iframe", "object", "embed", "base", "form"))
        if tag == "details" and "open" in found:
            self.opened.append(found.get("id"))
        if "data-row" in found:
            (self.hidden if "hidden" in found else self.rows).append("")
            self._row = self.hidden if "hidden" in found else self.rows

    def handle_data(self, data: str) -> None:
        if self._row is not None:
            self._row[-1] += data


@pytest.fixture
def facts(world: World) -> dict[str, Any]:
    store = Store(world.state, read_only=True)
    try:
        with store.read() as view:
            return report_facts(view, 100, 1e9)
    finally:
        store.close()


def test_the_command_writes_a_file_that_loads_nothing(world: World, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    done = world.run("page", str(target))
    assert re.search(r"report\.html: \d+ flows, \d+ kB", done.stderr)
    seen = Seen(opened(target))
    assert seen.loads == []
    assert all(link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    text = " ".join(seen.rows)
    for word in ("arithmetic", "failing", "Degraded", "reconcile retry failure:"):
        assert word in text
    assert seen.hidden == []


def test_the_filter_is_in_the_url(world: World, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    world.run("page", str(target))
    seen = Seen(opened(target, "#filter=arithmetic%20completed"))
    assert seen.rows and all("arithmetic" in row for row in seen.rows)
    assert any("failing" in row for row in seen.hidden)


def test_a_link_opens_its_flow(world: World, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    world.run("page", str(target))
    assert Seen(opened(target, "#flow-2")).opened == ["flow-2"]


def hostile(value: Any) -> Any:
    """Return facts in which every text is an attack."""
    if isinstance(value, dict):
        return {key: value[key] if key == "drawing" else hostile(value[key]) for key in value}
    if isinstance(value, list | tuple):
        return [hostile(one) for one in value]
    return HOSTILE if isinstance(value, str) else value


def test_every_text_is_shown_as_text(facts: dict[str, Any], tmp_path: Path) -> None:
    attack = hostile(facts)
    assert attack["failures"] and attack["history"] and attack["use"]
    node = {"id": "1", "name": HOSTILE, "function": HOSTILE, "state": HOSTILE}
    attack["flows"][0]["drawing"] = drawing({"flow": HOSTILE, "nodes": [node], "edges": []}, {})
    target = tmp_path / "report.html"
    target.write_text(render(attack))
    dom = opened(target)
    assert "<title>owned</title>" not in dom
    seen = Seen(dom)
    assert (seen.loads, seen.scripts) == ([], 1)
    assert dom.count("&lt;img") > 50


def test_the_policy_of_the_page_stops_what_would_slip_through(facts: dict[str, Any], tmp_path: Path) -> None:
    text = render(facts).replace("</main>", f"</main>{HOSTILE[3:]}")
    (tmp_path / "report.html").write_text(text)
    dom = opened(tmp_path / "report.html")
    assert "<script>document" in dom, "the attack is there"
    assert "<title>owned</title>" not in dom


def test_large_campaigns_are_cut_and_say_so(world: World, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    world.run("page", str(target), "--limit", "1")
    text = target.read_text()
    assert text.count("<details") == 1
    assert re.search(r"\d+ more: <code>reconcile get flows</code>", text)


def test_flows_that_need_attention_come_first(facts: dict[str, Any]) -> None:
    ranks = [flow["health"] for flow in facts["flows"]]
    assert ranks == sorted(ranks, key=["Degraded", "Progressing", "Suspended", "Healthy"].index)
    assert [row["what"] for row in facts["attention"]][:2] == ["source", f"flow {facts['flows'][0]['name']}"]


@pytest.mark.parametrize("name", ["no/such/folder/report.html", "."])
def test_a_file_that_cannot_be_written(world: World, tmp_path: Path, name: str) -> None:
    done = world.run("page", str(tmp_path / name))
    assert done.returncode not in (0, 70)
    assert "Traceback" not in done.stderr
