"""``reconcile graph``: whatever a job is called, the drawing stays one; and what is drawn."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from reconciler.actual.store import Store
from reconciler.cli.main import cli
from reconciler.cli.views.graph_text import dot, dot_text, graph_data, mermaid, mermaid_text, state_group
from reconciler.errors import InputError, WorldError
from reconciler.model.graph import flow_graph
from reconciler.model.states import JobState
from tests.cli.members import member, put
from tests.cli.test_json import enums, validate

NASTY = [
    'with "quotes" and \'single\'', "[a](b){c}<d>", "two\nlines", "é 日本 Ω ½", "1. relax", "- item",
    "+ plus", "style x: y#abc;", "classDef a:b#c;", "end", '%%{init: {"theme":"dark"}}%%', "`t` **b**",
    "&amp; #35;", "back\\slash\\n", "<script>alert(1)</script>", "subgraph x\nend\n", '"`md`"', "\\N\\G",
    "$$x^2$$", "fa:fa-car", " ", "--> x", "j1 --> j2", "",
]  # fmt: skip

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=40)


def lines_of(text: str) -> list[str]:
    """Return what a reader should see: whatever kind of space it is, one like another."""
    return [re.sub(r"\s", " ", line) for line in "\n".join(text.splitlines()).split("\n")]


def mermaid_reads(label: str) -> list[str]:
    """Return the lines that Mermaid shows for a label: it knows breaks and numbers of characters."""
    text = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label.replace("<br/>", "\n"))
    return [re.sub(r"\s", " ", line) for line in text.split("\n")]


def dot_reads(quoted: str) -> list[str]:
    """Return the lines that Graphviz shows for a quoted string."""
    assert re.fullmatch(r'"([^"\\\n]|\\.)*"', quoted)
    text = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], quoted[1:-1])
    return [re.sub(r"\s", " ", line) for line in text.replace("&amp;", "&").split("\n")]


def shown(lines: list[str]) -> list[str]:
    """Without characters that have no width, and with one sign for what nobody can see."""
    return ["".join(c if c.isprintable() else "\ufffd" for c in line if c != "\u2060") for line in lines]


class TestNames:
    @pytest.mark.parametrize("name", NASTY)
    def test_hostile_names(self, name: str) -> None:
        assert shown(mermaid_reads(mermaid_text(name))) == shown(lines_of(name))
        assert shown(dot_reads(dot_text(name))) == shown(lines_of(name))

    @given(TEXTS)
    def test_any_value(self, name: str) -> None:
        assert shown(mermaid_reads(mermaid_text(name))) == shown(lines_of(name))
        assert shown(dot_reads(dot_text(name))) == shown(lines_of(name))

    @given(TEXTS)
    def test_labels_contain_no_mermaid_syntax(self, name: str) -> None:
        bare = re.sub(r"#\d+;|<br/>", "", mermaid_text(name))
        assert all(c.isalnum() or c in " _-./,()@=\u2060\ufffd" or not c.isascii() for c in bare)
        assert not re.search(r"(^|<br/>)\s*(\d+[.)]|[-+])\s", mermaid_text(name))

    def test_control_characters_do_not_reach_a_terminal(self) -> None:
        assert "\x1b" not in mermaid_text("\x1b[31mred") + dot_text("\x1b[31mred")

    @pytest.mark.parametrize("name", NASTY)
    def test_a_graph_has_one_line_per_job(self, name: str) -> None:
        graph = flow_graph("f", [member(name or "x"), member("next", name or "x")])
        assert len(mermaid(graph).splitlines()) == 1 + 2 + 1 + 2
        assert len(dot(graph).splitlines()) == 3 + 2 + 1 + 1


class TestDrawing:
    GRAPH = flow_graph(
        "f",
        [
            member("spread", "far"),
            member("add#2", by="spread", state=JobState.FAILED),
            member("sum", "spread", "add#2", state=JobState.WAITING),
            member("itself"),
            member("itself@2", by="itself", state=JobState.RUNNING),
            member("old", current=False, state=JobState.USER_STOPPED),
        ],
        [member("far", flow="other")],
        history=True,
    )

    def test_mermaid(self) -> None:
        assert mermaid(self.GRAPH).splitlines() == [
            "flowchart TD",
            '    j1(["other/far<br/>COMPLETED"])',
            '    j2["spread<br/>COMPLETED"]',
            '    j3["add#35;2<br/>FAILED"]',
            '    j4["sum<br/>WAITING"]',
            '    j5["itself<br/>COMPLETED"]',
            '    j6["itself@2<br/>RUNNING"]',
            '    j7["old<br/>USER_STOPPED"]',
            "    j1 --> j2",
            "    j2 -.-> j3",
            "    j2 --> j4",
            "    j3 --> j4",
            "    j5 ==> j6",
            "    classDef done fill:#d5f0d8,stroke:#2e7d32,color:#000",
            "    class j1,j2,j5 done",
            "    classDef failed fill:#f9d6d5,stroke:#c62828,color:#000",
            "    class j3 failed",
            "    classDef generated stroke-dasharray:5 4",
            "    class j3,j6 generated",
            "    classDef pending fill:#fafafa,stroke:#757575,color:#000",
            "    class j4 pending",
            "    classDef active fill:#d4e6fb,stroke:#1565c0,color:#000",
            "    class j6 active",
            "    classDef stopped fill:#e0e0e0,stroke:#616161,color:#000",
            "    class j7 stopped",
            "    classDef history opacity:0.5",
            "    class j7 history",
        ]

    def test_dot(self) -> None:
        lines = dot(self.GRAPH).splitlines()
        assert lines[0] == 'digraph "f" {'
        assert lines[3].startswith('    j1 [label="other/far\\nCOMPLETED", style="filled,rounded", ')
        assert lines[5].startswith(
            '    j3 [label="add#2\\nFAILED", style="filled,dashed", fillcolor="#f9d6d5"'
        )
        assert 'fontcolor="#9e9e9e"' in lines[9]
        assert lines[10:] == [
            *("    j1 -> j2;", "    j2 -> j3 [style=dashed];", "    j2 -> j4;", "    j3 -> j4;"),
            *("    j5 -> j6 [style=bold];", "}"),
        ]

    def test_every_state_has_a_colour(self) -> None:
        assert {state_group(state) for state in JobState} == {
            "done", "failed", "active", "paused", "stopped", "pending",
        }  # fmt: skip

    def test_data(self) -> None:
        data = json.loads(json.dumps(graph_data(self.GRAPH, "main@1234567")))
        errors = [error.message for error in validate("graph", data) if error.path[-1] != "uuid"]
        assert errors == []  # the uuids of this test are words
        assert {node["key"] for node in data["nodes"] if not node["current"]} == {"f/old"}
        ids = {node["id"] for node in data["nodes"]}
        assert all(edge["source"] in ids and edge["target"] in ids for edge in data["edges"])

    def test_schema_and_code_have_the_same_words(self) -> None:
        assert enums("graph", "state") == set(JobState)
        assert enums("graph", "kind") == {"data", "generated", "generation"}


@pytest.fixture
def state(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with a small flow ``f`` and one of 2,000 generated jobs."""
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(state_dir))
    state_dir.mkdir()
    store = Store(state_dir)
    big = [member("g", flow="big"), *(member(f"j{n}", "g", flow="big", by="g") for n in range(2000))]
    put(store, member("a"), member("b", "a"), member("old", current=False), *big)
    store.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["graph", *arguments])


