"""Ready, Reconciling and Stalled, from what the store knows."""

from __future__ import annotations

import pytest

from reconciler.model.applied import AppliedConfig, Attempt, AttemptResult
from reconciler.model.conditions import (
    Conditions,
    flow_conditions,
    never_submitted_conditions,
    worker_conditions,
)
from reconciler.model.health import FlowStatus
from reconciler.model.records import FlowRecord, WorkerStatus
from reconciler.model.states import Health, Sync

CONFIG = AppliedConfig(revision="main@2222222")
FLOW = FlowRecord(name="f", identity="", build_key="", revision="main@1111111")


def status(health: Health, **counts: int) -> FlowStatus:
    return FlowStatus(health, f"it is {health}", counts)


def short(found: Conditions) -> list[str]:
    """Return ``Ready=True Completed`` and so on."""
    return [f"{each.type}={each.status} {each.reason}" for each in found.conditions]


def of_flow(
    health: Health,
    sync: Sync = Sync.SYNCED,
    *,
    flow: FlowRecord = FLOW,
    config: AppliedConfig = CONFIG,
    attempt: Attempt | None = None,
    **counts: int,
) -> Conditions:
    return flow_conditions(flow, status(health, **counts), sync, "why not", config, attempt)


IDLE, SOUND = "Reconciling=False Idle", "Stalled=False NotStalled"
MOVES = "Reconciling=True Progressing"
HEALTHY = Health.HEALTHY
SUSPENDED = FlowRecord(name="f", identity="", build_key="", suspended=True)
REMOVED = FlowRecord(name="f", identity="", build_key="", removed=True)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (of_flow(HEALTHY, COMPLETED=2), ["Ready=True Completed", IDLE, SOUND]),
        (of_flow(Health.PROGRESSING, RUNNING=1), ["Ready=False Progressing", MOVES, SOUND]),
        (of_flow(Health.DEGRADED, FAILED=1), ["Ready=False JobsFailed", IDLE, "Stalled=True JobsFailed"]),
        (
            of_flow(Health.DEGRADED, FAILED=1, RUNNING=1),
            ["Ready=False JobsFailed", MOVES, "Stalled=True JobsFailed"],
        ),
        (
            of_flow(Health.DEGRADED, SUBMITTED=1),
            ["Ready=False JobsStuck", MOVES, "Stalled=True JobsStuck"],
        ),
        (of_flow(Health.SUSPENDED, flow=SUSPENDED, PAUSED=1), ["Ready=False Suspended", IDLE, SOUND]),
        (of_flow(Health.SUSPENDED, PAUSED=1), ["Ready=False JobsPaused", IDLE, SOUND]),
        (of_flow(Health.SUSPENDED, USER_STOPPED=1), ["Ready=False JobsCancelled", IDLE, SOUND]),
        (
            of_flow(HEALTHY, Sync.OUT_OF_SYNC),
            ["Ready=False ChangesDeferred", "Reconciling=True ChangesDeferred", SOUND],
        ),
        (
            of_flow(HEALTHY, flow=REMOVED),
            ["Ready=False Removed", "Reconciling=True Removed", SOUND],
        ),
    ],
)
def test_a_flow(found: Conditions, expected: list[str]) -> None:
    assert short(found) == expected
    assert all(each.message for each in found.conditions)


def test_a_flow_that_is_not_as_the_revision_wants_it_is_as_an_older_one_does() -> None:
    config = AppliedConfig(revision="main@2222222", out_of_sync={"f": "why not"})
    found = of_flow(HEALTHY, Sync.OUT_OF_SYNC, config=config)
    assert short(found) == ["Ready=False OutOfSync", IDLE, "Stalled=True OutOfSync"]
    assert (found.last_attempted, found.last_applied) == ("main@2222222", "main@1111111")


def test_a_flow_that_never_was_submitted() -> None:
    found = never_submitted_conditions("there is no worker", CONFIG, None)
    assert short(found) == ["Ready=False NotSubmitted", IDLE, "Stalled=True NotSubmitted"]
    assert (found.last_attempted, found.last_applied) == ("main@2222222", None)


@pytest.mark.parametrize(
    ("result", "revision", "expected"),
    [
        (AttemptResult.APPLIED, "main@2222222", ["Ready=True Completed", IDLE, SOUND]),
        (AttemptResult.INVALID, "main@2222222", ["Ready=True Completed", IDLE, SOUND]),
        # The source could not be read: what was applied is still all that is known to be wanted.
        (AttemptResult.FAILED, "", ["Ready=True Completed", IDLE, SOUND]),
        (
            AttemptResult.FAILED,
            "main@3333333",
            ["Ready=False RevisionFailed", "Reconciling=True RevisionFailed", SOUND],
        ),
        (
            AttemptResult.REFUSED,
            "main@3333333",
            ["Ready=False RevisionRefused", IDLE, "Stalled=True RevisionRefused"],
        ),
    ],
)
def test_a_revision_that_could_not_be_applied(
    result: AttemptResult, revision: str, expected: list[str]
) -> None:
    attempt = Attempt(time=1.0, result=result, revision=revision, message="the reason")
    found = of_flow(HEALTHY, attempt=attempt)
    assert short(found) == expected
    assert found.last_applied == "main@2222222"
    assert found.last_attempted == (revision or "main@2222222")
    if "False" in expected[0]:
        assert found.conditions[0].message == f"{revision}: the reason"


def of_worker(**fields: object) -> Conditions:
    known = WorkerStatus(**fields) if fields else None  # type: ignore[arg-type]
    return worker_conditions(known, 2, CONFIG, None)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (of_worker(), ["Ready=Unknown NotUsedYet", IDLE, SOUND]),
        (of_worker(reachable=True), ["Ready=True Reachable", IDLE, SOUND]),
        (
            of_worker(reachable=False, reason="no answer", failures=3, next_try=9.0),
            ["Ready=False Unreachable", "Reconciling=True Unreachable", SOUND],
        ),
        (
            of_worker(reachable=False, reason="no answer", fix="look", failures=9, next_try=9.0),
            ["Ready=False Unreachable", "Reconciling=True Unreachable", "Stalled=True Unreachable"],
        ),
    ],
)
def test_a_worker(found: Conditions, expected: list[str]) -> None:
    assert short(found) == expected


def test_an_outage_says_why_and_what_to_do() -> None:
    (ready, *_) = of_worker(reachable=False, reason="no answer", fix="look at it").conditions
    assert ready.message == "no answer - look at it"


def test_a_signature_is_a_condition_where_the_policy_asks_for_one() -> None:
    signed = AppliedConfig(revision="main@2222222", signer="ada@example.org (ED25519 SHA256:x)")
    assert short(of_flow(HEALTHY, config=signed))[3:] == ["SourceVerified=True Signed"]
    unsigned = Attempt(
        time=1.0,
        result=AttemptResult.REFUSED,
        revision="main@3333333",
        message="refused: not signed",
        unverified=True,
    )
    found = of_flow(HEALTHY, config=signed, attempt=unsigned).conditions
    assert str(found[3].status) == "False" and found[3].message == "not signed"
    assert len(of_flow(HEALTHY).conditions) == 3
