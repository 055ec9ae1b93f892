"""Jobs on a Slurm over ssh, both started for this on the loopback address: commands on the host, and speed.

A pass is one call of the executor in which the host was given a command. Beside each run stands what plain
``sbatch`` takes for the very same scripts: submitted one after the other, until all have ended. The cluster
runs four jobs at once; each is a Python that imports jobflow.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec
from _bench import PROJECT, Project, project
from rules import Silent

from reconciler.actual.store import Store
from reconciler.desired.source.git import open_source
from reconciler.execution.hosts.choice import Hosts
from reconciler.loop import Session
from reconciler.model.states import JobState

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.services.login import default_login
from tests.services.shared import SharedServices
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd

COUNTS = (20, 200)
AT_ONCE = 4
ALLOWED_BESIDES, ALLOWED_A_PASS = 10, 4


class Run(msgspec.Struct, frozen=True):
    """What a run cost: commands of each pass that gave any, seconds without the build, run directories."""

    passes: list[int]
    seconds: float
    directories: list[str]


@contextmanager
def cluster() -> Iterator[tuple[Slurm, Sshd]]:
    """Start Slurm and an sshd in whose sessions it is found; both end with the block."""
    services = SharedServices.of_this_process()
    try:
        services.open()
        slurm = Slurm(services.private("slurm"), cpus=AT_ONCE // 2)
        slurm.start()
        sshd = Sshd(services.private("sshd"), default_login(services.directory), env=slurm.env)
        sshd.start()
        yield slurm, sshd
    finally:
        services.close()


def over_ssh(bench: Project, sshd: Sshd, count: int) -> Run:
    """Run this many jobs that do nothing, with the Python of this program."""
    spec = {
        "type": "remote",
        "scheduler_type": "slurm",
        "work_dir": str(sshd.login.home / f"work-{count}"),
        **sshd.worker_fields(),
    }
    head = PROJECT.partition("---")[0].format()
    worker = "---\napiVersion: reconciler/v1\nkind: Worker\nmetadata: {name: w}\nspec: "
    bench.write("reconciler.yaml", head + worker + msgspec.json.encode(spec).decode() + "\n")
    bench.flow("many", "many", count, suspend=False)
    bench.commit()
    hosts = Hosts()
    with closing(Store(bench.state_dir)) as store, closing(hosts):
        source = open_source(str(bench.repo), None, "", bench.root / "mirrors")
        session = Session(source, store, hosts=hosts)
        session.reconcile(Silent())
        return _advanced(session)


def _advanced(session: Session) -> Run:
    """Move the jobs to their end, as ``reconcile --once --wait`` does."""
    executor, passes, began = session.executor(), list[int](), time.perf_counter()
    while not _is_idle(session.store):
        before = session.hosts.commands
        moved = executor.advance(time.time())
        if session.hosts.commands > before:
            passes.append(session.hosts.commands - before)
        if not moved:
            time.sleep(0.05)
    seconds = time.perf_counter() - began
    with session.store.read() as view:
        jobs = list(view.jobs())
    wrong = [f"{job.path}: {job.error}" for job in jobs if job.state is not JobState.COMPLETED]
    if wrong:
        raise SystemExit("\n".join(wrong))
    return Run(passes, seconds, [job.attempt.run_dir or "" for job in jobs])


def _is_idle(store: Store) -> bool:
    with store.read() as view:
        return view.is_idle()


def plain_sbatch(sshd: Sshd, directories: list[str]) -> float:
    """Return how long the same scripts take without us, in seconds.

    They are submitted in one ssh session, after what they left the first time was removed.
    """
    calls = "\n".join(f"(cd {directory} && sbatch submit.sh >/dev/null)" for directory in directories)
    for directory in directories:
        for name in ("result.json", "exit_code", "queue_id"):
            (Path(directory) / "claim" / name).unlink()
        (Path(directory) / "claim").rmdir()
    began = time.perf_counter()
    subprocess.run(sshd.command("bash", "-s"), input=calls, text=True, check=True)
    while not all((Path(directory) / "claim" / "exit_code").exists() for directory in directories):
        time.sleep(0.05)
    return time.perf_counter() - began


def main() -> None:
    """Measure; end with an error if a run took more commands than it may."""
    columns = ("passes", "commands", "a pass", "most", "jobs/s", "plain sbatch, jobs/s")
    print(f"| jobs on Slurm over ssh, 4 at a time | {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for count in COUNTS:
        with cluster() as (_, sshd), project() as bench:
            run = over_ssh(bench, sshd, count)
            bare = plain_sbatch(sshd, run.directories)
        passes, commands = len(run.passes), sum(run.passes)
        print(
            f"| {count} | {passes} | {commands} | {commands / passes:.1f} | {max(run.passes)} "
            f"| {count / run.seconds:.1f} | {count / bare:.1f} |",
            flush=True,
        )
        if commands > ALLOWED_BESIDES + ALLOWED_A_PASS * passes:
            raise SystemExit(f"{commands} commands in {passes} passes are too many")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
