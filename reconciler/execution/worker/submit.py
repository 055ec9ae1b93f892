"""One command that submits many scripts, each at most once; and one that withdraws submissions.

The scheduler's answer is saved in the run directory immediately, so that a submission whose record was never
written is found and not repeated. Doubt remains only if a host dies between the two. Then the job is searched
for by its name, and thanks to the claim even a job that is in the queue twice runs once.

When a queue, partition, QOS or account accepts no more jobs, the other jobs of that command that ask for the
same are not tried.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

import msgspec

from reconciler.execution.claims import CLAIM, RUNS, WITHDRAW
from reconciler.execution.hosts.base import CommandResult, sections_script
from reconciler.execution.queues.base import Queue, Refusal
from reconciler.execution.run_files import SCRIPT, shell_path
from reconciler.model.records import JobRecord

ANSWER = "queue_answer"
_NO_DIRECTORY = 21
_TARGET_REFUSED = 120  # not an exit code of qsub; those are the low byte of an error


class SubmitResult(msgspec.Struct, frozen=True):
    """The result of submissions, by job id: queue ids, and what was refused, with the scheduler's message.

    ``refused`` jobs fail. Jobs in ``not_now`` can be submitted later, and so can jobs in ``target_refused``,
    whose queue, partition, QOS or account accepts none now. About jobs in none of these nothing is known,
    since the scheduler did not answer; ``outage`` is why.
    """

    queue_ids: dict[str, str] = {}
    refused: dict[str, str] = {}
    not_now: dict[str, str] = {}
    target_refused: dict[str, str] = {}
    outage: str = ""


def script(jobs: Sequence[JobRecord], queue: Queue, sentinel: str) -> str:
    """Return the script that submits these jobs; those with the same target should be neighbours."""
    submit = queue.submit_command(SCRIPT)
    if queue.target_refused:
        errors = f".{ANSWER}.errors"
        attempt = (
            f'[ "$2" = same ] && [ "${{section_code-}}" = {_TARGET_REFUSED} ] && exit {_TARGET_REFUSED}\n'
            f"answer=$( {{ {submit}; }} 2>{errors} ); code=$?; said=$(cat {errors}); rm -f {errors}\n"
            'printf "%s\\n" "$said" >&2\n'
            f"refused={shlex.quote(queue.target_refused)}\n"
            f"if [ $code -ne 0 ]; then [[ $said =~ $refused ]] && exit {_TARGET_REFUSED}; exit $code; fi"
        )
    else:
        attempt = f"answer=$( {submit} ) || exit"
    function = (
        "reconciler_submit() {\n"
        f'cd -- "$1" || exit {_NO_DIRECTORY}\n'
        f"owner=$(head -n 1 {CLAIM}/queue_id 2>/dev/null)\n"
        f'[ "$owner" = withdrawn ] && exit {_NO_DIRECTORY}\n'
        f'if [ -n "$owner" ]; then printf "%s\\n" "$owner"; exit {RUNS}; fi\n'
        f"if [ -s {ANSWER} ]; then cat {ANSWER}; exit 0; fi\n"
        f"{attempt}\n"
        f'printf "%s\\n" "$answer" > .{ANSWER}.partial && mv -f .{ANSWER}.partial {ANSWER}\n'
        'printf "%s\\n" "$answer"\n'
        "exit 0\n}\n"
    )
    targets = [target_of(job, queue) for job in jobs]
    same = [
        "same" if before == target else "" for before, target in zip(["", *targets], targets, strict=False)
    ]
    return function + _for_each("reconciler_submit", jobs, sentinel, same)


def target_of(job: JobRecord, queue: Queue) -> str:
    """Return what a job asks for that may accept no jobs: ``partition debug, qos short``."""
    return queue.scheduler.target_of(job.asked)


def read_submissions(
    jobs: Sequence[JobRecord], queue: Queue, answers: Mapping[str, CommandResult]
) -> SubmitResult:
    """Return the result of the submissions from the sections that the script printed."""
    result = SubmitResult({}, {}, {}, {})
    outage = ""
    message_of: dict[str, str] = {}
    for number, job in enumerate(jobs):
        answer = answers.get(str(number))
        if answer is None:
            outage = outage or "the script was cut off"
            continue
        text = answer.stderr.strip() or answer.stdout.strip() or f"exit code {answer.exit_code}"
        # The text that explains the usage of a command is not the reason.
        message = (re.split(r"^usage:", text, flags=re.MULTILINE | re.IGNORECASE)[0].strip() or text)[-500:]
        queue_id = None
        if answer.exit_code == RUNS:
            queue_id = next(iter(answer.stdout.split()), None)
        elif answer.exit_code == 0:
            queue_id = queue.submitted_id(answer.stdout)
        if queue_id is not None:
            result.queue_ids[job.id] = queue_id
            continue
        refusal: Refusal | None = Refusal.JOB
        if answer.exit_code == _TARGET_REFUSED:
            refusal = Refusal.TARGET
        elif answer.exit_code == 0:  # submitted, but under which id?
            refusal = None
        elif answer.exit_code != _NO_DIRECTORY:
            refusal = queue.refusal(answer)
        match refusal:
            case None:
                outage = outage or f"its script could not be submitted: {message}"
            case Refusal.FINAL:
                result.refused[job.id] = f"its script could not be submitted: {message}"
            case Refusal.TARGET:  # only the first job of a target has a message
                target = target_of(job, queue)
                text = message_of.setdefault(target, message) if answer.stderr.strip() else message_of[target]
                result.target_refused[job.id] = text
            case Refusal.JOB:
                result.not_now[job.id] = message
    return msgspec.structs.replace(result, outage=outage)


class WithdrawResult(msgspec.Struct, frozen=True):
    """Jobs that can never run any more, queue ids of scripts that still wait, and jobs that run already.

    About a job in none of these nothing is known yet.
    """

    gone: set[str]
    queued: list[str]
    running: dict[str, str]


def withdraw_script(jobs: Sequence[JobRecord], sentinel: str, turns: Mapping[str, int] | None = None) -> str:
    """Return the script that takes the claims of jobs, so that no script can run their attempts (again).

    ``turns`` has the turn that has ended, by job id; jobs without one must not have started.
    """
    function = (
        f"{WITHDRAW}"
        "reconciler_give_up() {\n"
        'cd -- "$1" || exit 0\n'
        f"[ -s {ANSWER} ] && cat {ANSWER}\n"
        'reconciler_withdraw "$2"; exit $?\n}\n'
    )
    known = turns or {}
    return function + _for_each(
        "reconciler_give_up", jobs, sentinel, [str(known.get(job.id, "''")) for job in jobs]
    )


def read_withdrawals(
    jobs: Sequence[JobRecord], queue: Queue, answers: Mapping[str, CommandResult]
) -> WithdrawResult:
    """Return the result of the withdrawals: a script can have been faster."""
    result = WithdrawResult(set(), [], {})
    for number, job in enumerate(jobs):
        answer = answers.get(str(number))
        if answer is None:
            continue
        if answer.exit_code == RUNS:
            result.running[job.id] = next(iter(answer.stderr.split()), "")
        elif answer.exit_code == 0:
            result.gone.add(job.id)
            queue_id = queue.submitted_id(answer.stdout)
            result.queued.extend([queue_id] if queue_id else [])
    return result


def _for_each(
    function: str, jobs: Sequence[JobRecord], sentinel: str, arguments: Sequence[str] | None = None
) -> str:
    calls = {}
    for number, job in enumerate(jobs):
        argument = f" {arguments[number]}" if arguments is not None else ""
        calls[str(number)] = f"{function} {shell_path(job.attempt.run_dir or '')}{argument}"
    return sections_script(calls, sentinel)
