"""The launcher on its own: what it reports of jobs that end in every way that jobs end."""

from __future__ import annotations

import ast
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import launcher_jobs as jobs
import pytest
from jobflow import Job, JobStore, OnMissing, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyEncoder

from reconciler.execution import launcher
from reconciler.execution import run_files as launch_module
from reconciler.jobs.job_json import additional_stores, read_result
from tests.execution.launching import (
    CODE,
    Launched,
    bare_site,
    command,
    document,
    job_json,
    launch,
    launch_all,
    prepare,
)
from tests.execution.support import World


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed packages without reconciler."""
    return bare_site(tmp_path_factory.mktemp("site") / "packages")


SPECIAL = (
    "nan", "datetime", "numpy", "pydantic", "msonable", "enum", "tuple", "keys", "path", "text",
    "none", "nested",
)  # fmt: skip


def _configured(job: Job, **config: Any) -> Job:
    for key, value in config.items():
        setattr(job.config, key, value)
    return job


_absent = jobs.give(0)
_parent = jobs.give(4)
_heavy = jobs.keeps_heavy(3)
_link = {"@class": "dict", "@module": "builtins", "blob_uuid": "b-1", "store": "data"}
_heavy_document = document(_heavy, {"light": 3, "heavy": {"numbers": _link}})

Case = tuple[Any, list[dict[str, Any]], dict[str, list[dict[str, Any]]]]


def _stores(job: Job) -> dict[str, list[dict[str, Any]]]:
    return {name: [] for name in additional_stores(job_json(job))}


def _cases() -> dict[str, Case]:
    """Return what is run: a job, and the documents and blobs that travel with it."""
    ordinary: dict[str, Job] = {kind: jobs.special(kind) for kind in SPECIAL}
    ordinary |= {
        "schema": jobs.with_schema({"energy": 2}),
        "schema broken": jobs.with_schema({"steps": "many"}),
        "unserialisable": jobs.unserialisable(),
        "surrogate": jobs.lone_surrogate(),
        "stores": jobs.keeps_heavy(3),
        "two stores": jobs.keeps_in_two(),
        "raises": jobs.fails("ö no\nsecond line"),
        "raises without text": jobs.fails_without_text(),
        "raises deep": jobs.fails_deep(0),
        "interrupted": jobs.interrupts_itself(),
        "exits 0": jobs.exits(0),
        "exits text": jobs.exits("good bye"),
        "exits at once": jobs.exits_at_once(3),
        "chdir": jobs.changes_directory("/"),
        "no directory": jobs.removes_its_directory(),
        "forks": jobs.forks_and_returns(),
        "no stderr": jobs.closes_stderr(),
        "bytes": jobs.prints_bytes(),
        "own result": jobs.writes_result_json(),
        "big": jobs.big(20),
        "long integer": jobs.special("long integer"),
        "alone": jobs.knows_reconciler(),
        "replaces": jobs.replaces(),
    }
    cases: dict[str, Case] = {name: (job, [], _stores(job)) for name, job in ordinary.items()}
    given = [document(_parent, 4)]
    missing = _absent.output
    cases |= {
        "reference": (jobs.total([_parent.output, 1]), given, {}),
        "reference to heavy": (
            jobs.total(_heavy.output["heavy"]["numbers"]),
            [_heavy_document],
            {"data": [{"blob_uuid": "b-1", "data": [0, 1, 2]}]},
        ),
        "reference in output": (
            jobs.give(_absent.output),
            [document(_absent, {"inner": json.loads(json.dumps(_parent.output, cls=MontyEncoder))}), *given],
            {},
        ),
        "last index": (jobs.give(_parent.output), [*given, document(_parent, 9, index=2)], {}),
        "missing error": (jobs.give(missing), [], {}),
        "missing none": (_configured(jobs.give(missing), on_missing_references=OnMissing.NONE), [], {}),
        "missing pass": (
            _configured(jobs.what_kind(missing), on_missing_references=OnMissing.PASS), [], {},
        ),
        "not resolved": (_configured(jobs.what_kind(_parent.output), resolve_references=False), given, {}),
        "both forms": (_configured(jobs.both_forms(_parent.output), resolve_references="both"), given, {}),
        "store exposed": (_configured(jobs.through_store(_parent.uuid), expose_store=True), given, {}),
        "store written": (_configured(jobs.keeps_more("other-uuid"), expose_store=True), [], {}),
        "no package": (_imports("nowhere_at_all", "f"), [], {}),
        "no function": (_imports("launcher_jobs", "no_such"), [], {}),
        "no dependency": (_imports("needs_absent_package", "work"), [], {}),
        "no package in mid-job": (jobs.imports_late(), [], {}),
        "no part of a package": (jobs.imports_a_part(), [], {}),
        "no name in a module": (jobs.imports_a_name(), [], {}),
    }  # fmt: skip
    return cases


def _imports(module: str, function: str) -> dict[str, Any]:
    raw = job_json(jobs.give(1))
    raw["function"] |= {"@module": module, "@callable": function}
    return raw


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, site: Path) -> dict[str, Launched]:
    """All cases, run once."""
    root = tmp_path_factory.mktemp("launched")

    cases = _cases()
    for name, case in cases.items():
        prepare(root / name, *case)
    return launch_all([root / name for name in cases], python_path=[site, CODE])


@pytest.fixture(scope="module")
def oracle() -> Callable[[Job], Any]:
    """Return what jobflow itself stores as the output of a job."""

    def stored(job: Job) -> Any:
        store = JobStore(MemoryStore())
        run_locally(job, store=store, log=False, ensure_success=True)
        return store.query_one({"uuid": job.uuid})["output"]

    return stored


def test_it_imports_nothing_of_this_package() -> None:
    tree = ast.parse(Path(launcher.__file__).read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names - set(sys.stdlib_module_names) == {"jobflow", "monty", "maggma", "msgpack"}


def test_it_runs_where_reconciler_is_not_installed(launched: dict[str, Launched]) -> None:
    assert launched["alone"].output is False


@pytest.mark.parametrize("kind", SPECIAL)
def test_outputs_are_stored_as_jobflow_stores_them(
    kind: str, launched: dict[str, Launched], oracle: Callable[[Job], Any]
) -> None:
    expected = json.dumps(oracle(jobs.special(kind)), cls=MontyEncoder, sort_keys=True)
    assert json.dumps(launched[kind].output, sort_keys=True) == expected


def test_nan_and_infinity_survive(launched: dict[str, Launched]) -> None:
    nan, *rest = launched["nan"].output
    assert math.isnan(nan)
    assert rest == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("case", "output"),
    [
        ("reference", 5),
        ("reference to heavy", 3),
        ("reference in output", {"inner": 4}),
        ("last index", 9),
        ("missing none", None),
        ("missing pass", ["OutputReference"]),
        ("not resolved", ["OutputReference"]),
        ("both forms", [4, _parent.uuid]),
        ("store exposed", [4, 1]),
        ("chdir", "elsewhere"),
        ("no directory", "homeless"),
        ("forks", "parent"),
        ("bytes", "printed"),
        ("own result", "own file"),
        ("big", "x" * (20 << 20)),
        ("long integer", 2**70),
    ],
)
def test_output(case: str, output: Any, launched: dict[str, Launched]) -> None:
    assert launched[case].output == output
    assert launched[case].exit_code == 0


def test_a_schema_is_applied(launched: dict[str, Launched]) -> None:
    output = launched["schema"].output
    assert (output["energy"], output["steps"], output["@class"]) == (2.0, 0, "Report")


def test_additional_stores_get_their_part(launched: dict[str, Launched]) -> None:
    one, two = launched["stores"], launched["two stores"]
    assert one.result is not None
    assert two.result is not None
    assert [doc["data"] for doc in one.result.blobs["data"]] == [{"numbers": [0, 1, 2]}]
    assert one.output["heavy"]["blob_uuid"] == one.result.blobs["data"][0]["blob_uuid"]
    assert [doc["data"] for doc in two.result.blobs["data"]] == [[1, 2]]
    assert {"x": [3]} in [doc["data"] for doc in two.result.blobs["second"]]
    assert two.output["rest"] == 4


def test_what_a_job_keeps_through_the_store_is_reported(launched: dict[str, Launched]) -> None:
    result = launched["store written"].result
    assert result is not None
    assert {doc["uuid"]: doc["output"] for doc in result.documents}["other-uuid"] == "extra"


def test_a_file_named_result_json_belongs_to_the_job(launched: dict[str, Launched]) -> None:
    assert (launched["own result"].run_dir / "result.json").read_text() == "mine"


def test_new_jobs_come_with_their_parents(launched: dict[str, Launched]) -> None:
    result = launched["replaces"].result
    assert result is not None
    (first, none), (second, parents), (last, _) = result.response.replace
    assert (none, parents) == ([], [first["uuid"]])
    assert (second["index"], last["index"]) == (1, 2)
    assert last["uuid"] == result.documents[0]["uuid"]
    assert result.response.stored_data == {"why": 1}


@pytest.mark.parametrize(
    ("case", "texts"),
    [
        ("schema broken", ["energy", "steps"]),
        ("unserialisable", ["object"]),
        ("raises", ["ValueError: ö no\nsecond line", "launcher_jobs.py"]),
        ("raises without text", ["UnspeakableError"]),
        ("raises deep", ["RecursionError", "fails_deep"]),
        ("interrupted", ["KeyboardInterrupt"]),
        ("exits 0", ["SystemExit: 0"]),
        ("exits text", ["SystemExit: good bye"]),
        ("no stderr", ["ValueError: said nowhere"]),
        ("missing error", ["Could not resolve reference"]),
        (
            "no package",
            [
                f"worker 'w1': {sys.executable} has no module 'nowhere_at_all': install it there",
                "python_path",
            ],
        ),
        (
            "no function",
            [f"worker 'w1': {sys.executable} has a module 'launcher_jobs', but no 'no_such' in it"],
        ),
        (
            "no dependency",
            [
                f"worker 'w1': {sys.executable} has no module 'a_package_that_is_nowhere', which "
                "needs_absent_package.work needs: install it there, set `python:`"
            ],
        ),
        (
            "no package in mid-job",
            [
                "launcher_jobs.py",
                f"worker 'w1': {sys.executable} has no module 'another_that_is_nowhere', which "
                "launcher_jobs.imports_late needs: install it there",
            ],
        ),
        ("no part of a package", ["has no module 'json.nowhere', which launcher_jobs.imports_a_part needs"]),
        ("no name in a module", ["cannot import what launcher_jobs.imports_a_name needs: ", "'nothing'"]),
    ],
)
def test_error(case: str, texts: list[str], launched: dict[str, Launched]) -> None:
    assert launched[case].exit_code == 1
    for text in texts:
        assert text in launched[case].error


def test_an_error_shows_the_frames_of_the_job_only(launched: dict[str, Launched]) -> None:
    assert "launcher.py" not in launched["raises"].error


def test_a_lone_surrogate_is_kept_or_refused_but_never_lost(launched: dict[str, Launched]) -> None:
    result = launched["surrogate"].result
    assert result is not None
    assert result.ok is (result.error is None)


def test_a_process_that_exits_at_once_leaves_no_result(launched: dict[str, Launched]) -> None:
    assert (launched["exits at once"].exit_code, launched["exits at once"].result) == (3, None)


def test_a_python_without_jobflow_is_named(tmp_path: Path) -> None:
    prepare(tmp_path / "run", jobs.give(1))
    done = launch(tmp_path / "run", python_path=[])
    assert last_line(done) == (
        f"CannotImportError: worker 'w1': {sys.executable} has no module 'jobflow': `{sys.executable} -m pip "
        "install jobflow` there, or set `python:` to a Python that has it"
    )
    assert (done.exit_code, done.result and done.result.jobflow) == (1, "")


def test_a_jobflow_without_its_own_dependency_is_named(tmp_path: Path, site: Path) -> None:
    maimed = tmp_path / "packages"
    maimed.mkdir()
    for entry in site.iterdir():
        if entry.name != "maggma":
            (maimed / entry.name).symlink_to(entry.resolve())
    prepare(tmp_path / "run", jobs.give(1))
    error = last_line(launch(tmp_path / "run", python_path=[maimed]))
    assert f"worker 'w1': {sys.executable} has no module 'maggma', which jobflow needs: install" in error


def last_line(done: Launched) -> str:
    """What ``get jobs`` shows of an error."""
    return done.error.strip().splitlines()[-1]


def test_a_failed_import_shows_the_frames_of_the_job_only(launched: dict[str, Launched]) -> None:
    for case in ("no package", "no function", "no dependency", "no package in mid-job"):
        assert "launcher.py" not in launched[case].error
        assert "contextlib" not in launched[case].error


def test_a_job_that_fails_tells_which_jobflow_it_had(launched: dict[str, Launched]) -> None:
    for case in ("raises", "no package", "replaces"):
        result = launched[case].result
        assert result is not None
        assert (result.jobflow, result.python) == (version("jobflow"), sys.version.split()[0])


def test_it_is_written_for_the_oldest_python_that_it_allows() -> None:
    ast.parse(Path(launcher.__file__).read_text(), feature_version=launch_module.OLDEST_PYTHON)


NO_PYTHON = """\
#!/bin/sh
# Knows nothing of annotations; asked for its version it tells the truth.
[ "$1" = -c ] || { echo "SyntaxError: future feature annotations is not defined" >&2; exit 1; }
exec %s -c "import sys; sys.version_info = (3, 6, 15); exec(sys.argv[1])" "$2"
"""


@pytest.mark.parametrize("kind", ["missing", "no program", "too old"])
@pytest.mark.parametrize("pre_run", ["", "set -eu"])
def test_a_python_that_cannot_run_it_is_named(
    kind: str, pre_run: str, make_world: Callable[..., World]
) -> None:
    world = make_world()
    python = world.root / "bin dir" / "python"
    if kind != "missing":
        python.parent.mkdir()
        python.write_text(NO_PYTHON % sys.executable)
        python.chmod(0o755 if kind == "too old" else 0o644)
    worker = world.worker("w1", python=str(python), pre_run=pre_run, post_run="touch after")
    world.repository.write("workers/workers.yaml", worker)
    world.flow("f", {"id": "j", "function": "give", "args": [1]})
    world.reconcile()
    world.run()
    job = world.job("f/j")
    assert job.state == "FAILED"
    assert job.error == (
        f"worker w1: {python} does not exist, does not run, or is older than Python 3.9; "
        "set `python:` of the worker to the path of a Python that has jobflow"
    )
    assert (Path(str(job.attempt.run_dir)) / "after").exists(), "post_run comes all the same"


def test_a_damaged_input_is_an_error_of_the_job(tmp_path: Path, site: Path) -> None:
    prepare(tmp_path / "run", jobs.give(1))
    (tmp_path / "run" / launcher.INPUT).write_text("{")
    assert "JSONDecodeError" in launch(tmp_path / "run", python_path=[site]).error


def test_a_result_that_is_too_large_is_kept_beside_the_error(tmp_path: Path, site: Path) -> None:
    run_dir, smaller = tmp_path / "run", tmp_path / "launcher.py"
    text = Path(launcher.__file__).read_text()
    assert "LARGEST_RESULT, LARGE = 256 << 20, 64 << 10" in text
    smaller.write_text(text.replace("LARGEST_RESULT, LARGE = 256 << 20", "LARGEST_RESULT, LARGE = 1 << 20"))
    prepare(run_dir, jobs.big(3))
    arguments, env = command(python_path=[site, CODE])
    done = subprocess.run([*arguments[:-1], str(smaller)], cwd=run_dir, env=env, capture_output=True)
    assert done.returncode == 1
    result = read_result((run_dir / launcher.RESULT).read_bytes())
    assert result.error is not None
    assert "the limit is 1 MB; keep large data in files" in result.error.traceback
    assert "too_large/ of its run directory" in result.error.traceback
    assert (result.packed, list(run_dir.glob(f"{launcher.DOCUMENTS}/*"))) == ([], []), "it is not fetched"
    (kept,) = (run_dir / launcher.TOO_LARGE).glob("*.msgpack")
    output = launcher.unpacked(kept.read_bytes())["output"]
    assert output == jobs.big.original(3)


def test_killed_while_it_writes_it_leaves_no_half_result(tmp_path: Path, site: Path) -> None:
    run_dir = tmp_path / "run"
    prepare(run_dir, jobs.big(60))
    arguments, env = command(python_path=[site, CODE])
    documents = run_dir / launcher.DOCUMENTS
    with subprocess.Popen(arguments, cwd=run_dir, env=env) as process:
        deadline = time.monotonic() + 180
        while not list(documents.glob(".*.partial")) and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [file.name[0] for file in documents.iterdir()] == ["."]
    assert not (run_dir / launcher.RESULT).exists()
