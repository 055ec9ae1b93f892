"""Random nested flows: what they leave is what jobflow's own ``run_locally`` leaves.

The short form runs with the suite: always the same flows, all at once. ``RECONCILER_TEST_FLOWS=<examples>``
makes it a campaign: that many flows of each style, other ones each time, and one that fails is made smaller.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
import random_flows
from hypothesis import HealthCheck, Phase, given, settings

from tests.execution.support import World
from tests.jobs.oracle import facts_of, ran_by_jobflow
from tests.jobs.programs import FREE, IN_LINE, Program, Style, programs

CAMPAIGN = int(os.environ.get("RECONCILER_TEST_FLOWS", "0"))
"""Read before the fixture that clears the environment."""

pytestmark = pytest.mark.timeout(0 if CAMPAIGN else 600)


@pytest.mark.parametrize(
    ("style", "short"), [pytest.param(FREE, 24, id="free"), pytest.param(IN_LINE, 12, id="in-line")]
)
@pytest.mark.usefixtures("warm")
def test_random_flows_end_as_with_jobflow(style: Style, short: int, make_world: Callable[..., World]) -> None:
    world, numbers = make_world(), itertools.count()
    world.repository.write("workers/workers.yaml", world.worker("w1", max_jobs=8))

    def check(drawn: list[Program]) -> None:
        flows = {f"random-{next(numbers)}": program for program in drawn}
        for name, program in flows.items():
            world.factory(name, "random_flows.build", program)
        world.reconcile()
        world.run()
        differing = [text for name, program in flows.items() if (text := difference(world, name, program))]
        assert not differing, "\n\n".join(differing)

    each = settings(
        max_examples=CAMPAIGN or short,
        derandomize=not CAMPAIGN,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if CAMPAIGN else (Phase.generate,),
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    if CAMPAIGN:
        each(given(programs(style))(lambda program: check([program])))()
        return
    drawn: list[Program] = []
    each(given(programs(style))(lambda program: drawn.append(program)))()
    check(drawn)
    assert len(drawn) >= short - 2
    assert any("@" in path for path in world.jobs()), "something was replaced"


def difference(world: World, flow: str, program: Program) -> str:
    """Return how a flow ended differently than with jobflow alone, with its program; empty if it did not."""
    expected = ran_by_jobflow(random_flows.build(program), world.root / "oracle")
    found = facts_of(world, flow)
    if found == expected:
        return ""
    states = {job.key: job.state.value for job in world.view(lambda view: view.jobs_of(flow))}
    told = {"only here": found - expected, "only by jobflow": expected - found, "states": states}
    return "\n".join(f"{what}: {value}" for what, value in (told | {"program": program}).items())