@pytest.mark.usefixtures("state")
class TestAsRun:
    def test_mermaid_is_the_default(self) -> None:
        done = run("f")
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == run("f", "-o", "mermaid").stdout
        assert done.stdout.startswith('flowchart TD\n    j1["a<br/>COMPLETED"]\n')

    def test_history_only_with_all(self) -> None:
        assert run("f", "-o", "name").stdout.split() == ["f/a", "f/b"]
        assert run("f", "--all", "-o", "name").stdout.split() == ["f/a", "f/b", "f/old"]

    def test_two_thousand_jobs(self) -> None:
        data = json.loads(run("big", "-o", "json").stdout)
        assert (len(data["nodes"]), len(data["edges"])) == (2001, 4000)
        done = run("big")
        assert "2001 jobs and 4000 arrows exceed Mermaid's default limits" in done.stderr
        assert done.stdout.count("\n") > 6000

    def test_unknown_flow(self) -> None:
        error = run("bog").exception
        assert isinstance(error, InputError)
        assert (error.message, error.hint) == ("there is no flow 'bog'", "did you mean 'big'?")

    @pytest.mark.parametrize("form", ["mermaid", "dot", "png"])
    def test_drawings_are_for_graphs_only(self, form: str) -> None:
        error = CliRunner().invoke(cli, ["-o", form, "get", "flows"]).exception
        assert isinstance(error, InputError)
        assert error.message == f"-o {form} is for graphs"
        error = CliRunner().invoke(cli, ["-o", form, "--dry-run"]).exception
        assert isinstance(error, InputError)


@pytest.mark.usefixtures("state")
class TestPicture:
    """``dot`` as a program on the PATH; this one gives back what it was given."""

    @pytest.fixture
    def programs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A PATH with git and nothing else."""
        folder = tmp_path / "bin"
        folder.mkdir()
        git = shutil.which("git")
        assert git is not None
        (folder / "git").symlink_to(git)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    def install(self, folder: Path, script: str) -> None:
        program = folder / "dot"
        program.write_text(f"#!{shutil.which('sh', path=os.defpath)}\n{script}\n", encoding="utf-8")
        program.chmod(0o755)

    def test_the_picture_is_written_unchanged(self, programs: Path) -> None:
        self.install(programs, 'printf "\\211PNG\\r\\n\\032\\n$1"; while read -r line; do echo "$line"; done')
        done = run("f", "-o", "png")
        assert done.exit_code == 0
        assert done.stdout_bytes.startswith(b'\x89PNG\r\n\x1a\n-Tpngdigraph "f" {\n')
        assert b"\nj1 -> j2;\n" in done.stdout_bytes

    def test_without_graphviz(self, programs: Path) -> None:
        error = run("f", "-o", "png").exception
        assert isinstance(error, WorldError)
        assert error.exit_code == 3
        assert error.hint is not None and "install the package graphviz" in error.hint

    def test_dot_fails(self, programs: Path) -> None:
        self.install(programs, "echo 'Format: \"png\" not recognized' >&2; exit 1")
        error = run("f", "-o", "png").exception
        assert isinstance(error, WorldError)
        assert error.message == '`dot` failed: Format: "png" not recognized'
