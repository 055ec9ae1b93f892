"""One command that submits many scripts, each at most once.

The scheduler's answer is kept in the run directory as soon as it is there, so that a submission whose
record was never written is found and not repeated. Only a host that dies between the two leaves a doubt; then
the job is looked for by its name, and the claim sees to it that even a job that is in the queue twice runs
once.

A scheduler that takes no more jobs of a user is asked no further: the first refusal of that kind is the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from reconciler.execution.hosts.base import CommandResult, sections_script
from reconciler.execution.queues.base import Queue
from reconciler.execution.run_files import CLAIM, SCRIPT, shell_path
from reconciler.model.records import JobRecord

ANSWER = "queue_answer"
_NO_DIRECTORY, _RUNS, _TOO_EARLY = 21, 22, 23
_FULL = 120  # none of qsub's exit codes, which are the low byte of an error


class SubmitResult(msgspec.Struct, frozen=True):
    """What became of submissions, by job id: queue ids, and why the scheduler refused.

    ``full`` is what it said when there was no room for more jobs; these can be submitted later. Of the others
    nothing is known: the scheduler gave no clear answer, ``doubt`` is what it said.
    """

    queue_ids: dict[str, str]
    refused: dict[str, str]
    doubt: str = ""
    full: str = ""


def script(jobs: Sequence[JobRecord], queue: Queue, sign: str) -> str:
    """Return the script that submits these jobs."""
    start = (
        "reconciler_submit() {\n"
        f'cd -- "$1" || exit {_NO_DIRECTORY}\n'
        f"if [ -s {CLAIM}/queue_id ]; then cat {CLAIM}/queue_id; exit {_RUNS}; fi\n"
        f"if [ -s {ANSWER} ]; then cat {ANSWER}; exit 0; fi\n"
        f"{_attempt(queue)}\n"
        f'printf "%s\\n" "$answer" > .{ANSWER}.partial && mv -f .{ANSWER}.partial {ANSWER}\n'
        'printf "%s\\n" "$answer"\n'
        "exit 0\n}\n"
    )
    calls = {str(number): f"reconciler_submit {_directory(job)}" for number, job in enumerate(jobs)}
    return start + sections_script(calls, sign)


def _attempt(queue: Queue) -> str:
    """Return shell text that submits, or ends: at once if there was no room for the one before."""
    submit = queue.submit_command(SCRIPT)
    if not queue.full:
        return f"answer=$( {submit} ) || exit"
    errors = f".{ANSWER}.errors"
    return (
        f'[ "${{section_code-}}" = {_FULL} ] && exit {_FULL}\n'
        f"answer=$( {{ {submit}; }} 2>{errors} ); code=$?; said=$(cat {errors}); rm -f {errors}\n"
        'printf "%s\\n" "$said" >&2\n'
        f"if [ $code -ne 0 ]; then {queue.full} && exit {_FULL}; exit $code; fi"
    )


def _directory(job: JobRecord) -> str:
    assert job.run_dir is not None
    return shell_path(job.run_dir)


def submitted(jobs: Sequence[JobRecord], queue: Queue, answers: Mapping[str, CommandResult]) -> SubmitResult:
    """Read what became of each."""
    queue_ids: dict[str, str] = {}
    refused: dict[str, str] = {}
    doubt = full = ""
    for number, job in enumerate(jobs):
        answer = answers.get(str(number))
        if answer is None:
            doubt = doubt or "the script was cut off"
        elif answer.exit_code == _FULL:
            full = full or _words(answer)
        elif (queue_id := _queue_id(answer, queue)) is not None:
            queue_ids[job.id] = queue_id
        elif answer.exit_code == 0 or not queue.refused(answer):
            doubt = doubt or _said(answer)
        else:
            refused[job.id] = _said(answer)
    return SubmitResult(queue_ids, refused, doubt, full)


def _queue_id(answer: CommandResult, queue: Queue) -> str | None:
    if answer.exit_code == _RUNS:
        return answer.stdout.strip() or None
    return queue.submitted_id(answer.stdout) if answer.exit_code == 0 else None


def _said(answer: CommandResult) -> str:
    return f"its script could not be submitted: {_words(answer)}"


def _words(answer: CommandResult) -> str:
    text = answer.stderr.strip() or answer.stdout.strip() or f"exit code {answer.exit_code}"
    return text[-500:]


def withdraw_script(jobs: Sequence[JobRecord], sign: str) -> str:
    """Return the script that takes the claims of jobs: their scripts end at once if they ever start."""
    take = (
        "reconciler_withdraw() {\n"
        'cd -- "$1" || exit 0\n'
        f"[ -s {ANSWER} ] && cat {ANSWER}\n"
        f"if mkdir {CLAIM} 2>/dev/null; then : > {CLAIM}/withdrawn; exit 0; fi\n"
        f"if [ -s {CLAIM}/queue_id ]; then cat {CLAIM}/queue_id >&2; exit {_RUNS}; fi\n"
        # A claim without a name is ours, or that of a script which is just about to write it.
        f'[ -e {CLAIM}/withdrawn ] || [ -n "$(find {CLAIM} -maxdepth 0 -mmin +1)" ] || exit {_TOO_EARLY}\n'
        "exit 0\n}\n"
    )
    calls = {str(number): f"reconciler_withdraw {_directory(job)}" for number, job in enumerate(jobs)}
    return take + sections_script(calls, sign)


class WithdrawResult(msgspec.Struct, frozen=True):
    """Jobs that will never run any more, queue ids of scripts that still wait, and jobs that run already.

    Of a job in none of these it is too early to tell.
    """

    gone: set[str]
    queued: list[str]
    running: dict[str, str]


def withdrawn(
    jobs: Sequence[JobRecord], queue: Queue, answers: Mapping[str, CommandResult]
) -> WithdrawResult:
    """Read which script was faster than the withdrawal."""
    result = WithdrawResult(set(), [], {})
    for number, job in enumerate(jobs):
        answer = answers.get(str(number))
        if answer is None:
            continue
        if answer.exit_code == _RUNS:
            result.running[job.id] = answer.stderr.strip()
        elif answer.exit_code == 0:
            result.gone.add(job.id)
            queue_id = queue.submitted_id(answer.stdout)
            result.queued.extend([queue_id] if queue_id else [])
    return result
