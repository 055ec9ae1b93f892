"""Where the daemon can be killed: before, within and after every write, before and after every effect."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import reconciler

EFFECTS = (
    *("build", "reconcile", "apply", "answer"),
    *("prepare", "upload", "submit", "find", "poll", "collect", "cancel", "withdraw"),
)

WRITES = (
    *("StoreCache.put", "KeptBuilds.flush", "apply_plan", "Session.record_outcome"),
    *("SourceThread._put", "WorkerHealth._put"),
    *(
        "JobStarter.check_out",
        "JobStarter.upload",
        "JobStarter.start",
        "JobStarter.drop",
        "JobStarter.withdraw",
    ),
    *("WorkerRunner._note", "WorkerRunner.advance", "ResultCollector._record", "compact"),
)

RARE = {
    "_begin_alone": "an unexpected error of a retry",
    "_error_of": "an unexpected error while a plan is applied; the transaction is undone",
    "Store.check_lineage": "once in the life of a store",
    "WorkerRunner._kill": "a queue that refuses to end a job",
    "WorkerRunner._clear_strays": "an attempt that was given up and has a result after all",
    "note_problem": "an unexpected error about one job",
    "PlannedOperation.carry_out": "operations of the command line, which are other programs",
    "Comparison.compared": "a plan of what may differ that is wrong, which is a bug",
    "Session._note_imports": "imports that no text names; see tests/loop/test_imports_that_count.py",
    "Session._move_on": "a commit that changes nothing of the campaign",
    "JobStarter.leave": "attempts left on another worker; see tests/execution/test_left_attempts.py",
    "JobStarter.take_back": "allocations of batch workers; see tests/execution/batch/",
    "AllocationKeeper._put": "allocations of batch workers; see tests/execution/batch/",
    "_followed": "only at the start of `watch --follow`",
    "repair": "fsck, which is another program",
    "_send": "notifications, and the site has no rule for them",
    "begin_due": "jobs that fail, so that each would have several lines; see tests/jobs/test_retries.py",
}
"""Other functions that write, and why no daemon is killed there."""

BOUNDARIES = (
    *(f"{effect}:{moment}" for effect in EFFECTS for moment in ("before", "after")),
    *(f"write@{kind}:{moment}" for kind in WRITES for moment in ("before", "within", "after")),
)


def functions_that_write() -> set[str]:
    """Return the functions of the program that call the ``write`` of a store, by qualified name."""
    package = Path(reconciler.__file__).parent
    files = (file for file in package.rglob("*.py") if "actual/jobstore" not in str(file))
    return {name for file in files for name in _writers(ast.parse(file.read_text()), "")}


def _writers(node: ast.AST, scope: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from _writers(child, f"{scope}.{child.name}".lstrip("."))
            continue
        if isinstance(child, ast.Call) and _is_write(child.func):
            yield scope
        yield from _writers(child, scope)


def _is_write(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute) or function.attr != "write":
        return False
    owner = ast.unparse(function.value)
    return owner.endswith("store") or (owner == "self" and ast.unparse(function) == "self.write")
