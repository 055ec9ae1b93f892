"""One command that submits many scripts, each at most once; and one that withdraws submissions.

The scheduler's answer is saved in the run directory immediately, so that a submission whose record was never
written is found and not repeated. Doubt remains only if a host dies between the two. Then the job is searched
for by its name, and thanks to the claim even a job that is in the queue twice runs once.

After a scheduler has refused a job because the user has too many, no further jobs of that command are tried.
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
_FULL = 120  # not an exit code of qsub; those are the low byte of an error


class SubmitResult(msgspec.Struct, frozen=True):
    """The result of submissions, by job id: queue ids, and why the scheduler refused.

    ``full`` is its message when it had no room for more jobs; those can be submitted later. About jobs in
    none of these nothing is known, since the scheduler gave no clear answer; ``doubt`` is its message.
    """

    queue_ids: dict[str, str]
    refused: dict[str, str]
    doubt: str = ""
    full: str = ""


def script(jobs: Sequence[JobRecord], queue: Queue, sentinel: str) -> str:
    """Return the script that submits these jobs."""
    submit = queue.submit_command(SCRIPT)
    if queue.full:
        errors = f".{ANSWER}.errors"
        attempt = (  # not tried if there was no room for the previous one
            f'[ "${{section_code-}}" = {_FULL} ] && exit {_FULL}\n'
            f"answer=$( {{ {submit}; }} 2>{errors} ); code=$?; said=$(cat {errors}); rm -f {errors}\n"
            'printf "%s\\n" "$said" >&2\n'
            f"if [ $code -ne 0 ]; then {queue.full} && exit {_FULL}; exit $code; fi"
        )
    else:
        attempt = f"answer=$( {submit} ) || exit"
    function = (
        "reconciler_submit() {\n"
        f'cd -- "$1" || exit {_NO_DIRECTORY}\n'
        f"if [ -s {CLAIM}/queue_id ]; then cat {CLAIM}/queue_id; exit {_RUNS}; fi\n"
        f"if [ -s {ANSWER} ]; then cat {ANSWER}; exit 0; fi\n"
        f"{attempt}\n"
        f'printf "%s\\n" "$answer" > .{ANSWER}.partial && mv -f .{ANSWER}.partial {ANSWER}\n'
        'printf "%s\\n" "$answer"\n'
        "exit 0\n}\n"
    )
    return function + _for_each("reconciler_submit", jobs, sentinel)


def read_submissions(
    jobs: Sequence[JobRecord], queue: Queue, answers: Mapping[str, CommandResult]
) -> SubmitResult:
    """Return the result of the submissions from the sections that the script printed."""
    queue_ids: dict[str, str] = {}
    refused: dict[str, str] = {}
    doubt = full = ""
    for number, job in enumerate(jobs):
        answer = answers.get(str(number))
        if answer is None:
            doubt = doubt or "the script was cut off"
            continue
        message = (answer.stderr.strip() or answer.stdout.strip() or f"exit code {answer.exit_code}")[-500:]
        queue_id = None
        if answer.exit_code == _RUNS:
            queue_id = answer.stdout.strip() or None
        elif answer.exit_code == 0:
            queue_id = queue.submitted_id(answer.stdout)
        if answer.exit_code == _FULL:
            full = full or message
        elif queue_id is not None:
            queue_ids[job.id] = queue_id
        elif answer.exit_code == 0 or not queue.refused(answer):
            doubt = doubt or f"its script could not be submitted: {message}"
        else:
            refused[job.id] = f"its script could not be submitted: {message}"
    return SubmitResult(queue_ids, refused, doubt, full)


class WithdrawResult(msgspec.Struct, frozen=True):
    """Jobs that can never run any more, queue ids of scripts that still wait, and jobs that run already.

    About a job in none of these nothing is known yet.
    """

    gone: set[str]
    queued: list[str]
    running: dict[str, str]


def withdraw_script(jobs: Sequence[JobRecord], sentinel: str) -> str:
    """Return the script that takes the claims of jobs, so that their own scripts end immediately."""
    function = (
        "reconciler_withdraw() {\n"
        'cd -- "$1" || exit 0\n'
        f"[ -s {ANSWER} ] && cat {ANSWER}\n"
        f"if mkdir {CLAIM} 2>/dev/null; then : > {CLAIM}/withdrawn; exit 0; fi\n"
        f"if [ -s {CLAIM}/queue_id ]; then cat {CLAIM}/queue_id >&2; exit {_RUNS}; fi\n"
        # A claim without a queue id is ours, or its script is about to write the id.
        f'[ -e {CLAIM}/withdrawn ] || [ -n "$(find {CLAIM} -maxdepth 0 -mmin +1)" ] || exit {_TOO_EARLY}\n'
        "exit 0\n}\n"
    )
    return function + _for_each("reconciler_withdraw", jobs, sentinel)


def read_withdrawals(
    jobs: Sequence[JobRecord], queue: Queue, answers: Mapping[str, CommandResult]
) -> WithdrawResult:
    """Return the result of the withdrawals: a script can have been faster."""
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


def _for_each(function: str, jobs: Sequence[JobRecord], sentinel: str) -> str:
    calls = {
        str(number): f"{function} {shell_path(job.attempt.run_dir or '')}" for number, job in enumerate(jobs)
    }
    return sections_script(calls, sentinel)
