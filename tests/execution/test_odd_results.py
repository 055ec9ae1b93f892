"""An odd result ends its own job with a reason; its neighbours in the same pass go on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.execution.support import World

pytestmark = pytest.mark.usefixtures("warm")

RESULT = "claim/result.json"


def result(**fields: Any) -> str:
    """Return a script that writes a result with some fields changed."""
    given = {"ok": True, "started": 1.0, "ended": 2.0, "documents": [], "response": {}} | fields
    return f"cat > {RESULT} <<'END'\n{json.dumps(given)}\nEND"


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else []


def run_beside_neighbours(world: World, *jobs: dict[str, Any]) -> None:
    """Run odd jobs with an even one before and after them, all collected in one pass."""
    even = [{"id": name, "function": "give", "args": [1]} for name in ("before", "after")]
    world.flow("f", even[0], *[{"id": f"odd{n}", **job} for n, job in enumerate(jobs)], even[1])
    world.reconcile()
    world.run()
    assert world.states("f/before", "f/after") == ["COMPLETED", "COMPLETED"]
    assert world.executor is not None and world.executor.outages() == {}


def odd(script: str) -> dict[str, Any]:
    return {"function": "odd_jobs.runs_and_dies", "args": [script]}


FILES = {
    "100,000 levels of JSON": (
        f"python3 -c \"print('[' * 100000 + ']' * 100000)\" > {RESULT}", "result.json is damaged",
    ),
    "300 levels of a document": (
        result(documents=[{"uuid": "u", "index": 1, "output": nested(300)}]), "more than 200 levels",
    ),
    "times that are no numbers": (result(started=float("nan")), "times are not finite"),
    "a time of 400 digits": (result(started=10**400), "result.json is damaged"),
    "documents without a uuid": (result(documents=[{"output": 1}]), "cannot be kept"),
    "an index of 30 digits": (
        result(documents=[{"uuid": "u", "index": 10**30, "output": 1}]), None,
    ),
    "a value of 30 digits": (
        result(documents=[{"uuid": "u", "index": 1, "output": 10**400}]), None,
    ),
    "a result that is a symlink": (f"ln -s /etc/passwd {RESULT}", "symbolic link"),
    "a dangling symlink": (f"ln -s /no/where {RESULT}", "symbolic link"),
    "a claim that is a symlink": (f"mv claim x; ln -s x claim; echo '{{}}' > {RESULT}", "symbolic link"),
    "a pipe": (f"mkfifo {RESULT}", "not a regular file"),
    "a directory": (f"mkdir {RESULT}", "not a regular file"),
    "500 MB of nothing": (f"truncate -s 500M {RESULT}", "500 MB"),
    "an exit code of several words": ("echo '7 9 claimed 4' > claim/exit_code", "without a result"),
    "a queue id of several words": ("echo '1 2 3 4 5' > claim/queue_id", "without a result"),
    "an endless queue id": ("head -c 3000000 /dev/zero | tr '\\0' 7 > claim/queue_id", "without a result"),
    "bytes in place of a queue id": ("head -c 300 /dev/urandom > claim/queue_id", "without a result"),
}  # fmt: skip


def test_files_that_are_odd(world: World) -> None:
    run_beside_neighbours(world, *(odd(script) for script, _ in FILES.values()))
    for number, (name, (_, reason)) in enumerate(FILES.items()):
        job = world.job(f"f/odd{number}")
        if reason is not None:
            assert job.state in ("FAILED", "REMOTE_ERROR"), (name, job.state)
            assert reason in (job.error or ""), (name, job.error)
        else:
            assert job.state in ("COMPLETED", "REMOTE_ERROR"), (name, job.state)


@pytest.mark.parametrize("levels", [330, 990, 5000])
def test_a_value_that_is_nested_too_deeply(world: World, levels: int) -> None:
    run_beside_neighbours(world, {"function": "odd_jobs.nests", "args": [levels]})
    assert world.state("f/odd0") == "FAILED"
    error = world.job("f/odd0").error or ""
    assert "more than 200 levels of nesting" in error or "RecursionError" in error


def test_a_value_of_moderate_depth_is_kept(world: World) -> None:
    run_beside_neighbours(world, {"function": "odd_jobs.nests", "args": [150]})
    depth, value = 0, world.output("f/odd0")
    while value:
        depth, value = depth + 1, value[0]
    assert depth == 150


GENERATED = {
    "priority of 30 digits": ("generates_odd_priority", {"priority": "=10**30"}),
    "priority below any": ("generates_odd_priority", {"priority": "=-2**63"}),
    "priority that is a list": ("generates_odd_priority", {"priority": [1]}),
    "index of 30 digits": ("generates_odd", {"index": "=10**30"}),
    "index that is a text": ("generates_odd", {"index": "one"}),
    "negative index": ("generates_odd", {"index": -5}),
    "uuid that is a number": ("generates_odd", {"uuid": 5}),
    "endless uuid": ("generates_odd", {"uuid": "u" * 3000}),
    "endless name": ("generates_odd", {"name": "n" * 3000}),
    "name that is a list": ("generates_odd", {"name": ["n"]}),
}


def test_generated_jobs_that_are_odd(world: World) -> None:
    run_beside_neighbours(
        world,
        *({"function": f"odd_jobs.{function}", "kwargs": fields} for function, fields in GENERATED.values()),
    )
    for number, name in enumerate(GENERATED):
        job = world.job(f"f/odd{number}")
        assert job.state in ("COMPLETED", "FAILED", "REMOTE_ERROR"), (name, job.state)
        if job.state != "COMPLETED":
            assert job.error, name


def error_of(world: World, function: str, *args: Any) -> str:
    run_beside_neighbours(world, {"function": f"odd_jobs.{function}", "args": list(args)})
    assert world.state("f/odd0") in ("FAILED", "REMOTE_ERROR")
    return world.job("f/odd0").error or ""


@pytest.mark.parametrize(
    ("function", "args", "headline"),
    [
        ("raises_pydantic", [], "ValidationError: 1 validation error for TaskDoc"),
        ("raises_group", [], "ExceptionGroup: two things (2 sub-exceptions)"),
        ("raises_text", ["first line\nsecond line\n"], "ValueError: first line"),
        ("raises_text", ["\n\n  the point\nmore"], "ValueError: the point"),
        ("raises_text", ["one line"], "ValueError: one line"),
        ("raises_half_a_character", [], "ValueError: caf\\udce9"),
    ],
)
def test_the_last_line_of_an_error_says_what_went_wrong(
    world: World, function: str, args: list[Any], headline: str
) -> None:
    assert error_of(world, function, *args).splitlines()[-1] == headline


def test_a_long_error_is_cut_in_its_middle(world: World) -> None:
    error = error_of(world, "raises_text", "0123456789", 2_000_000)
    assert len(error) < 30_000
    assert error.startswith("Traceback")
    assert "characters left out" in error


def test_an_output_that_the_store_cannot_hold(world: World) -> None:
    assert "cannot be kept" in error_of(world, "returns_half_a_character")


def test_an_exit_code_comes_with_the_error_output(world: World) -> None:
    error = error_of(world, "runs_and_dies", "echo the licence server is away >&2", 7)
    assert error.splitlines()[-2:] == ["the licence server is away", "it ended without a result, exit code 7"]
