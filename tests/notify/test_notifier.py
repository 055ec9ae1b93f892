"""Rounds of notify rules on a store that real passes have filled."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.errors import TransientError
from reconciler.model.applied import Attempt, AttemptResult
from reconciler.model.notifications import Message, Notice, NotifyRule, NotifyState
from reconciler.model.records import WorkerStatus
from reconciler.notify import notifier
from reconciler.notify.notices import new_notices
from reconciler.notify.notifier import send_due
from tests.watch.support import WatchWorld, eventually


class Sent:
    """A target that keeps messages in memory, and fails while ``broken``."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.broken = False

    def __call__(self, rule: NotifyRule, message: Message) -> None:
        if self.broken:
            raise TransientError("the target is down")
        self.messages.append(message)

    def told(self) -> list[tuple[str, str]]:
        """Return reason and object of everything sent so far, and forget it."""
        found = [
            (one["reason"], one["object"]) for message in self.messages for one in message.data["notices"]
        ]
        self.messages.clear()
        return found


def project(world: WatchWorld, *rules: dict[str, object]) -> None:
    world.repository.write(
        "reconciler.yaml",
        "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: watched}\nspec: "
        + json.dumps({"python_path": ["lib"], "defaults": {"worker": "w1"}, "notify": list(rules)})
        + "\n",
    )


def said_by(world: WatchWorld) -> Path:
    """Return a file to which the command ``tell`` of the test's directory appends each message as a line."""
    tell = world.root / "tell"
    tell.write_text(f"#!/bin/sh\ncat >> '{world.root}/said'\necho >> '{world.root}/said'\n")
    tell.chmod(0o755)
    return world.root / "said"


def reasons(said: Path) -> list[tuple[str, str]]:
    messages = [json.loads(line) for line in said.read_text().splitlines()] if said.exists() else []
    return [(one["reason"], one["object"]) for message in messages for one in message["notices"]]


def test_once_tells_failed_and_completed_flows_once(watched: WatchWorld) -> None:
    said = said_by(watched)
    command = [str(watched.root / "tell")]
    project(watched, {"name": "all", "command": command, "reasons": ["Completed", "JobsFailed"]})
    watched.log_flow("good")
    watched.flow("bad", {"id": "j", "function": "fails", "args": ["no"]})
    watched.commit()
    watched.run("--once", "--wait")
    assert sorted(reasons(said)) == [("Completed", "flow/good"), ("JobsFailed", "flow/bad")]
    watched.run("--once", "--wait")
    watched.run("retry", "bad")  # it fails again under the same revision
    watched.run("--once", "--wait")
    assert len(reasons(said)) == 2
    watched.log_flow("more")
    watched.commit()
    watched.run("--once", "--wait")
    assert reasons(said)[2:] == [("Completed", "flow/more")]


def test_a_build_that_fails_is_told(watched: WatchWorld) -> None:
    said = said_by(watched)
    project(watched, {"name": "all", "command": [str(watched.root / "tell")]})
    watched.put("Flow", "broken", {"factory": {"function": "simple_jobs.nowhere"}}, "flows")
    watched.commit()
    watched.run("--once", "--wait")
    assert ("NotSubmitted", "flow/broken") in reasons(said)


def test_a_new_rule_is_silent_about_the_past(watched: WatchWorld) -> None:
    said = said_by(watched)
    watched.flow("bad", {"id": "j", "function": "fails", "args": ["no"]})
    watched.commit()
    watched.run("--once", "--wait")
    project(watched, {"name": "all", "command": [str(watched.root / "tell")]})
    watched.log_flow("good")
    watched.commit()
    watched.run("--once", "--wait")
    assert reasons(said) == []


def test_jobs_can_be_told_one_by_one(watched: WatchWorld) -> None:
    said = said_by(watched)
    rule = {"name": "jobs", "command": [str(watched.root / "tell")], "reasons": ["JobFailed", "JobCompleted"]}
    project(watched, rule)
    watched.flow(
        "two",
        {"id": "a", "function": "fails", "args": ["no"]},
        {"id": "b", "function": "fails", "args": ["yes"]},
    )
    watched.log_flow("good")
    watched.commit()
    watched.run("--once", "--wait")
    assert sorted(reasons(said)) == [
        ("JobCompleted", "job/good/j"),
        ("JobFailed", "job/two/a"),
        ("JobFailed", "job/two/b"),
    ]


