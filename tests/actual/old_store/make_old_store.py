"""Make a store that holds one of everything, as the program of this checkout writes it.

A later version must open such a store, migrate it and go on from it: ``test_old_store.py`` shows that. Run
this script when a version is about to change the schema of the store, with the version before that change:

    git worktree add /tmp/before <commit> && cd /tmp/before && make bootstrap
    .venv/bin/python <this file> <directory>

It writes ``store-<commit>.tar.gz`` and ``expected.json`` into the directory, prints the version it was run
with, and counts for each field of each record how many records have another value in it than its default. It
takes about a minute. The test passes ten minutes later: a retry and a cleanup are due then.

The script drives the real command line on a repository of its own. Jobs that must still be on their way wait
for a file ``~/go``. Some passes are killed by ``tests/**/killer.py`` of the checkout: a pass that dies before
it looks at a worker applies a commit and does nothing else. When all is as it should be, some jobs are killed
and the others end by themselves: what they leave is for the next version to take in.

Everything lies below ``PLACE``, whose name is long: whoever unpacks the archive replaces it, in every file,
by a shorter path that is filled up with slashes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

import reconciler
from reconciler.actual.store import Store

PLACE = Path("/tmp", "old-store-".ljust(155, "x"))
CHECKOUT = Path(reconciler.__file__).resolve().parent.parent
ACTIVE = {"CHECKED_OUT", "UPLOADED", "SUBMITTED", "RUNNING", "RUN_FINISHED", "DOWNLOADED"}
DESCRIBED = ("stages/first", "impossible/stuck")
OUTPUTS = ("eos-al/fit", "growing/itself", "growing/reads", "growing/spread")
PATIENCE = 120.0
"""Seconds until something that must happen counts as missed."""

Rows = dict[str, dict[str, Any]]

# the repository -------------------------------------------------------------------------------------------

CODE = '''\
"""Jobs that ask for other jobs, or that tell more than their output."""

from jobflow import Flow, Response, job

from reconciler.examples import value


def named(name, argument):
    new = value(argument)
    new.name = name
    return new


@job
def detours(a):
    return Response(output=a, detour=named("later", a + 1))


@job
def refers(a):
    new = named("told", a)
    return Response(output=[new.output], addition=new)


@job
def remembers(a):
    return Response(output=a, stored_data={"numbers": [a, 1.5], "why": None})


@job
def stops_children(a):
    return Response(output=a, stop_children=True)


@job
def stops_flow(a):
    return Response(output=a, stop_jobflow=True)


@job
def misplaces(a):
    new = named("nowhere", a)
    new.update_config({"manager_config": {"worker": "nowhere"}})
    return Response(output=a, addition=new)


@job
def fails(why):
    raise ValueError(why)


def breaks():
    raise ValueError("this flow has no jobs")
'''

SCHEDULER = """\
#!/bin/sh
# A PBS server of files on which no job can ever start: qsub, qstat and qdel, by the name of this program.
cd ~/pbs || exit 1
name=${0##*/}
[ ! -e down ] || { echo "$name: cannot connect to server pbs01 (errno=15010)" >&2; exit 162; }
for last; do :; done
case $name in
    qsub)
        id=$(($(ls | wc -l) + 100)).pbs01
        echo '{"job_state": "Q", "comment": "Can Never Run: Insufficient amount of resource: ncpus"}' > $id
        echo $id ;;
    qstat)
        [ -e "$last" ] || { echo "qstat: Unknown Job Id $last" >&2; exit 153; }
        printf '{\\n    "timestamp": 1,\\n    "Jobs": {"%s": %s}\\n}\\n' "$last" "$(cat "$last")" ;;
    qdel)
        rm "$last" ;;
