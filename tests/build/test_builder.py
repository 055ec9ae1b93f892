"""The build process: each flow builds as if alone, whatever its code does and whatever is beside the user."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from reconciler.build.builder import BuildFailedError, FlowBuilder, external_jobs, missing_jobs
from reconciler.build.messages import frame, read_frame
from reconciler.desired.source.git import Source
from reconciler.desired.state import load_desired
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow
from tests.build.support import build
from tests.desired.test_flows import NoCache
from tests.jobs import odd_values
from tests.jobs.odd_values import REFUSED, TAKEN
from tests.support import Repository

JOBS = """
import os, random, subprocess, sys
from pathlib import Path
from jobflow import Flow, Job, job
from pydantic import BaseModel

@job
def give(x):
    return x

def named(name):
    made = give(1)
    made.name = name
    return made
"""

Build = Callable[..., list[BuiltFlow | str]]


class Bench:
    """A repository whose factories are written in the test, and the flows built one after the other."""

    def __init__(self, repository: Repository, state: Path) -> None:
        self.repository = repository
        self.state = state
        self.builder: FlowBuilder | None = None
        self.timeout = 60.0

    def start(self, *bodies: str, helper: str = "") -> tuple[FlowBuilder, list[DesiredFlow]]:
        """Commit a flow for each body of a factory; return the flows and a builder."""
        head = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec:\n"
        spec = f"  python_path: [lib]\n  build_timeout: {self.timeout}\n"
        self.repository.write("reconciler.yaml", head.format("Project", "p") + spec)
        code = JOBS
        for number, body in enumerate(bodies):
            lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
            code += f"\ndef make{number}():\n{lines}"
            flow = head.format("Flow", f"f{number}") + f"  factory: {{function: made.make{number}}}\n"
            self.repository.write(f"flows/f{number}.yaml", flow)
        self.repository.write("lib/made.py", code)
        self.repository.write("lib/helper.py", helper)
        self.repository.commit()
        source = Source(self.repository.path / ".git", self.repository.path, None, "")
        desired: DesiredState = load_desired(source, source.revision(), NoCache(), {}).state
        assert desired.diagnostics == []
        self.builder = FlowBuilder(source, desired, self.state)
        return self.builder, [desired.flows[name] for name in sorted(desired.flows)]

    def build(self, *bodies: str, helper: str = "") -> list[str]:
        """Build a flow for each body of a factory; return the names of its jobs, or its problem."""
        builder, flows = self.start(*bodies, helper=helper)
        found = []
        for flow in flows:
            try:
                built = build(builder, flow)
            except BuildFailedError as error:
                self.diagnostic = error.diagnostic
                found.append(error.diagnostic.message)
            else:
                found.append(", ".join(job.name for job in built.jobs))
        return found


@pytest.fixture
def bench(repository: Repository, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(repository, tmp_path / "state")
    yield made
    if made.builder is not None:
        made.builder.close()


CHANGES = {
    "directory": ("os.chdir('/')", "os.getcwd()"),
    "removed directory": ("p = Path('gone'); p.mkdir(); os.chdir(p); p.resolve().rmdir()", "os.getcwd()"),
    "environment": ("os.environ['X_LEFT'] = '1'", "os.environ.get('X_LEFT')"),
    "no environment": ("os.environ.clear()", "os.environ.get('PATH')"),
    "path": ("sys.path.insert(0, '/nowhere')", "sys.path[0]"),
    "no path": ("sys.path.clear()", "len(sys.path)"),
    "modules": ("sys.modules['jobflow'] = None", "sys.modules['jobflow'] is None"),
    "a patched library": ("import jobflow; jobflow.Job.__init__ = None", "Job.__init__ is None"),
    "a module of its own": ("import helper; helper.STATE.append(1)", "len(__import__('helper').STATE)"),
    "its own module": ("global LEFT; LEFT = 1", "globals().get('LEFT')"),
    "closed streams": ("os.close(0); os.close(1); os.close(2)", "os.fstat(1).st_mode > 0"),
    "signals": ("import signal; signal.alarm(1)", "__import__('time').sleep(1.5)"),
    "recursion": ("sys.setrecursionlimit(60)", "sys.getrecursionlimit()"),
}


@pytest.mark.parametrize(("change", "look"), CHANGES.values(), ids=CHANGES)
def test_a_flow_builds_as_if_alone(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, look: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    looks = f"return named(repr({look}))"
    first, _, last = bench.build(looks, f"{change}\nreturn named('changed')", looks, helper="STATE = []\n")
    assert first == last


def test_random_numbers_are_not_the_same_for_each_flow(bench: Bench) -> None:
    numbers = bench.build(*["return named(str(random.random()))"] * 3)
    assert len(set(numbers)) == 3


@pytest.mark.parametrize(
    "body",
    [
        "subprocess.run(['cat'], check=True)\nreturn named('ok')",
        "sys.stdin.read()\nreturn named('ok')",
        "os.read(0, 10)\nreturn named('ok')",
        "import select\nselect.select([0], [], [])\nreturn named('ok')",
        "try:\n    input()\nexcept EOFError:\n    return named('ok')",
    ],
)
def test_standard_input_is_empty(bench: Bench, body: str) -> None:
    bench.timeout = 20
    assert bench.build(body, "return named('next')") == ["ok", "next"]


@pytest.mark.parametrize(
    "body",
    [
        "print('x' * 200_000)\nreturn named('ok')",
        "os.write(1, b'\\0' * 1000)\nreturn named('ok')",
        "subprocess.run(['echo', 'hello'])\nreturn named('ok')",
    ],
)
def test_what_it_prints_is_no_answer(bench: Bench, body: str) -> None:
    assert bench.build(body, "return named('next')") == ["ok", "next"]


def test_a_process_that_it_leaves_behind_holds_nothing_up(bench: Bench) -> None:
    body = "import time\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)\nreturn named('ok')"
    bench.timeout = 20
    assert bench.build(body, "return named('next')") == ["ok", "next"]


def test_one_that_leaves_a_process_behind_and_dies(bench: Bench) -> None:
    body = "import time\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)\nos._exit(5)"
    bench.timeout = 20
    problem, other = bench.build(body, "return named('next')")
    assert "its build process ended with exit code 5" in problem
    assert other == "next"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("os._exit(7)", "its build process ended with exit code 7"),
        ("os.kill(os.getpid(), 9)", "its build process was killed by signal 9"),
        ("sys.exit('enough')", "make0 ended with exit code enough (lib/made.py:"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt (lib/made.py:"),
        ("raise BaseException('odd')", "BaseException: odd (lib/made.py:"),
        ("import helper", "SyntaxError"),
        ("return (lambda f: f(f))(lambda f: f(f))", "RecursionError: maximum recursion depth exceeded"),
        ("raise ValueError('caf\\udce9')", "ValueError: caf\\udce9 (lib/made.py:"),
        ("raise ValueError('x' * 10_000_000)", "ValueError: xxx"),
        ("raise ExceptionGroup('many', [ValueError('one')])", "ExceptionGroup: many (1 sub-exception)"),
        ("class T(BaseModel):\n    e: float\nT(e='n/a')", "ValidationError: 1 validation error for T\ne\n"),
        ("print('last words', file=sys.stderr); sys.stderr.flush(); os._exit(3)", "code 3: last words"),
        ("return 5", "'made.make0' returned an int, not a Flow or a Job"),
        ("x = give(1)\nx.index = 2 ** 70\nreturn x", "its index 1180591620717411303424 is not an"),
    ],
)
def test_whatever_it_does_the_next_flow_is_built(bench: Bench, body: str, problem: str) -> None:
    found, other = bench.build(body, "return named('next')", helper="def make(:\n")
    assert found.startswith("flow 'f0' cannot be built: ")
    assert problem in found
    assert "errors.pydantic.dev" not in found and "+---" not in found
    assert len(found) <= 1100
    assert other == "next"
    assert str(bench.diagnostic.location).startswith("flows/f0.yaml:5:")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("import functools\nf = functools.update_wrapper(functools.partial(named, 1), named)\nreturn give(f)",
         "args[0] is a functools.partial, but arrives as the function 'made.named'"),
        ("return Job(lambda: 1)", "its function is the function 'made.make0.<locals>.<lambda>', which"),
        ("return Flow([Flow([give({'x': [lambda: 1]})])])", "args[0].x[0] is the function 'made.make0.<l"),
    ],
)  # fmt: skip
def test_what_would_not_arrive_on_a_worker_is_named(bench: Bench, body: str, problem: str) -> None:
    (found,) = bench.build(body)
    assert found.startswith("flow 'f0' cannot be built: the job '")
    assert f"' cannot be sent to a worker: {problem}" in found
    assert bench.diagnostic.hint is not None and bench.diagnostic.hint.startswith("define it with `def`")


def test_an_argument_of_a_manifest_that_would_not_arrive_is_pointed_at(
    bench: Bench, repository: Repository
) -> None:
    head = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec:\n"
    code = f"{JOBS}\ndef adding():\n    return lambda x: x\n"
    repository.write("lib/made.py", code)
    repository.write("reconciler.yaml", head.format("Project", "p") + "  python_path: [lib]\n")
    jobs = "  jobs:\n    - {id: b, function: made.give, args: [{$output: a}]}\n"
    jobs += "    - id: a\n      function: made.give\n      kwargs:\n        x: {$call: made.adding}\n"
    repository.write("flows/f.yaml", head.format("Flow", "f") + jobs)
    repository.commit()
    source = Source(repository.path / ".git", repository.path, None, "")
    desired = load_desired(source, source.revision(), NoCache(), {}).state
    bench.builder = FlowBuilder(source, desired, bench.state)
    with pytest.raises(
        BuildFailedError, match=r"the job 'a' cannot be sent to a worker: kwargs.x is"
    ) as caught:
        build(bench.builder, desired.flows["f"])
    assert str(caught.value.diagnostic.location) == "flows/f.yaml:10:12"


def test_text_that_is_not_utf8_becomes_printable(bench: Bench) -> None:
    assert bench.build("return named('caf\\udce9')") == ["caf\\udce9"]


@pytest.mark.parametrize("name", ["json", "jobflow", "typing", "helper", "msgspec", "reconciler"])
def test_a_file_beside_the_user_is_never_imported(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trap, trace = tmp_path / "trap", tmp_path / "ran"
    trap.mkdir()
    (trap / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    monkeypatch.chdir(trap)
    bodies = ["import json, typing, helper\nreturn named('ok')"]
    assert bench.build(*bodies, helper="x = 1\n") == ["ok"]
    assert not trace.exists()


def test_a_library_that_one_flow_needs_is_imported_once(bench: Bench) -> None:
    """Importing atomate2 for each of a hundred flows would take minutes."""
    body = "was = 'xml.sax.saxutils' in sys.modules\nimport xml.sax.saxutils\nreturn named(str(was))"
    assert bench.build(body, body, body) == ["False", "True", "True"]


@pytest.mark.parametrize("package", ["doctest.testsource", "pdb.Pdb.do_where", "pdb.find_function"])
def test_a_module_of_the_repository_is_found_although_an_earlier_flow_imported_one_of_its_name(
    bench: Bench, repository: Repository, package: str
) -> None:
    """Each of these functions imports the ``cmd`` of the standard library."""
    head = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec:\n"
    repository.write("reconciler.yaml", head.format("Project", "p") + "  python_path: [lib]\n")
    repository.write("lib/made.py", f"{JOBS}\ndef make():\n    import cmd\n    return named(cmd.WHOSE)\n")
    repository.write("lib/cmd.py", "WHOSE = 'ours'\n")
    jobs = f"  jobs: [{{id: a, function: {package}, args: [1, 2]}}]\n"
    repository.write("flows/a.yaml", head.format("Flow", "a") + jobs)
    repository.write("flows/b.yaml", head.format("Flow", "b") + "  factory: {function: made.make}\n")
    repository.commit()
    source = Source(repository.path / ".git", repository.path, None, "")
    desired = load_desired(source, source.revision(), NoCache(), {}).state
    bench.builder = FlowBuilder(source, desired, bench.state)
    for flow in desired.flows.values():
        bench.builder.start(flow, {})
    built = {flow.name: found for flow, found in (bench.builder.next() for _ in desired.flows)}
    assert [job.name for job in built["b"].jobs] == ["ours"]


def test_an_unexpected_error_of_ours_stops_one_flow_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = FlowBuilder._request, []

    def request(self: FlowBuilder, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("at every boundary")
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(FlowBuilder, "_request", request)
    found, other = bench.build("return named('first')", "return named('next')")
    assert "unexpected ZeroDivisionError: at every boundary" in found
    assert other == "next"


def test_code_that_git_has_lost_stops_one_flow_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.errors import LostError

    original, calls = Source.extract, []

    def extract(self: Source, tree: str, target: Path) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise LostError(f"git has lost the code {tree}", hint="git fetch")
        original(self, tree, target)

    monkeypatch.setattr(Source, "extract", extract)
    found, other = bench.build("return named('first')", "return named('next')")
    assert "git has lost the code" in found
    assert bench.diagnostic.hint == "git fetch"
    assert other == "next"


def test_its_processes_find_the_code_and_the_python(bench: Bench) -> None:
    script = "import helper; print(helper.X)"
    body = f"done = subprocess.run([sys.executable, '-c', {script!r}], capture_output=True, text=True)\n"
    assert bench.build(f"{body}return named(done.stdout.strip())", helper="X = 'found'\n") == ["found"]


def test_nothing_is_left_open(bench: Bench) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    bench.build("return named('ok')", "return named('ok')")
    assert bench.builder is not None
    bench.builder.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert sys.stdin is not None


@pytest.mark.parametrize("paths", ["", ":", ".", ":/nowhere", "relative"])
def test_no_python_path_means_the_directory_of_the_user(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: str
) -> None:
    """``PYTHONPATH=$PYTHONPATH:/x`` is a common slip, and means the current directory."""
    trap, trace = tmp_path / "trap", tmp_path / "ran"
    (trap / "relative").mkdir(parents=True)
    for place in (trap, trap / "relative"):
        (place / "json.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PYTHONPATH", paths)
    script = "import json"
    body = "import json\n"
    body += f"subprocess.run([sys.executable, '-P', '-c', {script!r}], check=True)\nreturn named('ok')"
    assert bench.build(body) == ["ok"]
    assert not trace.exists()


def test_the_program_does_not_import_what_lies_beside_the_user(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    for name in ("click", "msgspec", "typing_extensions"):
        (tmp_path / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    done = subprocess.run(
        [sys.executable, "-m", "reconciler", "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not trace.exists()


@pytest.mark.parametrize(
    ("reference", "hint"), [("other/zebra", "known: made"), ("other/mode.x[0]", "did you mean 'made'?")]
)
def test_a_job_that_a_built_flow_does_not_have(
    bench: Bench, repository: Repository, reference: str, hint: str
) -> None:
    head = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec:\n"
    repository.write("lib/made.py", f"{JOBS}\ndef make():\n    return named('made')\n")
    repository.write("reconciler.yaml", head.format("Project", "p") + "  python_path: [lib]\n")
    repository.write("flows/o.yaml", head.format("Flow", "other") + "  factory: {function: made.make}\n")
    needing = f"  jobs:\n    - {{id: a, function: made.give, args: [{{$output: '{reference}'}}]}}\n"
    repository.write("flows/n.yaml", head.format("Flow", "needing") + needing)
    repository.commit()
    source = Source(repository.path / ".git", repository.path, None, "")
    desired = load_desired(source, source.revision(), NoCache(), {}).state
    bench.builder = FlowBuilder(source, desired, bench.state)
    built = {"other": build(bench.builder, desired.flows["other"])}
    assert external_jobs(desired.flows["needing"], built) is None
    problem = missing_jobs(desired.flows["needing"], built)
    assert problem is not None
    assert "flow 'other' does not have a job" in problem.message
    assert problem.hint == hint
    assert str(problem.location) == "flows/n.yaml:6:53"
    assert missing_jobs(desired.flows["other"], built) is None


def test_an_attribute_that_an_output_does_not_have(bench: Bench, repository: Repository) -> None:
    """Known when building if the job declares its output."""
    head = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec:\n"
    code = f"{JOBS}\nclass Doc(BaseModel):\n    energy: float\n\n"
    code += "@job(output_schema=Doc)\ndef typed():\n    pass\n"
    repository.write("lib/made.py", code)
    repository.write("reconciler.yaml", head.format("Project", "p") + "  python_path: [lib]\n")
    jobs = "  jobs:\n    - {id: a, function: made.typed}\n"
    jobs += "    - {id: b, function: made.give, args: [{$output: a.enrgy}]}\n"
    repository.write("flows/f.yaml", head.format("Flow", "f") + jobs)
    repository.commit()
    source = Source(repository.path / ".git", repository.path, None, "")
    desired = load_desired(source, source.revision(), NoCache(), {}).state
    bench.builder = FlowBuilder(source, desired, bench.state)
    with pytest.raises(BuildFailedError) as caught:
        build(bench.builder, desired.flows["f"])
    problem = caught.value.diagnostic
    assert "'a.enrgy'" in problem.message and "Doc" in problem.message and "'enrgy'" in problem.message
    assert str(problem.location) == "flows/f.yaml:7:53"
    assert problem.hint == "did you mean 'energy'?"


@pytest.fixture(params=[1, 2])
def outcomes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[..., list[str]]:
    """Starts flows before any is finished, and returns what became of each; with one process and two."""
    monkeypatch.setattr(FlowBuilder, "_ahead", 64 if request.param == 1 else 2)
    monkeypatch.setattr("reconciler.build.builder._SECOND_AFTER", 0.0)

    def outcomes(*bodies: str) -> list[str]:
        builder, flows = bench.start(*bodies)
        builder._most_lines = request.param
        for flow in flows:
            builder.start(flow, {})
        found = {}
        most = 0
        while builder.unfinished:
            flow, done = builder.next()
            most = max(most, len(builder._lines))
            failed = isinstance(done, BuildFailedError)
            found[flow.name] = done.diagnostic.message if failed else done.jobs[0].name
        assert most == request.param
        return [found[flow.name] for flow in flows]

    return outcomes


def test_flows_that_wait_are_built_when_their_process_has_died(outcomes: Callable[..., list[str]]) -> None:
    deadly = "os.kill(os.getppid(), 9)\nimport time\ntime.sleep(60)"
    bodies = [f"return named('{number}')" for number in range(9)]
    bodies[2] = bodies[7] = deadly
    found = outcomes(*bodies)
    assert [one for number, one in enumerate(found) if number not in (2, 7)] == list("0134568")
    assert all("its build process was killed by signal 9" in found[number] for number in (2, 7))


def test_the_deadline_of_a_flow_begins_with_its_own_build(
    bench: Bench, outcomes: Callable[..., list[str]]
) -> None:
    bench.timeout = 5
    slow = "import time\ntime.sleep(1)\nreturn named('slow')"
    found = outcomes(slow, slow, slow, "import time\ntime.sleep(60)", slow, slow, slow)
    assert found.pop(3).endswith("building took longer than 5 s")
    assert found == ["slow"] * 6


def test_large_requests_and_answers_do_not_wait_for_each_other(
    outcomes: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = {"not used": "x" * 300_000}  # larger than a pipe
    ask = FlowBuilder._request
    monkeypatch.setattr(FlowBuilder, "_request", lambda *of: msgspec.structs.replace(ask(*of), files=large))
    bodies = [f"made = give('z' * 300_000)\nmade.name = '{number}'\nreturn made" for number in range(6)]
    assert outcomes(*bodies) == list("012345")


def test_flows_that_are_built_fast_are_sent_in_advance_and_slow_ones_are_not(bench: Bench) -> None:
    builder, _ = bench.start("return named('x')")
    builder._began, builder._answers = time.monotonic() - 10, 10_000
    assert 30 <= builder._ahead <= 64
    builder._answers = 10
    assert builder._ahead == 1


def test_the_code_of_a_flow_cannot_find_the_next_request_in_its_memory() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as stream, os.fdopen(writing, "wb") as other:
        other.write(frame(b"first") + frame(b"second"))
        other.flush()
        assert read_frame(stream) == b"first"
        assert os.read(reading, 100) == frame(b"second")
        other.write(frame(b"broken off")[:-1])
        other.close()
        assert read_frame(stream) is None


def odd_config(values: str) -> str:
    """Return the body of a factory whose jobs have the ``manager_config`` values of a list of the helper."""
    return f"""
import helper
from jobflow import JobConfig
jobs = [named(f"j{{n}}") for n, _ in enumerate({values})]
for made, (config, _) in zip(jobs, {values}):
    made.config = JobConfig(manager_config=config)
return Flow(jobs)
"""


def test_odd_run_config_of_a_factory_is_taken_or_stops_one_flow_only(bench: Bench) -> None:
    """The same values as of generated jobs: see tests/jobs/test_job_checks.py."""
    bodies = [odd_config(f"helper.REFUSED[{number}:{number + 1}]") for number in range(len(REFUSED))]
    builder, flows = bench.start(
        *bodies, odd_config("helper.TAKEN"), helper=Path(odd_values.__file__).read_text(encoding="utf-8")
    )
    for flow in flows:
        number = int(flow.name.removeprefix("f"))
        if number < len(REFUSED):
            with pytest.raises(BuildFailedError) as caught:
                build(builder, flow)
            assert REFUSED[number][1] in caught.value.diagnostic.message
            continue
        for job, (given, wanted) in zip(build(builder, flow).jobs, TAKEN, strict=True):
            assert job.own == wanted, given
