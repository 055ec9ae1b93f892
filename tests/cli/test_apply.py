"""``plan --out`` and ``apply``: what was looked at is what is done, or nothing is."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.cli.main import cli
from reconciler.cli.saved_plan import SavedPlan, read
from reconciler.desired.source.git import Source
from reconciler.errors import InputError, ReconcilerError, RefusedError
from reconciler.loop import Session, reconcile_once
from reconciler.model.states import JobState
from tests.loop.worlds import Silent
from tests.support import Reconcile, Repository, minimal_project

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: NAME}
    spec:
      jobs:
        - {id: value, function: reconciler.examples.value, args: [1]}
    """


def add_flow(repository: Repository, name: str) -> None:
    repository.write_yaml(f"flows/{name}.yaml", FLOW.replace("NAME", name))


class Place:
    """A repository with one flow, and where its state and its plan are kept."""

    def __init__(self, repository: Repository, state: Path, plan: Path) -> None:
        self.repository = repository
        self.state = state
        self.plan = plan

    def run(self, *arguments: str) -> Result:
        """Run the program in this process."""
        place = ["--repo", str(self.repository.path), "--state-dir", str(self.state)]
        return CliRunner().invoke(cli, [*place, *arguments])

    def save(self, *arguments: str) -> SavedPlan:
        """Save a plan and return it as read."""
        done = self.run("plan", "--out", str(self.plan), *arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return read(self.plan)

    def apply(self, *arguments: str) -> Result:
        return self.run("apply", str(self.plan), *arguments)

    def refused(self, *arguments: str) -> ReconcilerError:
        """Apply, which must fail, and leave the flows and jobs of the store as they were."""
        before = self.changes()
        error = self.apply(*arguments).exception
        assert isinstance(error, ReconcilerError), error
        assert self.changes() == before
        return error

    def changes(self) -> int:
        store = Store(self.state)
        with store.read() as view:
            found = view.change_counter()
        store.close()
        return found

    def states(self) -> dict[str, JobState]:
        store = Store(self.state)
        with store.read() as view:
            found = {job.path: job.state for job in view.jobs()}
        store.close()
        return found

    def write(self, change: Callable[[Writer], None]) -> None:
        store = Store(self.state)
        store.write(change)
        store.close()


@pytest.fixture
def place(repository: Repository, state_dir: Path, tmp_path: Path) -> Place:
    minimal_project(repository, tmp_path / "work")
    add_flow(repository, "one")
    repository.commit()
    return Place(repository, state_dir, tmp_path / "plan.json")


class TestFile:
    def test_what_is_in_it(self, place: Place) -> None:
        saved = place.save()
        assert (saved.project, saved.branch, saved.commit) == ("minimal", "main", place.repository.head)
        assert (saved.lineage, saved.path, saved.changes) == (place.repository.head, "", 0)
        assert not saved.allow_prune
        assert saved.plan == json.loads(place.run("plan", "-o", "json").stdout)

    def test_only_its_owner_reads_it(self, place: Place) -> None:
        place.plan.write_text("an old one, readable by all")
        place.plan.chmod(0o644)
        place.save()
        assert stat.S_IMODE(place.plan.stat().st_mode) == 0o600
        assert [file.name for file in place.plan.parent.glob("*plan*")] == ["plan.json"], "no partial file"

    def test_prints_the_next_step(self, place: Place) -> None:
        assert (
            f"apply it with: reconcile apply {place.plan}"
            in place.run("plan", "--out", str(place.plan)).stderr
        )

    def test_where_nothing_can_be_written(self, place: Place, tmp_path: Path) -> None:
        for target in (tmp_path / "none" / "plan.json", tmp_path):
            error = place.run("plan", "--out", str(target)).exception
            assert isinstance(error, InputError)
            assert error.message.startswith(f"cannot write {target}: ")


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        data = json.loads(text)
        change(data)
        return json.dumps(data)

    return edit


class TestDamagedFiles:
    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda text: "", "is not a saved plan: "),
            (lambda text: "apiVersion: reconciler/v1", "is not a saved plan: "),
            (lambda text: text[: len(text) // 2], "is not a saved plan: "),
            (lambda text: "\x00" * 100, "is not a saved plan: "),
            (lambda text: json.dumps(json.loads(text)["plan"]), "is not a saved plan: "),
            (edited(lambda data: data.update(what="terraform")), "is not a saved plan, but 'terraform'"),
            (edited(lambda data: data.update(schema_version=2)), "in format 2; this is "),
            (edited(lambda data: data.pop("commit")), "is damaged: "),
            (edited(lambda data: data.update(changes="0")), "is damaged: "),
            (edited(lambda data: data.update(allow_prune=True)), "was changed after it was saved"),
            (edited(lambda data: data["plan"]["actions"].pop()), "was changed after it was saved"),
        ],
    )
    def test_damaged_files_are_input_errors(
        self, place: Place, damage: Callable[[str], str], message: str
    ) -> None:
        place.save()
        place.plan.write_text(damage(place.plan.read_text()))
        error = place.refused()
        assert isinstance(error, InputError)
        assert message in error.message
        if message == "is not a saved plan: ":
            new = "save one with `reconcile plan --out FILE`; to apply what is committed: reconcile --once"
        else:
            new = "save and review a new plan: reconcile plan --out FILE"
        assert error.hint == new

    def test_no_file(self, place: Place) -> None:
        for target in (place.plan, place.plan.parent):
            error = place.run("apply", str(target)).exception
            assert isinstance(error, InputError)
            assert error.message.startswith(f"cannot read {target}: ")

    def test_options(self, place: Place) -> None:
        place.save()
        assert "--timeout requires --wait" in str(place.refused("--timeout", "3"))
        error = place.refused("--branch", "other")
        assert (error.message, error.hint) == ("the plan is for branch main, not other", "omit --branch")


