"""The error of an attempt that left no result."""

from __future__ import annotations

import msgspec
import pytest

from reconciler.execution.queues.shell import ShellQueue
from reconciler.execution.worker.fetch import AttemptFacts, CollectRequest
from reconciler.execution.worker.termination import end_without_result
from reconciler.model.records import JobAttempt, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.states import JobState


@pytest.mark.parametrize(
    ("lost", "said"), [(False, "is the disk there full?"), (True, "its process vanished")]
)
def test_a_marker_without_an_exit_code_points_to_a_full_disk(lost: bool, said: str) -> None:
    job = JobRecord(
        uuid="u", index=1, flow="f", key="j", name="j", function="m.f", state=JobState.RUNNING,
        config=RunConfig(), content="", attempt=JobAttempt(queue_id="7"),
    )  # fmt: skip
    facts = AttemptFacts(found="claimed", claimant="7", same_host=True)
    ended = end_without_result(CollectRequest(job, lost=lost, listed=False), facts, ShellQueue())
    assert said in ended.error and not ended.unproven
    for listed in (True, None):  # then another job can have left the marker
        request = CollectRequest(job, lost=lost, listed=listed)
        assert end_without_result(request, facts, ShellQueue()).unproven is not lost
        proven = msgspec.structs.replace(facts, exit_code=1)
        assert not end_without_result(request, proven, ShellQueue()).unproven
    assert ended.state is JobState.FAILED
