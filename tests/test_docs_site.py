"""The documentation as a site: complete, and without a warning."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.main import COMMANDS
from reconciler.model.manifests import Kind
from tests.support import ROOT


def build(site: Path, *, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(site)],
        cwd=root,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    done = build(place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return place


def text_of(page: Path) -> str:
    article = page.read_text().partition("<article")[2].partition("</article>")[0]
    return html.unescape(re.sub(r"<[^>]+>", "", article))


def test_every_command_is_on_the_page_of_commands(site: Path) -> None:
    page = text_of(site / "reference" / "commands.html")
    assert [name for name in COMMANDS if f"reconcile {name}" not in page] == []
    assert "local|SCHEDULER:[USER@]HOST" in page
    assert "reconcile get jobs" in page
    assert "--repo PATH|URL" in page


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (Kind.PROJECT, "spec.notify[].digest"),
        (Kind.WORKER, "spec.poll_interval.shortest"),
        (Kind.FLOW, "spec.jobs[].function"),
        (Kind.FLOW_SET, "spec.limits.max_items"),
        (Kind.MAKER, "spec.class"),
        (Kind.EXEC_CONFIG, "spec.export"),
        (Kind.OVERRIDE_RULE, "spec.set.priority"),
    ],
)
def test_every_kind_has_a_page_with_its_fields(site: Path, kind: Kind, field: str) -> None:
    assert field in text_of(site / "reference" / "manifests" / f"{kind.lower()}.html")


def test_every_page_of_the_documentation_is_on_the_site(site: Path) -> None:
    pages = [file.relative_to(ROOT / "docs") for file in (ROOT / "docs").rglob("*.md")]
    names = [
        page.with_name("index.html") if page.name == "README.md" else page.with_suffix(".html")
        for page in pages
    ]
    assert [str(name) for name in names if not (site / name).is_file()] == []


def test_links_to_files_of_the_repository_lead_somewhere(site: Path) -> None:
    """mkdocs checks links between pages; this checks those that the site changes."""
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for target in re.findall(r'href="([^":#?]+)["#?]', page.read_text()):
            assert (page.parent / html.unescape(target)).exists(), f"{page.relative_to(site)}: {target}"


def test_a_page_loads_no_script_from_another_host(site: Path) -> None:
    found = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css)[^"]*)"', (site / "index.html").read_text())
    assert found == []
