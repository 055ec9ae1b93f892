"""Random nested flows: what they leave is what jobflow's own ``run_locally`` leaves.

The short form runs with the suite. ``RECONCILER_TEST_FLOWS=<examples>`` makes it a campaign: that many
flows, other ones each time.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import random_flows
from hypothesis import HealthCheck, Phase, given, settings

from tests.execution.oracle import facts_of, ran_by_jobflow
from tests.execution.programs import IN_LINE, Program, programs
from tests.execution.support import World
from tests.support import isolate

CAMPAIGN = int(os.environ.get("RECONCILER_TEST_FLOWS", "0"))
"""Read before the fixture that clears the environment."""

pytestmark = pytest.mark.timeout(0 if CAMPAIGN else 600)

SETTINGS = settings(
    derandomize=not CAMPAIGN,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink) if CAMPAIGN else (Phase.generate,),
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)

numbers = itertools.count()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[World]:
    root = tmp_path_factory.mktemp("random")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root / "home")
        patch.setattr(sys, "executable", str(warm_python))
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp() / "matplotlib"))
        world = World(root)
        yield world
        world.close()


@given(program=programs())
@settings(SETTINGS, max_examples=CAMPAIGN or 16)
def test_random_flows_end_as_with_jobflow(program: Program, world: World) -> None:
    check(world, program)


@given(program=programs(IN_LINE, most=3))
@settings(SETTINGS, max_examples=CAMPAIGN or 8)
def test_random_flows_that_are_stopped_end_as_with_jobflow(program: Program, world: World) -> None:
    check(world, program)


def check(world: World, program: Program) -> None:
    name = f"random-{next(numbers)}"
    world.factory(name, "random_flows.build", program)
    world.reconcile()
    world.run()
    expected = ran_by_jobflow(random_flows.build(program), world.root / "oracle")
    found = facts_of(world, name)
    states = {job.key: job.state.value for job in world.view(lambda view: view.jobs_of(name))}
    differing = {"only here": found - expected, "only by jobflow": expected - found}
    if found != expected:
        pytest.fail("\n".join(map(str, [differing, states, program])))