def test_a_target_that_fails_loses_nothing_and_ends_no_pass(watched: WatchWorld) -> None:
    project(watched, {"name": "all", "command": [str(watched.root / "tell")]})
    watched.flow("bad", {"id": "j", "function": "fails", "args": ["no"]})
    watched.commit()
    done = watched.run("--once", "--wait")  # there is no such command yet
    assert "notify rule 'all'" in done.stderr
    assert done.returncode == 1  # the flow is degraded; the target does not matter
    assert "cannot deliver its message" in watched.run("doctor").stdout
    said = said_by(watched)
    watched.log_flow("good")
    watched.commit()
    watched.run("--once", "--wait")
    assert reasons(said) == [("JobsFailed", "flow/bad")]
    assert "cannot deliver" not in watched.run("doctor").stdout


def begin_again(store: Store, **fields: object) -> None:
    """Let the rule ``all`` tell everything from the first event on."""
    state = NotifyState(cursor=0, **fields)  # type: ignore[arg-type]
    store.write(lambda writer: writer.put_notify_state("all", state))


@pytest.fixture
def failed(watched: WatchWorld) -> Iterator[Store]:
    """A store with a failed and a completed flow, and a rule ``all`` with an interval of ten minutes."""
    project(watched, {"name": "all", "command": ["true"], "digest": "10m"})
    watched.flow("bad", {"id": "j", "function": "fails", "args": ["no"]})
    watched.log_flow("good")
    watched.commit()
    watched.run("--once", "--wait")
    store = Store(watched.state)
    yield store
    store.close()


def test_messages_keep_their_interval(failed: Store) -> None:
    sent = Sent()
    begin_again(failed, sent=1000.0)
    assert send_due(failed, 1599.0, send=sent) == []
    assert sent.told() == []
    assert send_due(failed, 1600.0, send=sent) == []
    assert sent.told() == [("JobsFailed", "flow/bad")]
    begin_again(failed, sent=1600.0)
    assert send_due(failed, 1601.0, flush=True, send=sent) == []
    assert sent.told() == [("JobsFailed", "flow/bad")]


def test_a_target_that_fails_is_tried_again_with_a_back_off(failed: Store) -> None:
    sent = Sent()
    begin_again(failed)
    sent.broken = True
    tries = [now for now in range(1000, 1300, 5) if send_due(failed, float(now), send=sent)]
    assert tries == [1000, 1030, 1090, 1210]
    sent.broken = False
    send_due(failed, 2000.0, send=sent)
    assert sent.told() == [("JobsFailed", "flow/bad")]
    assert send_due(failed, 9000.0, send=sent) == []
    assert sent.told() == []


def add_rule(store: Store, name: str) -> None:
    """Add a second rule like that of the fixture, which has everything left to tell."""
    with store.read() as view:
        config = view.config()
    assert config is not None
    other = msgspec.structs.replace(config.notify[0], name=name)
    store.write(
        lambda writer: writer.put_config(msgspec.structs.replace(config, notify=[*config.notify, other]))
    )
    begin_again(store)
    store.write(lambda writer: writer.put_notify_state(name, NotifyState(cursor=0)))


def test_any_exception_of_a_target_stops_its_rule_only(failed: Store) -> None:
    add_rule(failed, "other")
    told: list[str] = []

    def send(rule: NotifyRule, message: Message) -> None:
        told.append(rule.name)
        if rule.name == "all":
            raise KeyError("of a library")

    (failure,) = send_due(failed, 0.0, flush=True, send=send)
    assert (failure.rule, failure.problem) == ("all", "unexpected KeyError: 'of a library'")
    assert told == ["all", "other"]
    with failed.read() as view:
        state = view.notify_state("all")
    assert state is not None
    assert (state.failures, state.cursor) == (1, 0)


