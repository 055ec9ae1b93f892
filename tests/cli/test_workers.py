"""How workers are shown, with times as they count for somebody who waits."""

from __future__ import annotations

import pytest

from reconciler.cli.views.words import coming_text, past_text
from tests.cli.world import World

pytestmark = pytest.mark.usefixtures("warm")

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (40, "40 s"), (119, "119 s"), (240, "4 min"), (9000, "2 h"), (400_000, "5 d")],
)
def test_spans_have_one_fitting_unit(seconds: float, text: str) -> None:
    assert coming_text(NOW + seconds, NOW) == f"in {text}"
    assert past_text(NOW - seconds, NOW) == f"{text} ago"


def test_times_that_are_over_unknown_or_of_a_clock_that_was_set() -> None:
    assert coming_text(NOW - 1, NOW) == "due"
    assert coming_text(None, NOW) is None
    assert past_text(None, NOW) is None
    assert past_text(NOW + 5, NOW) == "0 s ago"


def test_a_table_without_an_outage_has_no_columns_for_it(world: World) -> None:
    header, *lines = world.run("get", "workers").stdout.splitlines()
    assert header.split()[-1] == "STATUS"
    assert [line.split()[-1] for line in lines] == ["Reachable", "Reachable"]


def test_describe_worker(world: World) -> None:
    text = world.run("describe", "worker", "w1").stdout
    assert "status:          Reachable" in text
    assert "scheduler type:  shell" in text
    assert "RUNNING=1" in text
    assert "next try" not in text
    facts = world.json("describe", "worker", "w1")
    assert facts["jobs"]["RUNNING"] == 1
    assert facts["host"] is None


def test_describe_of_no_worker_is_a_mistake(world: World) -> None:
    done = world.run("describe", "worker", "w3")
    assert done.returncode == 2
    assert done.stderr == "error: there is no worker 'w3'\n  help: known: w1, w2\n"
