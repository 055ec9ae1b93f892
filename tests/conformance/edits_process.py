"""A process that reconciles with one commit after the other, and says what each did and what it imported.

Run as ``python -m tests.conformance.edits_process REPOSITORY STATE COMMIT...``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from reconciler.actual.store import Store
from reconciler.desired.source.git import Source
from reconciler.loop import Session
from tests.conformance.edits_world import told
from tests.conformance.support import Silent


def main(repository: str, state: str, commits: list[str]) -> dict[str, Any]:
    """Reconcile with each commit."""
    store = Store(Path(state))
    source = Source(Path(repository) / ".git", Path(repository), None, "")
    plans = []
    for commit in commits:
        plan = Session(source, store, source.revision(commit)).reconcile(Silent()).plan
        with store.read() as view:
            jobs = {
                job.path: [job.state, job.config.worker_name, job.wanted is not None] for job in view.jobs()
            }
        errors = [diagnostic.message for diagnostic in plan.diagnostics if diagnostic.is_error]
        plans.append({"told": told(plan.effective), "jobs": jobs, "errors": errors})
    store.close()
    return {"plans": plans, "imported": sorted({name.partition(".")[0] for name in sys.modules})}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3:])))
