"""Jobs that move between the plan of a revision and its write: the next plan finds what is left to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.loop import Applied, Session
from reconciler.model.actions import Plan
from tests.execution.support import Listener, World


class Busy(Listener):
    """Lets something happen when a plan is made and not written yet."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    def planned(self, plan: Plan) -> None:
        """Take a plan."""
        self.meanwhile()


def reconcile(world: World, meanwhile: Callable[[], None]) -> Applied:
    """Commit, plan, do something meanwhile, and apply."""
    world.repository.commit()
    session = Session(world.source, world.store, hosts=world.hosts)
    return session.reconcile(Busy(meanwhile))


def test_children_that_are_born_meanwhile_follow_the_new_rule(tmp_path: Path, warm: None) -> None:
    world = World(tmp_path)
    world.factory("flow", "inherit_flows.family", "old", "addition")
    world.reconcile()
    world.put("OverrideRule", "urgent", {"name_filter": "child", "dynamic": True, "set": {"priority": 7}})
    applied = reconcile(world, world.run)
    assert applied.overtaken
    child = world.job("flow/child")
    assert child.config.priority_value == 0, "it was born by the old rules"
    again = reconcile(world, lambda: None)
    assert not again.overtaken
    assert [action.key for action in again.plan.effective] == ["flow/child"]
    assert world.job("flow/child").config.priority_value == 7
    world.close()


def test_children_of_a_job_that_is_replaced_meanwhile_leave_with_it(tmp_path: Path, warm: None) -> None:
    world = World(tmp_path)
    world.factory("flow", "inherit_flows.family", "old", "addition")
    world.reconcile()
    world.factory("flow", "inherit_flows.family", "new", "addition")
    applied = reconcile(world, world.run)
    assert applied.overtaken
    first = world.job("flow/child")
    reconcile(world, lambda: None)
    left = world.view(lambda view: view.job(first.id))
    assert not left.current
    world.run()
    assert [job.key for job in world.jobs().values() if job.current] == ["generator", "child"]
    world.close()


def test_a_quiet_pass_is_not_overtaken(tmp_path: Path, warm: None) -> None:
    world = World(tmp_path)
    world.flow("flow", {"id": "j", "function": "log_line", "args": ["/dev/null", "x"]})
    applied = reconcile(world, lambda: None)
    assert not applied.overtaken
    world.close()