@pytest.mark.usefixtures("warm")
class TestApplied:
    def test_it_does_what_the_plan_says_once(self, place: Place, reconcile: Reconcile) -> None:
        place.save()
        done = place.apply("--wait")
        assert (done.exit_code, place.states()) == (0, {"one/value": JobState.COMPLETED})
        assert "1 flow and 1 job to submit" in done.stdout
        again = reconcile("--state-dir", str(place.state), "apply", str(place.plan))
        assert (again.returncode, again.stdout) == (4, "")
        assert "error: the plan is stale: the state in " in again.stderr
        assert "(change 0, now " in again.stderr
        assert "help: save and review a new plan: reconcile plan --out FILE" in again.stderr

    def test_nothing_to_do(self, place: Place) -> None:
        assert place.run("--once", "--wait").exit_code == 0
        saved = place.save()
        assert not any(saved.plan["summary"].values())
        for _ in range(2):
            done = place.apply()
            assert done.exit_code == 0
            assert f"main@{place.repository.head[:7]}: no changes\n" in done.stdout
        place.repository.write("README.md", "no manifest")
        place.repository.commit()
        place.save()
        done = place.apply("--wait")
        assert (done.exit_code, "no changes" in done.stdout) == (0, True)

    def test_what_is_wrong_waits_and_the_rest_is_done(self, place: Place) -> None:
        place.repository.write_yaml(
            "flows/two.yaml", FLOW.replace("NAME", "two").replace("jobs:", "worker: w9\n      jobs:")
        )
        place.repository.commit()
        assert place.run("plan", "--out", str(place.plan)).exit_code == 2
        assert place.apply().exit_code == 2
        assert list(place.states()) == ["one/value"]

    def test_guarded_plan_is_saved_only_with_allow_prune(self, place: Place) -> None:
        assert place.run("--once", "--wait").exit_code == 0
        place.repository.remove("flows/one.yaml")
        place.repository.commit()
        done = place.run("plan", "--out", str(place.plan))
        assert (done.exit_code, place.plan.exists()) == (4, False)
        assert "not saved: a guard refuses this plan; to save it anyway, add --allow-prune" in done.stderr
        assert place.save("--allow-prune").allow_prune
        assert place.apply().exit_code == 0

    def test_whatever_is_checked_out(self, place: Place) -> None:
        """A plan is for a branch, and for all of the repository."""
        place.save()
        place.repository.run("checkout", "--quiet", "-b", "other")
        add_flow(place.repository, "two")
        place.repository.commit()
        inside = ["--repo", str(place.repository.path / "flows"), "--state-dir", str(place.state)]
        done = CliRunner().invoke(cli, [*inside, "apply", str(place.plan)])
        assert (done.exit_code, list(place.states())) == (0, ["one/value"])