esac
"""


def document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> str:
    """Return a manifest; its values are JSON, which is YAML."""
    meta = json.dumps({"name": name} | metadata)
    return f"apiVersion: reconciler/v1\nkind: {kind}\nmetadata: {meta}\nspec: {json.dumps(spec)}\n"


def job(key: str, function: str, *arguments: Any, **more: Any) -> dict[str, Any]:
    """Return a job of a flow; a bare function is one of ``reconciler.examples``."""
    path = function if "." in function else f"reconciler.examples.{function}"
    return {"id": key, "function": path, "args": list(arguments)} | more


def output(name: str) -> dict[str, str]:
    """Return a reference to the output of a job."""
    return {"$output": name}


# the world around the store -------------------------------------------------------------------------------


class Maker:
    """A repository, a home with the directories of the workers, a state, and the program run on them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home, self.state, self.clone = place / "home", place / "state", place / "repository"
        self.program, self.prefix = place / "program", place / "python"
        for directory in (self.home / "bin", self.home / "pbs", self.clone):
            directory.mkdir(parents=True)
        # By these names, so that no traceback in the store names a directory of this machine.
        self.program.symlink_to(CHECKOUT)
        self.prefix.symlink_to(sys.prefix)
        self.python = self.prefix / "bin" / "python"
        self._executable("python", f'#!/bin/sh\n{self._path}\nexec "{self.python}" "$@"\n')
        for name in ("qsub", "qstat", "qdel"):
            self._executable(name, SCHEDULER)
        self.git("init", "--quiet", "--initial-branch=main")

    def _executable(self, name: str, text: str) -> None:
        file = self.home / "bin" / name
        file.write_text(text)
        file.chmod(0o755)

    @property
    def _path(self) -> str:
        return f'export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{self.program}"'

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the program and for git."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self.home}/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(self.program),
            "USER": "ada",
            "LOGNAME": "ada",
            "LANG": "C.UTF-8",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_AUTHOR_NAME": "Ada Tester",
            "GIT_AUTHOR_EMAIL": "ada@example.invalid",
            "GIT_COMMITTER_NAME": "Ada Tester",
            "GIT_COMMITTER_EMAIL": "ada@example.invalid",
        }

    # the repository -----------------------------------------------------------------------------------

    def git(self, *arguments: str) -> str:
        """Run git in the clone."""
        return subprocess.run(
            ["git", *arguments],
            cwd=self.clone,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Write a file of the repository."""
        file = self.clone / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def put(self, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> None:
        """Write a manifest."""
        folder = {"Flow": "flows", "OverrideRule": "rules", "ExecConfig": "exec_configs", "Worker": "workers"}
        self.write(f"{folder[kind]}/{name}.yaml", document(kind, name, spec, **metadata))

    def flow(
        self, name: str, *jobs: dict[str, Any], metadata: dict[str, Any] | None = None, **spec: Any
    ) -> None:
        """Write a flow of jobs."""
        self.put("Flow", name, {"jobs": list(jobs)} | spec, **metadata or {})

    def remove(self, *flows: str) -> None:
        """Remove the manifests of flows."""
        for name in flows:
            (self.clone / "flows" / f"{name}.yaml").unlink()

    def commit(self, message: str) -> None:
        """Commit all that has changed."""
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={message}")

    # the program --------------------------------------------------------------------------------------

    def run(
        self, *arguments: str, kill_at: str = "", codes: Iterable[int] = (0,)
    ) -> subprocess.CompletedProcess[str]:
        """Run the program; ``kill_at`` is where it kills itself, ``codes`` are those that are fine."""
        program = ["-m", "reconciler"]
        if kill_at:
            program = [str(next((self.program / "tests").glob("**/killer.py")))]
        done = subprocess.run(
            [self.python, *program, "--state-dir", str(self.state), *arguments],
            cwd=self.clone,
            env=self.environment | ({"RECONCILER_TEST_KILL_AT": kill_at} if kill_at else {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        expected = {-signal.SIGKILL} if kill_at else set(codes)
        if done.returncode not in expected:
            raise SystemExit(
                f"reconcile {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def apply_only(self) -> None:
        """Apply the last commit; the program dies before it looks at a worker."""
        self.run("--once", "--allow-prune", kill_at="prepare:before:1")

    def listed(self, *arguments: str) -> Any:
        """Return what a verb prints as JSON."""
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def jobs(self) -> Rows:
        """Return the jobs that are no history, by key."""
        return {row["key"]: row for row in self.listed("get", "jobs")}

    def pass_until(self, states: dict[str, str]) -> None:
        """Make passes until jobs are in these states."""

        def reached() -> bool:
            self.run("--once", codes=(0, 2))
            jobs = self.jobs()
            missed.update({key: jobs.get(key, {}).get("state", "-") for key in states})
            return missed == states

        missed: dict[str, str] = {}
        wait_for(reached, f"jobs in {states}, and they are in", missed)

    def end(self, key: str, rows: Rows) -> None:
        """Kill the attempt of a job on a plain shell, with all that it has started."""
        os.killpg(int(rows[key]["queue_id"]), signal.SIGKILL)


def wait_for(true: Callable[[], bool], what: str, more: Any = "") -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what} {more}")
        time.sleep(0.1)


# the story ------------------------------------------------------------------------------------------------


def write_project(world: Maker) -> None:
    """The project, its workers, its code, and a part of the example campaign."""
    world.write(
        "reconciler.yaml",
        document(
            "Project",
            "old-store",
            {"defaults": {"worker": "local_shell", "priority": 1}, "python_path": ["lib"], "max_prune": 1},
        ),
    )
    shell = {"type": "local", "scheduler_type": "shell", "python": "~/bin/python"}
    world.put("Worker", "local_shell", shell | {"work_dir": "~/work/local_shell", "max_jobs": 20})
    world.put("Worker", "secondw", shell | {"work_dir": "~/work/secondw", "cleanup": {"after": "10m"}})
    world.put("Worker", "narrow", shell | {"work_dir": "~/work/narrow", "max_jobs": 1})
    request = {"select": "1:ncpus=4", "walltime": "01:00:00"}
    cluster = shell | {"scheduler_type": "pbs", "work_dir": "~/work/cluster", "resources": request}
    world.put("Worker", "cluster", cluster)
    world.put("ExecConfig", "gated", {"pre_run": "while [ ! -e ~/go ]; do sleep 0.1; done"})
    world.put("ExecConfig", "needs_go", {"pre_run": "test -e ~/go || exit 7"})
    world.put("OverrideRule", "later-elsewhere", {"name_glob": "later", "set": {"worker": "narrow"}})
    world.put("OverrideRule", "for-nobody", {"name_filter": "no such job", "set": {"priority": 3}})
    example = CHECKOUT / "example-repo"
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    shutil.copytree(example / "lib", world.clone / "lib", ignore=ignored)
    for path in (
        "exec_configs/single_thread.yaml",
        "exec_configs/anotherconfig.yaml",
        "rules/adds-on-second-worker.yaml",
        "rules/fits-first.yaml",
        "flows/arithmetic.yaml",
        "flows/eos-al.yaml",
    ):
        world.write(path, (example / path).read_text())
    world.write("lib/growing.py", CODE)
    world.write("data/numbers.txt", "1 2 3\n")


def begin_campaign(world: Maker) -> None:
    """Jobs that end: completed, failed, stopped, generated in all ways."""
    world.flow(
        "growing",
        job("itself", "self_replace", 2),
        job("list", "make_list", 1, 2),
        job("spread", "add_distributed", output("list"), config={"pass_manager_config": False}),
        job("detours", "growing.detours", 3, priority=2),
        job("after-detour", "add", output("detours"), 1, name="after detour"),
        job("remembers", "growing.remembers", 4),
        job("refers", "growing.refers", 5),
        job("reads", "value", output("refers")),
        job("stops", "growing.stops_children", 6),
        job("stopped", "value", output("stops")),
        metadata={"labels": {"campaign": "own"}},
    )
    world.flow(
        "failing",
        job("bad", "growing.fails", "no luck today"),
        job("never", "add", output("bad"), 1),
        job("indifferent", "value", output("bad"), config={"on_missing_references": "none"}),
    )
    world.flow("misplaced", job("misplaces", "growing.misplaces", 1))
    world.flow("halted", job("stops", "growing.stops_flow", 1), job("stopped", "value", output("stops")))
    world.flow("files", job("reads", "value", {"$path": "data/numbers.txt"}))
    world.flow("first-name", job("value", "value", 1))
    world.flow("labelled", job("value", "value", 2), metadata={"labels": {"kind": "valid"}})
    levels = {"worker": "secondw", "exec_config": "single_thread"}
    world.flow("tokens", job("value", "value", 3), rerun="once", **levels)
    world.flow("replaced", job("early", "value", 1))
    world.flow("removed", job("done", "value", 4))
    protected = {"annotations": {"reconciler/prune": "disabled"}}
    world.flow("protected", job("value", "value", 5), metadata=protected)
    world.commit("A campaign that ends")
    world.run("--once", "--wait", "--timeout", "120", codes=(1,))


def restore_and_watch(world: Maker) -> None:
    """A state that was restored once, and a daemon that failed, since git had lost a file of the revision."""
    backup = world.place / "backup.mdb"
    world.run("backup", str(backup))
    world.run("restore", str(backup), "--force")
    reads = job("reads", "value", {"$path": "data/numbers.txt"})
    world.flow("files", reads, metadata={"labels": {"reads": "data"}})
    world.commit("A label")
    name = world.git("rev-parse", "HEAD:flows/files.yaml")
    blob, away = world.clone / ".git" / "objects" / name[:2] / name[2:], world.place / "away"
    blob.rename(away)
    log = world.place / "watch.log"
    daemon = subprocess.Popen(
        [world.python, "-m", "reconciler", "--state-dir", str(world.state), "watch", "--log-file", str(log)],
        cwd=world.clone, env=world.environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: log.exists() and "git has lost" in log.read_text(), "a failure of the daemon")
    finally:
        daemon.terminate()
        daemon.wait()
        away.rename(blob)


def begin_long_jobs(world: Maker) -> None:
    """Jobs that run until ``~/go`` is there, that wait for those, and that wait for a retry."""
    gated = {"exec_config": "gated"}
    world.flow(
        "stages",
        job("first", "value", 1, priority=9, **gated),
        job("second", "value", 2),
        job("third", "value", output("first")),
        worker="narrow",
    )
    world.flow("by-hand", job("paused", "value", 1), job("stopped", "value", 2), worker="narrow")
    once = {"limit": 1, "on": ["lost"], "backoff": "1s"}
    world.flow(
        "cancelling",
        job("ended", "value", 1),
        job("again", "value", 2),
        job("lost", "value", 3, retries=once),
        job("after", "value", output("again"), exec_config={}),
        **gated,
    )
    world.flow("comeback", job("value", "value", 1, **gated))
    second = job("second", "value", output("first"))
    world.flow("orphaned", job("first", "value", 1, **gated), second, prune="orphan")
    world.flow("deleted", job("value", "value", 1, **gated), prune="delete")
    world.flow(
        "removed",
        job("done", "value", 4),
        job("runs", "value", 5, **gated),
        job("waits", "value", output("runs")),
    )
    world.flow("replaced", job("early", "value", 1), job("late", "value", output("early"), **gated))
    world.flow(
        "retrying",
        job("flaky", "value", 1, exec_config="needs_go"),
        job("after", "value", output("flaky")),
        retries={"limit": 2, "on": ["killed"], "backoff": "10m"},
    )
    world.flow(
        "impossible",
        job("stuck", "value", 1, worker="cluster"),
        retries={"limit": 1, "on": ["walltime"], "escalate": {"resources": {"walltime": "*2"}}},
    )
    world.flow("growing-late", job("detours", "growing.detours", 3), job("after", "value", output("detours")))
    world.commit("Long jobs")
    running = ["stages/first", "cancelling/ended", "cancelling/again", "cancelling/lost", "comeback/value"]
    running += ["orphaned/first", "deleted/value", "removed/runs", "replaced/late"]
    world.pass_until(
        dict.fromkeys(running, "RUNNING")
        | {"retrying/flaky": "FAILED", "impossible/stuck": "SUBMITTED", "growing-late/detours": "COMPLETED"}
        | {"growing-late/later": "READY", "stages/third": "WAITING", "by-hand/paused": "READY"}
    )
    world.run("--once")
    assert world.jobs()["impossible/stuck"]["stuck"]


def take_away_the_cluster(world: Maker) -> None:
    """A scheduler that does not answer for some tries."""
    (world.home / "pbs" / "down").touch()

    def fails() -> bool:
        world.run("--once")
        (row,) = (row for row in world.listed("get", "workers") if row["name"] == "cluster")
        return bool(row["failures"] >= 3)

    wait_for(fails, "three failures of the cluster")


def die_on_the_way(world: Maker) -> None:
    """A job that has left the store, one that is on its worker and not submitted, and one that is missing."""
    checked_out = job("checked-out", "value", 1, worker="secondw")
    world.flow("begun", checked_out)
    world.commit("A job that is checked out")
    world.run("--once", kill_at="upload:before:1")
    world.flow("begun", checked_out, job("uploaded", "value", 2))
    world.commit("A job that is uploaded")
    world.end("cancelling/lost", world.jobs())
    world.run("--once", kill_at="submit:before:1")


def change_everything(world: Maker) -> None:
    """Commits that patch, replace, rename, remove, suspend and break; no job on its way moves meanwhile."""
    world.put("OverrideRule", "hurry", {"flows": ["stages"], "name_glob": "first", "set": {"priority": 7}})
    elsewhere = {"worker": "local_shell", "resources": {}}
    world.put("OverrideRule", "elsewhere", {"flows": ["impossible"], "set": elsewhere})
    world.remove("comeback", "removed", "orphaned", "deleted", "protected", "first-name")
    world.flow("second-name", job("value", "value", 1), metadata={"previous_names": ["first-name"]})
    late = job("late", "value", output("early"), exec_config="gated")
    world.flow("replaced", job("early", "value", 2), late)
    halves = {"suspend": True, "suspend_reason": "the disk is full"}
    world.flow("suspended", job("first", "value", 1), job("second", "value", output("first")), **halves)
    world.put("Flow", "unbuildable", {"factory": {"function": "growing.breaks"}})
    world.put("Flow", "labelled", {"jbos": []}, labels={"kind": "invalid"})
    world.commit("Changes of all kinds")
    world.apply_only()
    world.flow("comeback", job("value", "value", 1, exec_config="gated"))
    world.commit("A flow that comes back")
    world.apply_only()


def ask_by_hand(world: Maker) -> None:
    """What people asked for while no reconcile was at work."""
    world.run("pause", "by-hand/paused")
    world.run("cancel", "by-hand/stopped")
    world.run("cancel", "cancelling/ended")
    world.run("rerun", "cancelling/again", "--yes")


def let_jobs_end(world: Maker) -> None:
    """Kill the jobs that are to be lost; the others end, and leave what they found."""
    rows = {row["key"]: row for row in world.listed("get", "jobs", "--all") if row["state"] == "RUNNING"}
    ending = {"stages/first", "comeback/value", "orphaned/first"}
    for key in rows.keys() - ending - {"cancelling/lost"}:
        world.end(key, rows)
    (world.home / "go").touch()
    outboxes = [world.home / "work" / rows[key]["run_worker"] / ".outbox" for key in ending]
    markers = [f"{rows[key]['uuid']}_{rows[key]['index']}.{rows[key]['attempt']}" for key in ending]
    found = [outbox / marker for outbox, marker in zip(outboxes, markers, strict=True)]
    wait_for(lambda: all(marker.exists() for marker in found), "the last jobs to end")
    (world.home / "pbs" / "down").unlink()
    wait_for(lambda: not processes_below(world.place), "the last processes", processes_below(world.place))


def processes_below(directory: Path) -> list[int]:
    """Return the processes that work in a directory or name it on their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            where, command = str((entry / "cwd").readlink()), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if where.startswith(str(directory)) or str(directory).encode() in command:
            found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


# what comes of it -----------------------------------------------------------------------------------------


def version() -> str:
    """Return the commit of the checkout; ``-changed`` says that its package is not as committed."""
    git = ["git", "-C", str(CHECKOUT)]
    head = subprocess.run(
        [*git, "rev-parse", "--short=7", "HEAD"], check=True, stdout=subprocess.PIPE, text=True
    )
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "reconciler"], check=False).returncode
    return head.stdout.strip() + ("-changed" if changed else "")


