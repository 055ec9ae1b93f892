"""The policy of automatic retries: which deaths, when, and with how much more."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.model.retries import (
    LONGEST_WAIT,
    Cause,
    Retries,
    factor_of,
    multiplied,
    policy_of,
    seconds_of,
)
from reconciler.model.settings import Resources


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [
        (4, 2, 8),
        (3, 1.5, 5),
        (0, 2, 0),
        (1.5, 2, 3),
        ("4", 1.5, "6"),
        ("30", 2, "60"),
        ("00:10:00", 2, "00:20:00"),
        ("23:30:00", 2, "47:00:00"),
        ("1-00:00:00", 1.5, "1-12:00:00"),
        ("1-12", 2, "3-00:00:00"),
        ("1-06:30", 2, "2-13:00:00"),
        ("45:30", 2, "91:00"),
        ("4G", 2, "8G"),
        ("3G", 1.5, "4608M"),
        ("1.5gb", 2, "3gb"),
        ("100M", 1.1, "110M"),
        ("1K", 1.5, "2K"),
        ("1T", 1.25, "1280G"),
    ],
)
def test_values_are_multiplied_and_rounded_up(value: Any, factor: float, expected: Any) -> None:
    assert multiplied(value, factor) == expected


@pytest.mark.parametrize("value", ["1:ncpus=4:mem=8gb", "smp", "", True, "4 G", "10:00:00:00", None, "-1"])
def test_what_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be multiplied"):
        multiplied(value, 2)


def test_factors_and_durations() -> None:
    assert [factor_of(text) for text in ("*2", "* 1.5", "*0.5")] == [2.0, 1.5, 0.5]
    assert [seconds_of(text) for text in ("30s", "5m", "2h", "7d", "1w")] == [30, 300, 7200, 604800, 604800]
    for text in ("2", "+2", "*", "*-1", "*2x", "*0", "*0.0", "*10000"):
        with pytest.raises(ValueError, match="is not a factor"):
            factor_of(text)
    for text in ("30", "1.5h", "", "s", "5 m", "9" * 400 + "s"):
        with pytest.raises(ValueError, match="is not a duration"):
            seconds_of(text)


def test_a_policy_wants_what_it_names_as_often_as_it_says() -> None:
    policy = Retries(limit=2, on=(Cause.WALLTIME, Cause.LOST))
    assert [policy.wants("walltime", made) for made in range(3)] == [True, True, False]
    assert not policy.wants("exception", 0)
    assert not policy.wants(None, 0)
    assert not Retries(limit=0).wants("walltime", 0)


def test_by_default_an_exception_is_not_tried_again() -> None:
    wanted = {cause for cause in Cause if Retries(limit=1).wants(cause, 0)}
    assert wanted == {Cause.WALLTIME, Cause.OOM, Cause.NODE_FAIL, Cause.PREEMPTED, Cause.LOST}


def test_the_wait_doubles_up_to_an_hour() -> None:
    policy = Retries(limit=99, backoff="30s")
    assert [policy.wait(made) for made in range(4)] == [30, 60, 120, 240]
    assert policy.wait(50) == LONGEST_WAIT
    assert Retries(limit=1, backoff="0s").wait(3) == 0


def test_escalation_multiplies_each_time_what_is_there() -> None:
    policy = Retries(limit=3, escalate={"resources": {"time": "*2", "mem": "*1.5"}})
    asked = Resources({"time": "01:00:00", "ntasks": 4})
    assert policy.escalated(asked, 0) == asked
    assert policy.escalated(asked, 1) == Resources({"time": "02:00:00", "ntasks": 4})
    assert policy.escalated(asked, 3) == Resources({"time": "08:00:00", "ntasks": 4})
    assert policy.escalated(None, 2) is None
    assert policy.escalated(Resources({"time_limit": 60}, generic=True), 2) == Resources(
        {"time_limit": 60}, True
    )


def test_generic_resources_have_factors_of_their_own() -> None:
    policy = Retries(
        limit=1, escalate={"qresources": {"time_limit": "*2"}, "resources": {"time_limit": "*9"}}
    )
    asked = Resources({"time_limit": 3600, "processes": 4}, generic=True)
    assert policy.escalated(asked, 1) == Resources({"time_limit": 7200, "processes": 4}, generic=True)


def test_problems_name_the_key() -> None:
    policy = Retries(limit=1, escalate={"resources": {"select": "*2", "time": "*2", "mem": "*2"}})
    asked = Resources({"select": "1:ncpus=4", "time": "01:00:00"})
    found = dict(policy.problems(asked))
    assert set(found) == {"select"}
    assert "cannot be multiplied" in found["select"]
    grown = policy.escalated(asked, 1)
    assert grown == Resources({"select": "1:ncpus=4", "time": "02:00:00"}), "the others grow all the same"


def test_nothing_grows_beyond_all_bounds() -> None:
    policy = Retries(limit=100, escalate={"resources": {"ntasks": "*999"}})
    assert policy.escalated(Resources({"ntasks": 2}), 100) == Resources({"ntasks": 2_000_000})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limit": -1}, "from 0 to 100"),
        ({"limit": 10**9}, "from 0 to 100"),
        ({"limit": 1, "backoff": "soon"}, "is not a duration"),
        ({"limit": 1, "escalate": {"resources": {"time": "2"}}}, "is not a factor"),
        ({"limit": 1, "escalate": {"priority": {}}}, "give resources or qresources"),
        ({"limit": 1, "on": ["bad luck"]}, "bad luck"),
        ({"limit": 1, "continue": {"keep": ["/etc/passwd"]}}, "not a path below the run directory"),
        ({"limit": 1, "continue": {"keep": ["a/../../b"]}}, "not a path below the run directory"),
        ({"limit": 1, "continue": {"rename": {"a": ".."}}}, "not a path below the run directory"),
        ({"limit": 1, "continue": {"rename": {"": "b"}}}, "not a path below the run directory"),
        ({"limit": 1, "continue": {"signal": "KILL@300"}}, "give TERM, INT"),
        ({"limit": 1, "continue": {"signal": "TERM"}}, "as in TERM@300"),
        ({"limit": 1, "continue": {"kept": []}}, "kept"),
        ({"limit": 1, "continue": 5}, "Expected `object"),
        (3, "Expected `object`, got `int`"),
    ],
)
def test_a_policy_of_python_code_is_checked(given: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        policy_of(given)


def test_a_policy_is_read_from_plain_data() -> None:
    assert policy_of(None) is None
    assert policy_of({"limit": 2}) == Retries(limit=2)
    policy = policy_of({"limit": 1, "continue": {"keep": ["*.ckpt"], "signal": "USR1@90"}})
    assert policy is not None and policy.continuation is not None
    assert (policy.continuation.keep, policy.continuation.warning) == (("*.ckpt",), ("USR1", 90))
    with pytest.raises(msgspec.ValidationError):
        policy_of({"limit": 2, "onn": ["oom"]})
