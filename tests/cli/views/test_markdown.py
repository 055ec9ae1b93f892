"""The plan as a comment on a pull request: order, escaping, length; and ``plan --base`` as run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.cli.main import cli
from reconciler.cli.views.data import plan_data
from reconciler.cli.views.markdown import MARKER, cell, code, plain, plan_markdown, table
from reconciler.cli.views.plan_text import cost_line, hours
from reconciler.desired.source.git import Source
from reconciler.diagnostics import Diagnostic, Location, Severity
from reconciler.errors import InputError
from reconciler.loop import Session
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Change
from reconciler.model.schedulers.requests import UNKNOWN, ResourceRequest
from reconciler.model.states import JobState
from reconciler.plan.cost import Cost, CostGroup
from tests.cli.test_json import validate
from tests.loop.worlds import Silent
from tests.support import Repository, minimal_project

PLACE = {"level": "rule", "kind": "OverrideRule", "name": "r", "file": "rules/r.yaml", "line": 7}


def action(action_type: ActionType, key: str, *changes: Change, reason: str = "why") -> Action:
    subject = Subject.JOB if "/" in key else Subject.FLOW
    return Action(
        type=action_type,
        subject=subject,
        key=key,
        reason=Reason(ReasonCode.WAITS, {"why": reason}),
        changes=changes,
    )


def plan(*actions: Action, **fields: object) -> Plan:
    given: dict[str, object] = {"revision": "feature@2222222", "base": "main@1111111"}
    return Plan(actions=actions, **(given | fields))  # type: ignore[arg-type]


def comment(*actions: Action, cost: Cost | None = None, **fields: object) -> str:
    return plan_markdown(plan(*actions, **fields), cost or Cost(), compared=True)


class Page(HTMLParser):
    """The headings, cells and text that a reader of the rendered comment sees."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag in ("h3", "h4", "summary"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data
        if {"h3", "h4", "summary"} & set(self._open):
            self.headings[-1] += data


class TestOrder:
    def test_what_needs_a_decision_comes_first(self) -> None:
        patch = Change("worker", "w1", "w2", PLACE)
        page = Page(
            comment(
                action(ActionType.PATCH, "f/a", patch),
                action(ActionType.CANCEL, "old"),
                action(ActionType.SUBMIT, "new/a"),
                action(ActionType.REPLACE, "f/b"),
                action(ActionType.KEEP, "held"),
                action(ActionType.DEFER, "f/c", patch),
                refusals=("too much",),
                diagnostics=(Diagnostic(code="a/b", message="wrong"),),
            )
        )
        assert page.headings == [
            "reconcile plan: main@1111111..feature@2222222",
            "Refused by a guard",
            "1 error",
            "Deferred until the job is editable: 1 job",
            "On hold, or not known yet: 1 flow",
            "Replaced: 1 job",
            "Submitted: 1 job",
            "Cancelled or forgotten: 1 flow",
            "Patched: 1 job",
        ]
        assert page.rows[-1] == ["f/a", "worker", "w1", "w2", "rule rules/r.yaml:7"]

    def test_a_bot_finds_its_comment(self) -> None:
        assert comment().splitlines()[0] == MARKER == "<!-- reconciler-plan -->"

    def test_nothing_to_do(self) -> None:
        page = Page(comment())
        assert "no changes" in page.text
        assert len(page.headings) == 1

    def test_errors_before_warnings_with_place_and_help(self) -> None:
        late = Location("z.yaml", 1, 1)
        found = (
            Diagnostic(
                code="a/soft", message="maybe", location=Location("a.yaml", 3, 1), severity=Severity.WARNING
            ),
            Diagnostic(code="a/hard", message="wrong", location=late, hint="do that"),
        )
        lines = [line for line in comment(diagnostics=found).splitlines() if line.startswith("- ")]
        assert lines == [
            "- **error** `z.yaml:1:1` wrong (help: do that) `a/hard`",
            "- **warning** `a.yaml:3:1` maybe `a/soft`",
        ]

    def test_a_plan_against_the_store_names_what_was_applied(self) -> None:
        text = plan_markdown(plan(), Cost())
        assert "### reconcile plan: `feature@2222222` (applied: `main@1111111`)" in text

    def test_notes(self) -> None:
        assert "lacks 2 commits" in Page(plan_markdown(plan(), Cost(), ["feature lacks 2 commits"])).text