def test_a_record_that_cannot_be_told_stops_its_rule_only(
    failed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a fault of ours raises here, so it is injected."""
    add_rule(failed, "other")

    def odd(view: View, rule: NotifyRule, state: NotifyState) -> tuple[list[Notice], NotifyState]:
        if rule.name == "all":
            raise IndexError("an odd record")
        return new_notices(view, rule, state)

    monkeypatch.setattr(notifier, "new_notices", odd)
    sent = Sent()
    (failure,) = send_due(failed, 0.0, flush=True, send=sent)
    assert (failure.rule, failure.problem) == ("all", "unexpected IndexError: an odd record")
    assert sent.told()


def test_a_failure_is_over_when_there_is_nothing_left_to_tell(failed: Store) -> None:
    with failed.read() as view:
        last = view.last_event()
    failed.write(
        lambda writer: writer.put_notify_state("all", NotifyState(cursor=last, failures=3, error="x"))
    )
    send_due(failed, 1e9, send=Sent())
    with failed.read() as view:
        state = view.notify_state("all")
    assert state is not None
    assert (state.failures, state.error) == (0, "")


def test_an_outage_is_told_when_it_lasts_once_and_its_end_too(failed: Store) -> None:
    sent = Sent()

    def status(*, reachable: bool, failures: int) -> list[tuple[str, str]]:
        one = WorkerStatus(reachable=reachable, failures=failures, reason="no route to host")
        failed.write(lambda writer: writer.put_worker_status("w1", one))
        send_due(failed, 0.0, flush=True, send=sent)
        return sent.told()

    rules = NotifyRule(name="all", reasons=["Unreachable", "Reachable"], command=["true"])
    with failed.read() as view:
        config = view.config()
    assert config is not None
    failed.write(lambda writer: writer.put_config(msgspec.structs.replace(config, notify=[rules])))
    assert status(reachable=False, failures=2) == []
    assert status(reachable=False, failures=9) == [("Unreachable", "worker/w1")]
    assert status(reachable=False, failures=10) == []
    revised = msgspec.structs.replace(config, notify=[rules], revision="main@1234567")
    failed.write(lambda writer: writer.put_config(revised))
    assert status(reachable=False, failures=11) == []
    assert status(reachable=True, failures=0) == [("Reachable", "worker/w1")]
    assert status(reachable=True, failures=0) == []
    assert status(reachable=False, failures=9) == [("Unreachable", "worker/w1")]


def test_a_revision_that_is_not_applied_is_told_once(failed: Store) -> None:
    sent = Sent()

    def attempt(result: AttemptResult, revision: str, failures: int = 0) -> list[tuple[str, str]]:
        one = Attempt(time=1e12, result=result, revision=revision, message="why", failures=failures)
        failed.write(lambda writer: writer.put_attempt(one))
        send_due(failed, 0.0, flush=True, send=sent)
        return sent.told()

    assert attempt(AttemptResult.REFUSED, "main@1") == [("RevisionRefused", "source")]
    assert attempt(AttemptResult.REFUSED, "main@1") == []
    assert attempt(AttemptResult.REFUSED, "main@2") == [("RevisionRefused", "source")]
    assert attempt(AttemptResult.FAILED, "main@3", failures=3) == []
    assert attempt(AttemptResult.FAILED, "main@3", failures=9) == [("RevisionFailed", "source")]
    assert attempt(AttemptResult.APPLIED, "main@3") == []


def test_a_removed_rule_is_forgotten(watched: WatchWorld, failed: Store) -> None:
    project(watched)
    watched.commit()
    watched.run("--once")
    with failed.read() as view:
        assert view.notify_rules() == []


def test_a_daemon_that_dies_after_a_delivery_sends_it_again(watched: WatchWorld) -> None:
    """At least once: a message may come twice, but never not at all."""
    said, pid = watched.root / "said", watched.root / "pid"
    tell = watched.root / "tell"
    tell.write_text(
        f"#!/bin/sh\ncat >> '{said}'\necho >> '{said}'\n"
        f"if test -e '{pid}'; then kill -9 $(cat '{pid}'); rm '{pid}'; fi\n"
    )
    tell.chmod(0o755)
    project(watched, {"name": "all", "command": [str(tell)], "digest": "0s"})
    watched.commit()
    daemon = watched.start()
    pid.write_text(str(daemon.pid))
    watched.flow("bad", {"id": "j", "function": "fails", "args": ["no"]})
    watched.commit()
    assert daemon.wait() == -signal.SIGKILL
    second = watched.start()
    eventually(lambda: reasons(said) == [("JobsFailed", "flow/bad")] * 2, "the message again", second)
    watched.flow("worse", {"id": "j", "function": "fails", "args": ["no"]})
    watched.commit()
    eventually(lambda: reasons(said)[2:] == [("JobsFailed", "flow/worse")], "the next message", second)
    assert second.end() == 0


def test_a_target_that_hangs_holds_nothing_up(watched: WatchWorld) -> None:
    project(watched, {"name": "all", "command": ["sleep", "600"], "digest": "0s"})
    watched.flow("bad", {"id": "j", "function": "fails", "args": ["no"]})
    watched.commit()
    daemon = watched.start()
    watched.until_state("bad/j", "FAILED")
    watched.log_flow("good")
    watched.commit()
    watched.until_state("good/j", "COMPLETED")
    assert daemon.end() == 0


@pytest.mark.parametrize(("name", "code"), [("all", 0), ("broken", 3), ("al", 2)])
def test_a_rule_can_be_tried(watched: WatchWorld, name: str, code: int) -> None:
    said = said_by(watched)
    project(
        watched,
        {"name": "all", "command": [str(watched.root / "tell")]},
        {"name": "broken", "command": ["false"]},
    )
    watched.commit()
    done = watched.run("notify", name)
    assert done.returncode == code, done.stderr
    assert reasons(said) == ([("Test", "source")] if code == 0 else [])
    if name == "al":
        assert "did you mean 'all'?" in done.stderr
