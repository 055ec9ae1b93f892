"""``reconcile history``: which revisions were applied, who made them, and what each did to which flow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.cli.main import cli
from reconciler.cli.views.history_text import actions_text, of_flow, outcome_text, revision_data, text_row
from reconciler.desired.source.history import CommitInfo
from reconciler.diagnostics import Diagnostic
from reconciler.errors import InputError
from reconciler.jobs.bookkeeping import flow_actions, note_revision
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.applied import AppliedRevision, FlowActions
from reconciler.model.desired import Revision
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Event
from tests.cli.members import member, put
from tests.cli.test_json import validate
from tests.cli.world import World
from tests.support import AUTHOR

COMMIT = CommitInfo("c" * 40, (), AUTHOR, 5.0, "a subject")


def action(action_type: ActionType, key: str) -> Action:
    return Action(
        type=action_type,
        subject=Subject.JOB if "/" in key else Subject.FLOW,
        key=key,
        reason=Reason(ReasonCode.NEW_JOB),
    )


def plan(*actions: Action, **fields: Any) -> Plan:
    return Plan(revision="main@ccccccc", base=None, actions=actions, **fields)


NEW = plan(
    action(ActionType.SUBMIT, "one"), action(ActionType.SUBMIT, "one/a"), action(ActionType.SUBMIT, "one/b"),
    action(ActionType.PATCH, "two/a"), action(ActionType.DEFER, "two/b"), action(ActionType.KEEP, "held"),
)  # fmt: skip


def applied(commit: str, time: float, **flows: FlowActions) -> AppliedRevision:
    return AppliedRevision(
        time=time, branch="main", commit=commit * 40, path="", summary={"Submit": 9, "Patch": 0}, flows=flows
    )


class TestRecordedCommand:
    @pytest.fixture
    def store(self, state_dir: Path) -> Store:
        state_dir.mkdir()
        return Store(state_dir)

    def note(self, store: Store, commit: str, done: Plan, now: float, info: CommitInfo | None = None) -> None:
        revision = Revision("main", commit * 40, "", "t" * 40)
        store.write(lambda writer: note_revision(writer, revision, info, done, now))

    def test_what_it_did(self, store: Store) -> None:
        self.note(store, "c", NEW, 7.0, COMMIT)
        with store.read() as view:
            (found,) = view.revisions()
        assert (str(found), found.author, found.subject, found.errors) == (
            "main@ccccccc",
            AUTHOR,
            "a subject",
            0,
        )
        assert found.flows == {
            "one": FlowActions(action="Submit", jobs={"Submit": 2}),
            "two": FlowActions(jobs={"Patch": 1, "Defer": 1}),
        }

    def test_a_pass_that_changes_nothing_is_not_recorded(self, store: Store) -> None:
        bad = plan(diagnostics=(Diagnostic(code="a/b", message="broken"),))
        passes = [("a", NEW), ("a", plan()), ("b", plan()), ("b", plan()), ("b", bad), ("b", bad), ("b", NEW)]
        for now, (commit, done) in enumerate(passes):
            self.note(store, commit, done, float(now))
        with store.read() as view:
            assert [(found.commit[0], found.time) for found in view.revisions()] == [
                ("a", 0.0), ("b", 2.0), ("b", 4.0), ("b", 6.0),
            ]  # fmt: skip
            assert [found.errors for found in view.revisions()] == [0, 0, 1, 0]

    def test_renames(self) -> None:
        assert flow_actions(plan(renames={"old": "new"})) == {"new": FlowActions(was="old")}


class TestRows:
    def test_actions(self) -> None:
        done = applied(
            "a", 1.0, one=FlowActions(action="Submit", jobs={"Submit": 4}), two=FlowActions(jobs={"Patch": 1})
        )
        assert actions_text(done) == "1 flow and 4 jobs submitted, 1 job patched"
        assert actions_text(applied("a", 1.0)) == "no changes"
        assert actions_text(applied("a", 1.0, new=FlowActions(was="old"))) == "1 flow renamed"

    def test_every_action_type_has_a_word(self) -> None:
        for action_type in set(ActionType) - {ActionType.KEEP}:
            text = actions_text(applied("a", 1.0, one=FlowActions(jobs={str(action_type): 2})))
            assert text.startswith("2 jobs ") and text.islower()

    def test_a_revision_of_an_older_version_has_neither_author_nor_subject(self) -> None:
        row = text_row(applied("a", 1.0), "then")
        assert (row["author"], row["subject"], row["outcome"]) == (None, None, "applied")
        assert list(validate("history", [revision_data(applied("a", 1.0))])) == []

    def test_commit_given_as_branch_is_printed_once(self) -> None:
        done = AppliedRevision(time=1.0, branch="a" * 12, commit="a" * 40, path="", summary={})
        assert text_row(done, "then")["revision"] == "commit@aaaaaaa"

    def test_partial(self) -> None:
        done = AppliedRevision(time=1.0, branch="m", commit="a" * 40, path="", summary={}, errors=2)
        assert outcome_text(done) == "partial: 2 errors"
        assert revision_data(done)["outcome"] == "Partial"


class TestHistoryOfFlow:
    REVISIONS = (
        applied(
            "1", 1.0, old=FlowActions(action="Submit", jobs={"Submit": 2}), x=FlowActions(action="Submit")
        ),
        applied("2", 2.0, x=FlowActions(jobs={"Patch": 1})),
        applied("3", 3.0, new=FlowActions(was="old")),
        applied("4", 4.0, new=FlowActions(jobs={"Patch": 1}), old=FlowActions(action="Submit")),
    )

    def test_follows_renames_and_leaves_out_other_flows(self) -> None:
        found = of_flow(self.REVISIONS, "new")
        assert [(name, done.commit[0], list(done.flows)) for name, done in found] == [
            ("old", "1", ["old"]), ("new", "3", ["new"]), ("new", "4", ["new"]),
        ]  # fmt: skip
        assert [done.summary for _, done in found] == [
            {"Submit": 3, "Patch": 0}, {"Submit": 0, "Patch": 0}, {"Submit": 0, "Patch": 1},
        ]  # fmt: skip

    def test_another_flow_of_the_old_name_later(self) -> None:
        assert [(n, done.commit[0]) for n, done in of_flow(self.REVISIONS, "old")] == [
            ("old", "1"),
            ("old", "4"),
        ]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["history", *arguments])

    @pytest.fixture
    def many(self, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A flow of which one revision patched 500 jobs, in twelve ways."""
        monkeypatch.setenv("RECONCILER_STATE_DIR", str(state_dir))
        state_dir.mkdir()
        store = Store(state_dir)
        put(store, *(member(f"j{number}") for number in range(500)), member("j0", uuid="x", current=False))
        done = applied("a", 9.0, f=FlowActions(jobs={"Patch": 500}))
        store.write(lambda writer: writer.add_revision(done))

        def note(number: int) -> Event:
            return Event(
                time=9.0,
                type="Patched",
                about=f"job/f/j{number}",
                message=f"way {number % 12}",
                revision=str(done),
            )

        def write(writer: Writer) -> None:
            for number in range(500):
                writer.add_event(note(number))

        store.write(write)
        store.close()

    def test_similar_jobs_share_a_line(self, many: None) -> None:
        lines = self.run("f").stdout.splitlines()
        assert lines[2] == "      Patched    job  f/{j0, j12, j24 and 39 more}  (way 0)"
        assert lines[-1] == "      and 2 more (-v shows all)"
        assert len(self.run("f", "-v").stdout.splitlines()) == 2 + 500

    def test_unknown_flow(self, many: None) -> None:
        error = self.run("g").exception
        assert isinstance(error, InputError)
        assert error.message == "no applied revision has a flow 'g'"