class TestLength:
    def test_only_long_lists_are_folded(self) -> None:
        few = [action(ActionType.SUBMIT, f"f{number}/a") for number in range(5)]
        assert "details" not in Page(comment(*few)).tags
        many = [action(ActionType.SUBMIT, f"f{number}/a") for number in range(50)]
        page = Page(comment(*many))
        assert "details" in page.tags
        assert "Submitted: 50 jobs" in page.headings
        assert "f49/a" in page.text

    def test_similar_jobs_share_a_line(self) -> None:
        change = Change("priority", 0, 7, PLACE)
        many = [action(ActionType.PATCH, f"f/j{number}", change) for number in range(1000)]
        page = Page(comment(*many))
        assert page.rows[1:] == [["f/{j0, j1, j2 and 997 more}", "priority", "0", "7", "rule rules/r.yaml:7"]]
        assert "Patched: 1000 jobs" in page.headings

    @pytest.mark.parametrize("action_type", [ActionType.PATCH, ActionType.SUBMIT, ActionType.KEEP])
    def test_it_always_fits_into_a_comment(self, action_type: ActionType) -> None:
        long = "x" * 500
        actions = [
            action(
                action_type, f"f{number}/{long}", Change("resources", long, {"a": long}, PLACE), reason=long
            )
            for number in range(3000)
        ]
        wrong = tuple(
            Diagnostic(code="a/b", message=f"{number} {long}", location=Location("f.yaml", number, 1))
            for number in range(1, 3000)
        )
        text = comment(*actions, diagnostics=wrong)
        assert len(text) <= 60_000
        assert re.search(r"… and \d+ more; `-o json` shows all", text)


NASTY = [
    "a|b",
    "`a`",
    "``a` |`",
    "a\nb",
    "<script>alert(1)</script>",
    "<!-- -->",
    "</details>",
    "**bold** _x_ [link](http://x.invalid)",
    "\\|",
    "\\",
    "&amp;",
    "| --- |",
    "a\u202eb",
]


def seen(text: str) -> str:
    """What is to be seen of a text: one line of it, without what only breaks links."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+", " ", text).strip()
    return text if len(text) <= 300 else text[:299] + "…"


class TestEscaping:
    @pytest.mark.parametrize("text", NASTY)
    def test_in_a_cell(self, text: str) -> None:
        page = Page("\n".join(table(("one", "two"), [(cell(text), cell("x"))])))
        assert page.rows == [["one", "two"], [seen(text), "x"]]
        assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td", "code"}

    @pytest.mark.parametrize("text", NASTY)
    def test_in_a_line(self, text: str) -> None:
        page = Page(f"- {plain(text)} {code(text)}")
        assert page.text.replace("\u2060", "").split() == f"{seen(text)} {seen(text)}".split()
        assert page.tags <= {"ul", "li", "code"}

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
    def test_any_value(self, text: str) -> None:
        page = Page("\n".join(table(("one", "two"), [(cell(text), cell("x"))])))
        shown = page.rows[1]
        assert [part.split() for part in shown] == [seen(text).split(), ["x"]]
        line = Page(f"x {plain(text)}")
        assert line.text.replace("\u2060", "").split() == f"x {seen(text)}".replace("\u2060", "").split()
        assert line.tags <= {"p"}

    @pytest.mark.parametrize("text", ["@somebody", "#12", "!34", "see http://x.invalid", "www.x.invalid"])
    def test_no_person_is_mentioned_and_nothing_is_linked(self, text: str) -> None:
        assert text not in plain(text)
        assert plain(text).replace("\u2060", "").replace("\\", "") == text

    def test_names_of_a_plan(self) -> None:
        change = Change("exec|config", "a|b", {"x": "`<b>`"}, PLACE | {"file": "a|b.yaml"})
        page = Page(comment(action(ActionType.PATCH, "f/<img src=x>|", change), revision="f`<b>@1"))
        assert page.rows[1] == [
            "f/<img src=x>|", "exec|config", "a|b", '{"x": "`<b>`"}', "rule a|b.yaml:7",
        ]  # fmt: skip
        assert page.tags <= {"h3", "h4", "p", "strong", "code", "table", "thead", "tbody", "tr", "th", "td"}


class TestCost:
    KNOWN = CostGroup(worker="w|1", resources={"ntasks": 4}, jobs=3, request=ResourceRequest(4, 5400, 0))
    NOT = CostGroup(worker="sh", resources=None, jobs=2, request=UNKNOWN)

    def test_table(self) -> None:
        page = Page(comment(cost=Cost(groups=(self.KNOWN, self.NOT), patched=1, before=10.0, after=4.5)))
        assert page.rows == [
            ["worker", "resources", "jobs", "cores", "GPUs", "time limit", "core-h"],
            ["w|1", '{"ntasks": 4}', "3", "4", "0", "1:30:00", "18"],
            ["sh", "(none)", "2", "unknown", "unknown", "unknown", "unknown"],
        ]
        assert "at most 18 core-h for 3 jobs, unknown for 2 jobs, 10 -> 4.5 core-h (-5.5)" in page.text

    def test_an_unknown_cost_is_not_zero(self) -> None:
        assert "Cost: unknown for 2 jobs" in comment(cost=Cost(groups=(self.NOT,)))
        assert "ost" not in comment()

    def test_one_line(self) -> None:
        assert cost_line(Cost(groups=(self.NOT,))) is None
        gpus = CostGroup(worker="w", resources={}, jobs=1, request=ResourceRequest(1, 3600, 2))
        assert cost_line(Cost(groups=(gpus,))) == "cost: at most 1 core-h and 2 GPU-h for 1 job"
        patched = Cost(patched=2, before=1.0, after=1500.0, patched_unknown=1)
        assert cost_line(patched) == (
            "cost: 1 -> 1,500 core-h (+1,499) for 2 patched jobs, unknown for 1 patched job"
        )

    def test_json_is_as_the_schema_says(self) -> None:
        cost = Cost(groups=(self.KNOWN, self.NOT), patched=1, before=10.0, after=4.5, patched_unknown=2)
        data = json.loads(json.dumps(plan_data(plan(), cost)))
        assert [error.message for error in validate("plan", data)] == []
        assert (data["cost"]["core_hours"], data["cost"]["jobs"], data["cost"]["unknown_jobs"]) == (18, 3, 2)
        known, unknown = data["cost"]["groups"]
        assert (known["cores"], known["walltime"], known["core_hours"]) == (4, 5400, 18)
        assert (unknown["cores"], unknown["walltime"], unknown["core_hours"]) == (None, None, None)

    @pytest.mark.parametrize(
        ("value", "text"), [(0.0, "0"), (0.0123, "0.012"), (1.25, "1.2"), (12.0, "12"), (123456.7, "123,457")]
    )
    def test_hours(self, value: float, text: str) -> None:
        assert hours(value) == text


# as run ---------------------------------------------------------------------------------------------------

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: one}
    spec:
      jobs:
        - {id: value, function: reconciler.examples.value, args: [1]}
        - {id: add, function: reconciler.examples.add, args: [{$output: value}, 2]}
    """

