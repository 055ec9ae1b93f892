"""What a build imports counts for its flow, although no text shows it; other edits build nothing again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from reconciler.build.missing import KeptBuilds
from reconciler.cli.main import cli
from tests.support import Repository, minimal_project

pytestmark = pytest.mark.usefixtures("warm")

HEAD = """
import importlib, pkgutil, sys
from pathlib import Path
from jobflow import Flow, job

@job
def give(x):
    return x

def scan(*names):
"""

IMPORTS = {
    "a word of the manifest": ("flavour = importlib.import_module(names[0])", "[vanilla]"),
    "a text put together": ("flavour = __import__('van' + 'illa')", "[]"),
    "a data file": (
        "flavour = importlib.import_module((Path(__file__).parent / 'names.txt').read_text().strip())",
        "[]",
    ),
    "a path": (
        "from importlib import util\n"
        "    (file,) = [f for p in sys.path for f in Path(p).glob('v*illa.py')]\n"
        "    spec = util.spec_from_file_location('any', file)\n"
        "    sys.modules['any'] = flavour = util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(flavour)",
        "[]",
    ),
    "a module that it imports": ("import chooser; flavour = chooser.flavour()", "[]"),
}

FLOWS = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {{name: scan}}
    spec: {{suspend: true, factory: {{function: made.scan, args: {arguments}}}}}
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {{name: plain}}
    spec: {{suspend: true, jobs: [{{id: one, function: reconciler.examples.value, args: [1]}}]}}
    """


class Campaign:
    """A repository with three directories of code, and a state for it."""

    def __init__(self, repository: Repository, tmp_path: Path) -> None:
        self.repository = repository
        self.tmp_path = tmp_path
        minimal_project(repository, tmp_path / "work")
        project = (repository.path / "reconciler.yaml").read_text()
        more = "spec:\n  python_path: [lib, tools, other]\n  on_code_change: recompute"
        repository.write("reconciler.yaml", project.replace("spec:", more, 1))
        repository.write("lib/names.txt", "vanilla\n")
        repository.write("tools/vanilla.py", "SUGAR = 1\n")
        repository.write("other/chooser.py", "def flavour():\n    return __import__('van' + 'illa')\n")
        repository.write("other/unused.py", "x = 1\n")

    def flow(self, body: str, arguments: str = "[]") -> None:
        self.repository.write("lib/made.py", f"{HEAD}    {body}\n    return Flow([give(1)])\n")
        self.repository.write_yaml("flows/scan.yaml", FLOWS.format(arguments=arguments))

    def run(self, *arguments: str, state: str = "state") -> list[str]:
        """Commit and reconcile; return the flows that were built."""
        self.repository.commit()
        told = CliRunner().invoke(cli, self._options(*(arguments or ("--once",)), state=state))
        assert told.exit_code == 0, told.output
        return re.findall(r"building (\w+)", told.stderr)

    def uuids(self, state: str = "state") -> dict[str, str]:
        listed = CliRunner().invoke(cli, self._options("get", "jobs", "-o", "json", state=state))
        return {job["key"]: job["uuid"] for job in json.loads(listed.stdout)}

    def _options(self, *arguments: str, state: str) -> list[str]:
        return ["--repo", str(self.repository.path), "--state-dir", str(self.tmp_path / state), *arguments]


@pytest.fixture
def campaign(repository: Repository, tmp_path: Path) -> Campaign:
    return Campaign(repository, tmp_path)


@pytest.mark.parametrize(("body", "arguments"), IMPORTS.values(), ids=IMPORTS)
def test_an_edit_of_what_was_imported_counts(campaign: Campaign, body: str, arguments: str) -> None:
    campaign.flow(body, arguments)
    assert set(campaign.run()) == {"scan", "plain"}
    before = campaign.uuids()
    campaign.repository.write("flows/note.txt", "nothing")
    campaign.repository.write(
        "reconciler.yaml", (campaign.repository.path / "reconciler.yaml").read_text() + "\n"
    )
    assert campaign.run() == []
    if "chooser" not in body:
        campaign.repository.write("other/unused.py", "x = 2\n")
        assert campaign.run() == [], "nothing imports it"
    assert campaign.uuids() == before
    campaign.repository.write("tools/vanilla.py", "SUGAR = 2\n")
    assert set(campaign.run()) == {"scan"}
    after = campaign.uuids()
    assert after["scan/give"] != before["scan/give"]
    assert after["plain/one"] == before["plain/one"]
    assert campaign.run() == []
    campaign.run(state="another")
    assert campaign.uuids("another") == after, "a new state comes to the same identities"


def test_what_is_not_imported_any_more_does_not_count(campaign: Campaign) -> None:
    campaign.flow(IMPORTS["a text put together"][0])
    campaign.run()
    campaign.flow("pass")
    assert set(campaign.run()) == {"scan"}
    before = campaign.uuids()
    campaign.repository.write("tools/vanilla.py", "SUGAR = 2\n")
    assert campaign.run() == []
    assert campaign.uuids() == before


def test_killed_after_the_note_and_before_the_build(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.flow(IMPORTS["a text put together"][0])

    def die(self: KeptBuilds, build: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(KeptBuilds, "add", die)
        campaign.repository.commit()
        CliRunner().invoke(cli, campaign._options("--once", state="state"))
    assert set(campaign.run()) == {"scan", "plain"}
    campaign.run(state="another")
    assert campaign.uuids() == campaign.uuids("another")


def test_code_that_imports_something_else_each_time_comes_to_an_end(campaign: Campaign) -> None:
    mark = campaign.tmp_path / "mark"
    campaign.flow(
        f"mark = Path({str(mark)!r})\n    there = mark.exists()\n"
        "    mark.unlink() if there else mark.touch()\n"
        "    __import__('van' + 'illa') if there else __import__('unus' + 'ed')"
    )
    assert campaign.run().count("scan") <= 4
    assert campaign.run() == []


def test_a_dry_build_shows_the_identities_of_the_real_one(campaign: Campaign) -> None:
    campaign.flow(IMPORTS["a text put together"][0])
    campaign.run()
    campaign.repository.write("tools/vanilla.py", "SUGAR = 2\n")
    assert set(campaign.run("plan", "--build")) == {"scan"}
    told = CliRunner().invoke(cli, campaign._options("plan", "--build", "-o", "json", state="none"))
    assert json.loads(told.stdout)["build"] == {"flows": 2, "built": 2, "failed": [], "blocked": []}
