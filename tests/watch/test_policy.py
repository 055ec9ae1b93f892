"""A daemon keeps the policy of the user, and notices when it changes."""

from __future__ import annotations

from pathlib import Path

from tests.watch.support import WatchWorld, eventually

TEXT = """\
apiVersion: reconciler/v1
kind: Policy
metadata: {{name: mine}}
spec:
  sources:
  - source: '*'
    callables: ['*']
    python_path: ['*']
    workers: ['*']
    hosts: ['*']
    features: [modules, export, pre_run, post_run, python]
    verify: {verify}
"""


def test_a_change_of_the_policy_counts_without_a_commit(watched: WatchWorld) -> None:
    file = watched.root / "policy.yaml"
    _write(file, "head")
    watched.log_flow("f")
    watched.commit()
    watch = watched.start("--interval", "1", "--policy", str(file))
    eventually(lambda: watch.told("reconcile-refused"), "a refusal of the unsigned commit", watch)
    assert not watched.jobs()
    _write(file, "none")
    watched.until_state("f/j", "COMPLETED")
    assert watch.end() == 0


def _write(file: Path, verify: str) -> None:
    file.write_text(TEXT.format(verify=verify))
    file.chmod(0o600)