def listings(world: Maker) -> dict[str, Any]:
    """Return what the program says of the store."""
    return {
        "flows": world.listed("get", "flows"),
        "jobs": world.listed("get", "jobs", "--all"),
        "workers": world.listed("get", "workers"),
        "history": world.listed("history"),
        "described": {key: world.listed("describe", "job", key) for key in DESCRIBED},
        "outputs": {key: world.listed("output", key) for key in OUTPUTS},
        "fsck": world.listed("fsck"),
    }


def pack(world: Maker, file: Path, jobs: Iterable[dict[str, Any]]) -> None:
    """Write the archive: store, repository, and of the home what the next pass looks at."""
    copy = world.place / "data.mdb"
    world.run("backup", str(copy))  # complete, and without free pages
    bare = world.place / "repository.git"
    world.git("clone", "--quiet", "--bare", "--template=", ".", str(bare))
    world.git("--git-dir", str(bare), "remote", "remove", "origin")
    run_dirs = [
        Path(row["run_dir"])
        for row in jobs
        if row["state"] in ACTIVE or (row["run_worker"] == "secondw" and row["flow"] == "arithmetic")
    ]
    work = world.home / "work"
    shared = [path for name in (".outbox", ".launchers", ".code") for path in work.glob(f"*/{name}")]
    programs = [world.home / "bin" / name for name in ("qsub", "qstat", "qdel")]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(copy, "state/lmdb/data.mdb", filter=_plain)
        for path in sorted({bare, *programs, world.home / "go", world.home / "pbs", *shared, *run_dirs}):
            if path.exists():
                archive.add(path, str(path.relative_to(world.place)), filter=_plain)
    file.write_bytes(gzip.compress(raw.getvalue(), 9, mtime=0))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out whose file it was, and compiled code."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if "__pycache__" in entry.name else entry