class TestStale:
    def test_the_branch_moved(self, place: Place) -> None:
        saved = place.save()
        place.repository.commit("more")
        error = place.refused()
        assert isinstance(error, RefusedError)
        assert error.message == (
            f"the plan is stale: it is for main@{saved.commit[:7]}, and main is now at "
            f"{place.repository.head[:7]}"
        )

    def test_the_branch_is_gone(self, place: Place) -> None:
        place.save()
        place.repository.run("branch", "--quiet", "-m", "main", "trunk")
        error = place.refused()
        assert isinstance(error, RefusedError)
        assert "there is no branch or commit 'main'" in error.message

    def test_a_detached_head_moved(self, place: Place) -> None:
        place.repository.commit("more")
        place.repository.run("checkout", "--quiet", "--detach")
        assert place.save().branch == "HEAD"
        place.repository.run("checkout", "--quiet", "HEAD~1")
        assert "the plan is stale: it is for HEAD@" in place.refused().message

    @pytest.mark.usefixtures("warm")
    def test_the_store_moved(self, place: Place) -> None:
        store = Store(place.state)
        Session(Source(place.repository.path / ".git", None, "main", ""), store).reconcile(Silent())
        store.close()
        add_flow(place.repository, "two")
        place.repository.commit()
        saved = place.save()

        def finish(writer: Writer) -> None:
            (job,) = writer.jobs()
            writer.put_job(msgspec.structs.replace(job, state=JobState.COMPLETED))

        place.write(finish)
        error = place.refused()
        assert isinstance(error, RefusedError)
        assert f"(change {saved.changes}, now {saved.changes + 1})" in error.message

    def test_it_would_be_another_plan(self, place: Place) -> None:
        """As after an upgrade that plans something else."""
        saved = place.save()
        plan = saved.plan | {"actions": saved.plan["actions"][:1]}
        other = msgspec.structs.replace(saved, plan=plan, tool="0.0.1").sealed()
        place.plan.write_bytes(msgspec.json.encode(other))
        error = place.refused()
        assert isinstance(error, RefusedError)
        assert error.message.startswith(
            "the plan is stale: a new plan differs from it; it was saved by reconciler 0.0.1"
        )

    def test_another_repository(self, place: Place, make_repository: Callable[[str], Repository]) -> None:
        saved = place.save()
        place.repository = make_repository("other")
        minimal_project(place.repository, place.state)
        place.repository.commit("another beginning")
        error = place.refused()
        assert isinstance(error, RefusedError)
        assert error.message == (
            f"the plan is for project 'minimal' (repository with root {saved.lineage[:7]}), "
            f"not for this repository (root {place.repository.head[:7]})"
        )

    def test_a_clone_is_the_same_repository(
        self, place: Place, make_repository: Callable[[str], Repository]
    ) -> None:
        saved = place.save()
        clone = make_repository("clone")
        clone.run("pull", "--quiet", str(place.repository.path), "main")
        place.repository = clone
        place.save()
        assert read(place.plan) == saved

    def test_lease_is_held(self, place: Place) -> None:
        place.save()
        with Lease(place.state) as lease:
            lease.acquire(time.time())
            assert "another reconcile is at work on this state" in place.refused().message


class TestCheckBeforePass:
    """What may move until the last moment is looked at when nobody else can move it any more."""

    def test_it_is_called_with_the_lease_before_anything_is_written(self, place: Place) -> None:
        place.state.mkdir()
        store = Store(place.state)
        session = Session(Source(place.repository.path / ".git", None, "main", ""), store)
        told: list[str] = []

        def check() -> None:
            with pytest.raises(RefusedError, match="another reconcile is at work"):
                Lease(place.state).acquire(time.time())
            with store.read() as view:
                assert (view.change_counter(), view.lineage(), view.config()) == (0, None, None)
            told.append("called")
            raise RefusedError("no")

        with pytest.raises(RefusedError, match="no"):
            reconcile_once(session, Silent(), check=check)
        with store.read() as view:
            assert (view.change_counter(), view.lineage(), list(view.flows())) == (0, None, [])
        with Lease(place.state) as lease:  # it was given back
            lease.acquire(time.time())
        store.close()
        assert told == ["called"]

    @pytest.mark.usefixtures("warm")
    def test_it_is_called_also_if_nothing_is_to_be_done(self, place: Place) -> None:
        place.state.mkdir()
        store = Store(place.state)
        session = Session(Source(place.repository.path / ".git", None, "main", ""), store)
        reconcile_once(session, Silent(), wait=30)

        def check() -> None:
            raise RefusedError("no")

        assert reconcile_once(session, Silent()).plan is None
        with pytest.raises(RefusedError, match="no"):
            reconcile_once(session, Silent(), check=check)
        store.close()
