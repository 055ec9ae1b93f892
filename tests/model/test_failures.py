"""Which failures are alike."""

from __future__ import annotations

import pytest

from reconciler.model.failures import error_line, failure_id, failure_pattern, fix_of
from reconciler.model.records import JobRecord
from reconciler.model.retries import Cause
from reconciler.model.run_config import RunConfig
from reconciler.model.states import JobState


def failed(
    error: str | None, cause: str | None = "exception", state: JobState = JobState.FAILED
) -> JobRecord:
    return JobRecord(
        uuid="0027b6d5-0aaf-57b0-9e8a-d30b52503e78", index=1, flow="f", key="k", name="n", function="m.f",
        state=state, config=RunConfig(), content="", error=error, cause=cause,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ValueError: 3 is too large", "ValueError: 41.5 is too large"),
        ("Traceback\n  File x, line 3\nKeyError: 'a'", "Traceback\n  File y, line 4\nKeyError: 'a'"),
        ("no file /scratch/a/1/POSCAR", "no file ~/other/POSCAR"),
        ("<A at 0x7f00aa>", "<A at 0x7f00ff>"),
        (
            "job 0027b6d5-0aaf-57b0-9e8a-d30b52503e78_1 died",
            "job ffffb6d5-0aaf-57b0-9e8a-d30b52503e78_2 died",
        ),
        ("energy -1.5e-3 diverged", "energy 2 diverged"),
        (None, ""),
    ],
)
def test_alike(one: str | None, other: str | None) -> None:
    assert failure_id(failed(one)) == failure_id(failed(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (failed("KeyError: 'a'"), failed("KeyError: 'b'")),
        (failed("killed", "oom"), failed("killed", "walltime")),
        (failed("gone", "lost"), failed("gone", "lost", JobState.REMOTE_ERROR)),
    ],
)
def test_not_alike(one: JobRecord, other: JobRecord) -> None:
    assert failure_id(one) != failure_id(other)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("Traceback:\n  x\nKeyError: 'a'\n", "KeyError: 'a'"),
        (" \n \t ", "unknown error"),
        ("", "unknown error"),
        (None, "unknown error"),
    ],
)
def test_the_line_of_an_error(error: str | None, line: str) -> None:
    assert error_line(error) == line


def test_a_job_that_has_not_failed_has_none() -> None:
    assert failure_pattern(failed("an old error", state=JobState.COMPLETED)) is None


def test_a_pattern_is_bounded() -> None:
    pattern = failure_pattern(failed("x 1 " * 100_000))
    assert pattern is not None and len(pattern) == 300


def test_every_cause_has_a_fix() -> None:
    assert all(fix_of(str(cause)) for cause in Cause)
    assert fix_of(None) == fix_of("something new")
