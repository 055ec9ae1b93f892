"""A host whose clock is hours ahead or behind: no decision compares it with the clock of this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.model.retries import Cause
from tests.execution.hosts.conftest import MakeHost
from tests.execution.hosts.reaching import reach, said
from tests.execution.support import World, lines
from tests.services import processes
from tests.services.plugin import NewSshd
from tests.services.programs import program
from tests.services.sshd import Sshd

PYTHON = sys.executable
"""Not a warm one, which has the clock of this machine."""

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(params=["+2h", "-2h"])
def server(request: pytest.FixtureRequest, new_sshd: NewSshd, make_host: MakeHost) -> Sshd:
    """A server in whose sessions it is two hours later or earlier."""
    program("faketime")  # its command makes semaphores, which two tests at a time dispute
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    wrong = {"LD_PRELOAD": str(library), "FAKETIME": request.param}
    made = new_sshd(env=wrong)
    skew = int(said(make_host(reach(made)), "date +%s")) - time.time()
    assert abs(skew - (7200 if request.param == "+2h" else -7200)) < 120
    return made


def test_jobs_run_once_and_their_ends_are_seen(
    server: Sshd, make_world: Callable[..., World], tmp_path: Path
) -> None:
    """One job runs on through many looks, and one is killed and retried meanwhile."""
    world = make_world(defaults="worker: far")
    shared = server.login.home / f"clock-{tmp_path.parent.name}-{tmp_path.name}"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    log, open_gate = shared / "log", shared / "gate"
    fields = {"type": "remote", **server.worker_fields(), "work_dir": str(shared / "work"), "python": PYTHON}
    world.repository.write("workers/far.yaml", world.worker("far", **fields))
    for flow, retries in (("runs", 0), ("dies", 1)):
        policy = {"limit": retries, "backoff": "0s", "on": ["lost", "killed"]}
        job = {"id": "j", "function": "log_and_wait", "args": [str(log), flow, str(open_gate)]}
        world.flow(flow, job, retries=policy)
    world.reconcile()
    world.until(lambda: world.states("runs/j", "dies/j") == ["RUNNING"] * 2 and len(lines(log)) == 2)
    victim = Path(world.job("dies/j").attempt.run_dir or "")
    processes.kill_trees(lambda: processes.of_directory(victim))
    world.until(lambda: sorted(lines(log)) == ["dies", "dies", "runs"])
    assert world.job("dies/j").retry.causes == [Cause.LOST]
    until = time.monotonic() + 5
    world.until(lambda: time.monotonic() > until)
    assert world.states("runs/j", "dies/j") == ["RUNNING"] * 2
    open_gate.touch()
    world.run()
    assert world.states("runs/j", "dies/j") == ["COMPLETED"] * 2
    assert [world.job(path).attempt.number for path in ("runs/j", "dies/j")] == [1, 2]
    assert sorted(lines(log)) == ["dies", "dies", "runs"], "a job ran twice"