def records(state: Path) -> list[msgspec.Struct]:
    """Return the records of a store whose fields are counted."""
    store = Store(state, read_only=True)
    try:
        with store.read() as view:
            config = view.config()
            single = [config, view.attempt(), view.outcome()]
            workers = [view.worker_status(name) for name in (config.workers if config is not None else ())]
            revisions = view.revisions()
            actions = [did for revision in revisions for did in revision.flows.values()]
            found = [*view.jobs(), *view.flows(), *view.events(), *revisions, *actions, *workers, *single]
            return [record for record in found if record is not None]
    finally:
        store.close()


def coverage(found: Iterable[msgspec.Struct]) -> dict[str, Counter[str]]:
    """Return by kind of record how many have another value in a field than its default.

    A field that is itself a group of fields of the same module is counted field by field.
    """
    table: dict[str, Counter[str]] = {}
    for record in found:
        counts = table.setdefault(type(record).__name__, Counter())
        counts["(records)"] += 1
        _count(record, counts, "")
    return table


def _count(record: msgspec.Struct, counts: Counter[str], prefix: str) -> None:
    for field in msgspec.structs.fields(record):
        value, default = getattr(record, field.name), field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if isinstance(value, msgspec.Struct) and type(value).__module__ == type(record).__module__:
            _count(value, counts, f"{prefix}{field.name}.")
        else:
            counts[prefix + field.name] += value != default


