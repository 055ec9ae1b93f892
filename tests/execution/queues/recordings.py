"""Recorded answers of schedulers."""

from __future__ import annotations

import shlex
from pathlib import Path

from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.queues.base import Queue, Refusal

_RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    """Return the text of a recorded answer."""
    return (_RECORDED / name).read_text(encoding="utf-8")


def answering(command: str, output: str = "", errors: str = "", code: int = 0) -> CommandResult:
    """Run a queue's command here with its programs replaced by one that prints a recorded answer."""
    programs = "\n".join(
        f"{name}() {{ printf %s {shlex.quote(output)}; printf %s {shlex.quote(errors)} >&2; return {code}; }}"
        for name in ("qsub", "qstat", "qdel", "qselect", "qacct")
    )
    return LocalHost().run(f"{programs}\n{command}", 60)


def refusal(queue: Queue, errors: str, code: int = 1) -> Refusal | None:
    """Return why a submission failed. Bash decides on the host about refusals of a target: it must agree."""
    found = queue.refusal(CommandResult(code, "", errors))
    script = f"said={shlex.quote(errors.rstrip())}\nrefused={shlex.quote(queue.target_refused)}\n"
    done = LocalHost().run(f"{script}if [[ $said =~ $refused ]]; then exit 0; else exit 120; fi", 30)
    assert not done.stderr
    if done.exit_code == 0:
        assert found is Refusal.TARGET, errors
    return found