RULE = """
    apiVersion: reconciler/v1
    kind: OverrideRule
    metadata: {name: hurry}
    spec:
      name_filter: add
      set: {priority: 9}
    """


@pytest.fixture
def branches(repository: Repository, tmp_path: Path) -> Repository:
    """A branch ``main``, and a branch ``feature`` (checked out) that adds a rule."""
    minimal_project(repository, tmp_path / "work")
    repository.write_yaml("flows/one.yaml", FLOW)
    repository.commit("main")
    repository.run("checkout", "--quiet", "-b", "feature")
    repository.write_yaml("rules/hurry.yaml", RULE)
    repository.commit("feature")
    return repository


def run(repository: Repository, *arguments: str) -> Result:
    """Run the program in this process."""
    return CliRunner().invoke(cli, ["--repo", str(repository.path), *arguments])


class TestAsRun:
    def test_without_a_state_and_without_creating_one(self, branches: Repository, tmp_path: Path) -> None:
        done = run(branches, "plan", "--base", "main", "-o", "markdown")
        assert done.exit_code == 0
        assert "1 job to patch" in done.stdout
        assert "| `one/add` | `priority` | `(none)` | `9` | rule `rules/hurry.yaml:6` |" in done.stdout
        assert not (tmp_path / "home" / "state").exists()

    def test_head_and_exit_code(self, branches: Repository) -> None:
        branches.run("checkout", "--quiet", "main")
        call = ["plan", "--base", "main", "--exit-code", "-o", "name"]
        assert run(branches, *call, "--head", "feature").stdout == "one/add\n"
        assert run(branches, *call, "--head", "feature").exit_code == 1
        assert run(branches, *call, "--head", "feature~1").exit_code == 0
        assert run(branches, *call, "--branch", "feature").exit_code == 1

    def test_names_in_text_and_json(self, branches: Repository) -> None:
        main, feature = branches.run("rev-parse", "main"), branches.head
        done = run(branches, "plan", "--base", main)
        assert f"commit@{main[:7]}..feature@{feature[:7]}: 1 job to patch\n" in done.stdout
        assert "apply it with" not in done.stderr
        data = json.loads(run(branches, "plan", "--base", "main", "-o", "json").stdout)
        assert (data["base"], data["revision"]) == (f"main@{main[:7]}", f"feature@{feature[:7]}")
        assert data["summary"]["Patch"] == 1

    def test_a_base_that_has_moved_gets_a_note(self, branches: Repository) -> None:
        branches.run("checkout", "--quiet", "main")
        branches.write_yaml("flows/two.yaml", FLOW.replace("one", "two"))
        branches.commit("main moves")
        done = run(branches, "plan", "--base", "main", "--head", "feature")
        assert "note: feature lacks 1 commit of main" in done.stderr
        assert "- flow two" in done.stdout

    def test_an_unknown_revision(self, branches: Repository) -> None:
        error = run(branches, "plan", "--base", "mian").exception
        assert isinstance(error, InputError)
        assert (error.message, error.hint) == ("there is no branch or commit 'mian'", "did you mean 'main'?")

    def test_a_base_without_a_project_is_empty(self, branches: Repository) -> None:
        branches.run("checkout", "--quiet", "--orphan", "empty")
        branches.run("rm", "-r", "--quiet", "--cached", ".")
        branches.run("commit", "--quiet", "--allow-empty", "-m", "empty")
        done = run(branches, "plan", "--base", "empty", "--head", "feature", "-o", "name")
        assert done.stdout.split() == ["one", "one/value", "one/add"]

    def test_errors_are_in_the_comment_and_in_the_exit_code(self, branches: Repository) -> None:
        branches.write_yaml("flows/two.yaml", FLOW.replace("one", "two").replace("value, args", "value, arg"))
        branches.commit()
        done = run(branches, "plan", "--base", "main", "-o", "markdown")
        assert done.exit_code == 2
        assert "- **error** `flows/two.yaml:6:" in done.stdout
        assert "`one/add`" in done.stdout

    def test_no_code_of_the_branch_runs(self, branches: Repository, tmp_path: Path) -> None:
        """Neither at import, nor as a factory."""
        project = (branches.path / "reconciler.yaml").read_text()
        branches.write("reconciler.yaml", project.replace("spec:\n", "spec:\n  python_path: [lib]\n", 1))
        marker = tmp_path / "ran"
        branches.write("lib/mine.py", f"open({str(marker)!r}, 'w').close()\ndef make(): raise SystemExit\n")
        branches.write_yaml(
            "flows/made.yaml",
            """
            apiVersion: reconciler/v1
            kind: Flow
            metadata: {name: made}
            spec: {factory: {function: mine.make}}
            """,
        )
        branches.commit()
        done = run(branches, "plan", "--base", "main", "-o", "markdown")
        assert "`made`" in done.stdout
        assert not marker.exists()

    @pytest.mark.usefixtures("warm")
    def test_against_a_state_where_a_job_runs(self, branches: Repository, state_dir: Path) -> None:
        """With real uuids and a real state, which the reading of a plan leaves as it is."""
        store = Store(state_dir)
        source = Source(branches.path / ".git", branches.path, "main", "")
        Session(source, store).reconcile(Silent())

        def start(writer: Writer) -> None:
            (job,) = [job for job in writer.jobs() if job.key == "add"]
            writer.put_job(msgspec.structs.replace(job, state=JobState.RUNNING))

        store.write(start)
        done = run(branches, "--state-dir", str(state_dir), "plan", "--base", "main", "-o", "markdown")
        assert "#### Deferred until the job is editable: 1 job" in done.stdout
        assert "| `one/add` | `priority` | `(none)` | `9` |" in done.stdout
        with store.read() as view:
            assert [job.config.priority for job in view.jobs()] == [None, None]
        store.close()

    def test_plain_plan_as_markdown(self, branches: Repository, state_dir: Path) -> None:
        done = run(branches, "--state-dir", str(state_dir), "plan", "-o", "markdown")
        assert done.exit_code == 0
        assert "**1 flow and 2 jobs to submit; 1 flow to be built first**" in done.stdout
        assert "Cost: unknown for 2 jobs" in done.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["plan", "--head", "feature"], "--head requires --base"),
            (["plan", "--base", "main", "--out", "plan.json"], "--out cannot be combined with --base"),
            (["plan", "--base", ""], "the revision to compare is empty"),
            (["get", "jobs", "-o", "markdown"], "-o markdown is for plans"),
        ],
    )
    def test_conflicting_options(self, branches: Repository, arguments: list[str], message: str) -> None:
        error = run(branches, *arguments).exception
        assert isinstance(error, InputError)
        assert error.message.startswith(message)