def main() -> None:
    """Make the store, and write it and what the program lists of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the two files are written")
    directory = parser.parse_args().directory.resolve()
    commit = version()
    print(f"reconciler {reconciler.__version__}, commit {commit}, of {CHECKOUT}")
    PLACE.mkdir(mode=0o700)
    try:
        world = Maker(PLACE)
        for step in (
            write_project,
            begin_campaign,
            restore_and_watch,
            begin_long_jobs,
            take_away_the_cluster,
            die_on_the_way,
            change_everything,
            ask_by_hand,
            let_jobs_end,
        ):
            print(f"{step.__name__.replace('_', ' ')} ...", flush=True)
            step(world)
        listed = listings(world)
        archive = directory / f"store-{commit}.tar.gz"
        pack(world, archive, listed["jobs"])
        expected = {"version": commit, "place": str(PLACE)} | listed
        (directory / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
        for kind, counts in coverage(records(world.state)).items():
            print(f"\n{kind}: {counts.pop('(records)')} records")
            for name, number in counts.items():
                print(f"    {name:<20} {number or 'none'}")
        print(f"\n{archive}: {archive.stat().st_size / 1024:.0f} KiB")
    finally:
        for pid in processes_below(PLACE):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(PLACE)


if __name__ == "__main__":
    main()
