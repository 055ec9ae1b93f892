"""One edit of an override rule that gives K jobs another worker and priority.

Measured twice: as a user pays for it (a whole process), and inside one process that has everything
imported, with the number of write transactions and the time of the one that patches. After each edit every
job is looked at: it has the new values, and an event that says so. PEER=1 makes the same edit with jobflow-
remote 1.0.1.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from statistics import median as middle

import msgspec
from _bench import Project, head, median, project, show
from _inside import Silent, TimedStore, cpu
from _peer import Peer, peer

from reconciler.actual.store import Store
from reconciler.desired.source.git import open_source
from reconciler.loop import Session, reconcile_once

RULE = """
apiVersion: reconciler/v1
kind: OverrideRule
metadata: {{name: urgent}}
spec: {{flows: [many], name_filter: value, set: {{worker: {worker}, priority: {priority}}}}}
"""

COUNTS = (10, 1_000, 10_000)
PEER_COUNTS = (10, 1_000)
WORKERS = ("w", "w2")
LAST_TRANSACTION = "import lmdb, sys; print(lmdb.open(sys.argv[1], readonly=True).info()['last_txnid'])"


class Cost(msgspec.Struct, frozen=True):
    """Seconds of wall time, of CPU with all children, and of the transaction that patched."""

    wall: float
    cpu: float
    write: float = 0.0


class Campaign:
    """Suspended jobs, and the edits that reach all of them."""

    def __init__(self, bench: Project, count: int) -> None:
        self.bench = bench
        self.count = count
        self.numbers = itertools.count(1)
        bench.flow("many", "many", count, suspend=True)
        bench.commit()
        bench.run("--once")

    def edit(self) -> int:
        """Commit the rule with a new priority, and the other worker; return the priority."""
        number = next(self.numbers)
        self.bench.write("rules/urgent.yaml", RULE.format(worker=WORKERS[number % 2], priority=number))
        self.bench.commit()
        return number

    def process(self) -> Cost:
        """Edit; measure ``reconcile --once``."""
        number = self.edit()
        before = cpu()
        wall = self.bench.run("--once")
        cost = Cost(wall, cpu() - before)
        self.check(number)
        return cost

    def plan(self) -> float:
        """Edit; measure ``reconcile plan``, and apply it then."""
        self.edit()
        took = self.bench.run("plan")
        self.bench.run("--once")
        return took

    def here(self) -> tuple[Cost, int]:
        """Edit; measure a whole pass in this process. Return also how many write transactions it made."""
        number = self.edit()
        written = self.last_transaction()
        store = TimedStore(self.bench.state_dir)
        try:
            with store.read() as view:
                changes = view.change_counter()
            before, started = cpu(), time.perf_counter()
            session = Session(open_source(str(self.bench.repo), None, "", self.bench.root / "mirrors"), store)
            reconcile_once(session, Silent())
            cost = Cost(time.perf_counter() - started, cpu() - before, store.longest)
            with store.read() as view:
                patching = view.change_counter() - changes
        finally:
            store.close()
        if patching != 1:
            raise SystemExit(f"{patching} write transactions touched jobs, not one")
        self.check(number)
        return cost, self.last_transaction() - written

    def last_transaction(self) -> int:
        """Return LMDB's own number of the last write transaction."""
        command = [sys.executable, "-c", LAST_TRANSACTION, str(self.bench.state_dir / "lmdb")]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def check(self, number: int) -> None:
        """Every job has the new values, as ``get jobs`` shows them, and its own event."""
        jobs = json.loads(self.bench.answer("get", "jobs", "-o", "json"))
        shown = [(job["worker"], job["priority"]) for job in jobs]
        if shown != [(WORKERS[number % 2], number)] * self.count:
            raise SystemExit(f"not every one of {self.count} jobs shows priority {number}")
        store = Store(self.bench.state_dir)
        try:
            with store.read() as view:
                for job in jobs:
                    (event,) = view.events(f"job/{job['key']}", limit=1)
                    changed = {change.field: change.new for change in event.changes}
                    if (event.type, changed.get("priority")) != ("Patched", number) or not event.revision:
                        raise SystemExit(f"{job['key']} has no event of its patch")
        finally:
            store.close()


def measure(count: int, theirs: Peer | None) -> None:
    """Measure one number of jobs; ``theirs`` is what jobflow-remote took."""
    beside = f"{_time(theirs.wall)} wall; CPU of its client {_time(theirs.cpu)}" if theirs is not None else ""
    allowed = f"{40 + 0.08 * count:.0f} ms"
    with project() as bench:
        campaign = Campaign(bench, count)
        whole = [campaign.process() for _ in range(5)]
        show(f"rule patches {count} jobs, process", middle(cost.wall for cost in whole), f"no-op + {allowed}")
        show("- its CPU, git included", middle(cost.cpu for cost in whole))
        inside = [campaign.here() for _ in range(4)][1:]  # the first one imports
        show(
            "- the pass alone, in one process",
            middle(cost.wall for cost, _ in inside),
            f"<= {allowed}",
            beside,
        )
        show("- its CPU, git included", middle(cost.cpu for cost, _ in inside))
        made = max(transactions for _, transactions in inside)
        show(f"- the one write transaction of {made} that patches", middle(cost.write for cost, _ in inside))
        show(f"plan of that, {count} jobs", median(campaign.plan, 3))


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 2 else f"{seconds:.1f} s"


def main() -> None:
    """Edit, commit and reconcile; only the reconcile is measured. Beside it: the same edit, planned only."""
    theirs = peer(PEER_COUNTS) if os.environ.get("PEER", "0") not in ("", "0") else {}
    head()
    for count in COUNTS:
        measure(count, theirs.get(count))


if __name__ == "__main__":
    main()