@pytest.mark.usefixtures("warm")
class TestAsRun:
    def test_all(self, world: World) -> None:
        rows = world.json("history")
        assert [(row["subject"], row["outcome"], row["errors"]) for row in rows] == [
            ("three flows", "Applied", 0),
            ("a long job", "Applied", 0),
            ("a rule, and a mistake", "Partial", 1),
        ]
        assert {row["author"] for row in rows} == {AUTHOR}
        commits = world.repository.run("rev-list", "--reverse", "HEAD").split()
        assert [row["commit"] for row in rows] == commits
        assert rows[2]["flows"] == {
            "pair-1": {"action": "Submit", "jobs": {"Submit": 1}, "was": None},
            "slow": {"action": None, "jobs": {"Defer": 1}, "was": None},
        }
        assert list(rows[0]["flows"]) == ["arithmetic", "failing", "generating"]
        assert world.run("history", "-o", "name", "--limit", "1").stdout.split() == commits[-1:]

    def test_table(self, world: World) -> None:
        header, first, *_, last = world.run("history").stdout.splitlines()
        assert header.split() == ["TIME", "REVISION", "AUTHOR", "ACTIONS", "OUTCOME", "SUBJECT"]
        assert re.search(r"Ada Tester  3 flows and 9 jobs submitted +applied", first)
        assert "1 job deferred" in last and "partial: 1 error" in last

    def test_one_flow(self, world: World) -> None:
        submitted, how, flow, job, deferred, what, *rest = world.run("history", "slow").stdout.splitlines()
        assert submitted.endswith("  a long job  (Ada Tester <ada@example.invalid>)")
        assert how == "    1 flow and 1 job submitted"
        assert (flow, job) == (
            "      Submitted  flow slow  (new flow)", "      Submitted  job  slow/nap  (new flow)",
        )  # fmt: skip
        assert "a rule, and a mistake" in deferred
        assert what == "    1 job deferred; partial: 1 error"
        assert rest[0].startswith("      Deferred   job  slow/nap  (")
        priority = "          priority: (none) -> 9   # rule hurry, rules/hurry.yaml:6"
        assert any(line.startswith(priority) for line in rest)

    def test_a_flow_that_was_never_submitted_has_none(self, world: World) -> None:
        done = world.run("history", "held")
        assert (done.returncode, "no applied revision has a flow 'held'" in done.stderr) == (2, True)
