"""Access to one worker: the operations on many jobs, each of them one command on its host."""

from __future__ import annotations

import io
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from reconciler.errors import TransientError
from reconciler.execution import run_files
from reconciler.execution.batch import allocations, tickets
from reconciler.execution.batch.queue import BatchQueue
from reconciler.execution.claims import LEAVE
from reconciler.execution.hosts.base import CommandResult, Host, new_sentinel, read_sections, sections_script
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.hosts.local import expand
from reconciler.execution.problems import answer_of, describe_error
from reconciler.execution.qtk import STDERR
from reconciler.execution.queues.registry import queue_of
from reconciler.execution.worker import fetch, poll, prepare, submit, upload
from reconciler.execution.worker.fetch import AttemptFacts, CollectRequest
from reconciler.execution.worker.poll import PollResult
from reconciler.execution.worker.remote_cache import RemoteCache, RemoteCaches
from reconciler.execution.worker.submit import SubmitResult, WithdrawResult
from reconciler.execution.worker.termination import (
    AttemptEnd,
    end_with_result,
    end_without_result,
)
from reconciler.execution.worker.upload import BundleContents, Repository, UploadBundle, UploadResult
from reconciler.model.flows import is_run_dir
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import Allocation, JobRecord

_IN_MEMORY = 1 << 20
"""Bytes of an output that stay in memory; a larger one goes to a temporary file."""


class WorkerAccess:
    """The directory and the queue of one worker.

    ``transfer`` is the host for files, often the same as ``host``; both see the same directory.
    ``neighbours`` are the directories of other workers of the same account on the host, which share
    ``cache``. ``commands`` counts the commands for this worker, since its host can serve others too.
    """

    def __init__(
        self,
        name: str,
        spec: WorkerSpec,
        repository: Repository,
        host: Host,
        transfer: Host | None = None,
        *,
        cache: RemoteCache | None = None,
        neighbours: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.spec = spec
        self.repository = repository
        self.host = host
        self.transfer = transfer if transfer is not None else host
        self.paths = run_files.worker_paths(spec, expand)
        # Also without `batch`: jobs can be in allocations of an earlier revision.
        self.queue = BatchQueue(queue_of(spec.scheduler_type, spec.scheduler_username), self.paths, name)
        self.commands = 0
        self._cache = cache if cache is not None else RemoteCache()
        self._neighbours = neighbours
        self._forget: set[str] = set()
        self._discard: set[str] = set()

    @property
    def work_dir(self) -> str:
        """The worker's directory; it can begin with ``~/``."""
        return self.paths.work_dir

    # every pass ---------------------------------------------------------------------------------------

    def prepare(self, *, may_create: bool) -> None:
        """Check the worker's directory before its first use; make it if ``may_create``.

        Raises
        ------
        TransientError
            The worker does not answer, or its directory does not exist.
        """
        if self._cache.at(self.work_dir) is None:
            result = self._run(prepare.script(self.paths, self._neighbours, may_create=may_create))
            with answer_of(self.host.name, "the listing of code trees", result.stdout, result.stderr):
                found = prepare.read_inventory(result, self.paths, self.host.name, may_create=may_create)
            self._cache.put(self.work_dir, found.own)
            for number, names in found.of_neighbours.items():
                self._cache.put_neighbour(self._neighbours[number], names)

    def forget(self, markers: Iterable[str]) -> None:
        """Remove markers with the next poll."""
        self._forget.update(markers)

    def discard(self, directories: Iterable[str]) -> list[str]:
        """Remove run directories with the next poll; return those that are not in this work_dir and stay."""
        kept = []
        for path in directories:
            name, dot, number = path.rpartition("/")[2].partition(".")
            attempt = int(number) if number.isdigit() else 1
            if is_run_dir(path, name, attempt, self.work_dir) and bool(dot) == (attempt > 1):
                self._discard.add(path)
            else:
                kept.append(path)
        return kept

    def discard_allocations(self, names: Iterable[str]) -> None:
        """Remove the directories of allocations with the next poll."""
        self._discard.update(f"{self.queue.directory}/{name}" for name in names)

    def poll(self, ask: Mapping[str, str]) -> PollResult:
        """Remove files, list the outbox, and ask the queue for jobs: queue id -> name of the run directory.

        Raises
        ------
        TransientError
            The worker or its queue did not answer: nothing is known.
        """
        if self.host.is_local and not (ask or self._forget or self._discard):
            # Without a command, since the outbox of this machine is listed many times a second.
            try:
                return PollResult(set(os.listdir(self.paths.outbox)))  # noqa: PTH208 (names, not paths)
            except OSError as error:
                raise TransientError(f"cannot list {self.paths.outbox}: {error.strerror}") from error
        sentinel, forget, discard = new_sentinel(), sorted(self._forget), sorted(self._discard)
        text = poll.script(self.paths, self.queue, sentinel, forget=forget, discard=discard, ask=ask)
        output = self._run(text).stdout
        with answer_of(self.host.name, "a poll", output):
            result = poll.read_poll(read_sections(output, sentinel), self.queue, ask, self.paths)
        self._forget.difference_update(forget)
        self._discard.difference_update(discard)
        return result

    def tidy_up(self) -> None:
        """Remove files now; there may be no further poll.

        Raises
        ------
        TransientError
            The worker does not answer.
        """
        if self._forget or self._discard:
            self.poll({})

    # starting jobs ------------------------------------------------------------------------------------

    def take_inventory(self) -> None:
        """List launchers and code trees again with the next pass: one of them may have been removed."""
        self._cache.clear()

    @property
    def has_programs(self) -> bool:
        """Whether the programs of allocations are on the worker, as far as its inventory says."""
        return tickets.programs().keys() <= (self._cache.at(self.work_dir) or set())

    def upload(self, jobs: Sequence[JobRecord], contents: BundleContents) -> UploadResult:
        """Put all files of jobs into their run directories; may be repeated.

        Raises
        ------
        TransientError
            The worker does not answer, its disk is full, or the store of outputs cannot be read.
        """
        borrowed = self._cache.elsewhere(self.work_dir, {tree for job in jobs for tree in job.code})
        there = (self._cache.at(self.work_dir) or set()) | borrowed.keys()
        while True:
            bundle = UploadBundle(jobs, contents, self.repository, self.spec, self.paths, there)
            shared = bundle.shared
            text = upload.script(self.paths, jobs, shared.values(), secrets.token_hex(8), borrowed)
            try:
                result = self._run(text, self.transfer, data=upload.tar_stream(bundle.members()))
                uploads = upload.read_uploads(result, jobs, bundle.impossible, self.paths)
            except upload.MissingDocumentsError as error:
                self._cache.drop(self.work_dir, error.names)
                if not error.names & there:
                    raise  # just sent, and already gone
                there -= error.names
            except TransientError:
                self._cache.clear()  # missing files are sent again
                raise
            else:
                self._cache.put(self.work_dir, [*shared, *bundle.documents])
                return uploads

    def submit(self, jobs: Sequence[JobRecord]) -> SubmitResult:
        """Submit uploaded jobs. Those that were submitted before are recognised and not repeated.

        Raises
        ------
        TransientError
            The worker does not answer; :meth:`find` finds what it may have submitted.
        """
        if self.spec.batch is not None:
            return self._hand_over(jobs)
        sentinel = new_sentinel()
        answers = read_sections(self._run_one_by_one(submit.script(jobs, self.queue, sentinel)), sentinel)
        return submit.read_submissions(jobs, self.queue, answers)

    def _hand_over(self, jobs: Sequence[JobRecord]) -> SubmitResult:
        """Write the tickets of jobs, from which the agents of allocations take them."""
        text = tickets.handover_script(jobs, self.spec, self.paths, self.name, secrets.token_hex(8))
        result = self._run(text)
        if result.exit_code != 0:
            reason = result.stderr.strip()[-300:] or f"exit code {result.exit_code}"
            return SubmitResult(outage=f"cannot hand jobs over in {self.paths.work_dir}: {reason}")
        return SubmitResult({job.id: run_files.marker_name(job) for job in jobs})

    def allocate(self, wanted: Sequence[Allocation]) -> tuple[dict[str, str], str]:
        """Submit allocations; return their queue ids by name, and why others were not submitted.

        Raises
        ------
        InputError
            The scheduler cannot give the resources of the worker.
        TransientError
            The worker does not answer.
        """
        sentinel = new_sentinel()
        text = allocations.submission_script(self.name, self.spec, self.paths, self.queue, wanted, sentinel)
        return allocations.read_submissions(self.queue, wanted, self._run_one_by_one(text), sentinel)

    def agent_log(self, allocation: str) -> str:
        """Return the end of the log of an agent, for people.

        Raises
        ------
        TransientError
            The worker does not answer.
        """
        directory = run_files.shell_path(f"{self.queue.directory}/{allocation}")
        result = self._run(f"cd -- {directory} && tail -qc 1000 -- {STDERR} log 2>/dev/null; exit 0")
        return result.stdout.strip()

    def find(self, jobs: Sequence[JobRecord]) -> dict[str, str]:
        """Return the queue ids of those jobs that the queue knows by their name, by job id.

        Raises
        ------
        TransientError
            The worker or its queue did not answer.
        """
        if self.spec.batch is not None:  # a ticket can be written again
            return {}
        names = {run_files.name_in_queue(job): job.id for job in jobs}
        if not (command := self.queue.find_command(list(names))):
            return {}
        result = self._run(command)
        with answer_of(self.host.name, "the search for jobs", result.stdout, result.stderr):
            found = self.queue.found(list(names), result)
            return {names[name]: queue_id for name, queue_id in found.items()}

    def withdraw(self, jobs: Sequence[JobRecord], turns: Mapping[str, int] | None = None) -> WithdrawResult:
        """Take the claims of attempts before their scripts do.

        ``turns`` has the turn that has ended, by job id; see :mod:`~reconciler.execution.claims`.

        Raises
        ------
        TransientError
            The worker does not answer.
        """
        sentinel = new_sentinel()
        answers = read_sections(self._run_one_by_one(submit.withdraw_script(jobs, sentinel, turns)), sentinel)
        return submit.read_withdrawals(jobs, self.queue, answers)

    def leave(self, directories: Sequence[str]) -> dict[str, str]:
        """Take the claims of attempts that were given up; return the answers of ``LEAVE`` by run directory.

        Raises
        ------
        TransientError
            The worker does not answer.
        """
        sentinel = new_sentinel()
        calls = {
            str(number): f"reconciler_leave {run_files.shell_path(path)}"
            for number, path in enumerate(directories)
        }
        answers = read_sections(self._run_one_by_one(LEAVE + sections_script(calls, sentinel)), sentinel)
        return {
            path: answers[str(number)].stdout.strip()
            for number, path in enumerate(directories)
            if str(number) in answers
        }

    def cancel(self, queue_ids: Sequence[str]) -> dict[str, str]:
        """Cancel jobs in the queue; return why some cannot be cancelled, by queue id.

        Raises
        ------
        TransientError
            The worker or its queue did not answer.
        """
        result = self._run(self.queue.cancel_command(queue_ids))
        with answer_of(self.host.name, "a cancellation", result.stdout, result.stderr):
            return self.queue.cancelled(queue_ids, result)

    # collecting ---------------------------------------------------------------------------------------

    def collect(self, wanted: Sequence[CollectRequest]) -> Iterator[tuple[JobRecord, AttemptEnd]]:
        """Yield how attempts ended.

        An attempt is left out, to be requested again, if it is too early to tell or its result did not fit
        into the stream.

        Raises
        ------
        TransientError
            The worker does not answer, or its answer was cut off.
        """
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
            sentinel = new_sentinel()
            together = self.transfer is self.host
            text = fetch.script(wanted, self.paths, self.queue, sentinel, with_results=together)
            self._check_read(self._run(text, sink=spool))  # type: ignore[arg-type]
            spool.seek(0)
            facts = fetch.read_facts(spool, len(wanted), sentinel)  # type: ignore[arg-type]
            ends: dict[int, AttemptEnd] = {}
            for number, fact in facts.items():
                if fact.size is None:
                    try:
                        ends[number] = end_without_result(wanted[number], fact, self.queue)
                    except Exception as error:  # it concerns no other job
                        ends[number] = AttemptEnd(unknown=describe_error(error))
            for number, end in self._given_up(wanted, facts, ends).items():
                yield wanted[number].job, end
            directories = {
                number: wanted[number].job.attempt.run_dir or ""
                for number, fact in facts.items()
                if fact.size is not None and not fact.later
            }
            if directories:
                if not together:
                    spool.seek(0)
                    spool.truncate()
                    text = fetch.results_script(list(directories.values()))
                    self._check_read(self._run(text, self.transfer, sink=spool))  # type: ignore[arg-type]
                    spool.seek(0)
                names = {path.rpartition("/")[2]: number for number, path in directories.items()}
                for number, found in fetch.read_results(spool, names):  # type: ignore[arg-type]
                    try:
                        end = end_with_result(found.content, found.documents)
                    except Exception as error:
                        end = AttemptEnd(unknown=describe_error(error))
                    if end.result is not None:  # the launcher has linked them to where jobs find them
                        self._cache.put(self.work_dir, [one.sha256 for one in end.result.packed])
                    yield wanted[number].job, end

    def _given_up(
        self,
        wanted: Sequence[CollectRequest],
        facts: Mapping[int, AttemptFacts],
        ends: Mapping[int, AttemptEnd],
    ) -> dict[int, AttemptEnd]:
        """Take the claims of attempts that are given up, before a script can start late or again.

        An attempt whose script was faster is left out, to be requested again.
        """

        def can_start(number: int) -> bool:
            end, fact = ends[number], facts[number]
            if end.still_runs_as or end.unknown or end.too_early or end.in_doubt or fact.found == "gone":
                return False
            return self.queue.scheduler.is_batch or (wanted[number].lost and fact.found == "fresh")

        given_up = {number: wanted[number].job for number in ends if can_start(number)}
        if not given_up:
            return dict(ends)
        turns = {job.id: facts[n].turn for n, job in given_up.items() if facts[n].found == "claimed"}
        gone = self.withdraw(list(given_up.values()), turns).gone
        return {n: end for n, end in ends.items() if n not in given_up or given_up[n].id in gone}

    # running commands ---------------------------------------------------------------------------------

    def _run(
        self,
        text: str,
        host: Host | None = None,
        *,
        data: Iterable[bytes] | None = None,
        sink: BinaryIO | None = None,
    ) -> CommandResult:
        self.commands += 1
        return (host or self.host).run(text, self.spec.timeout_execute, data=data, sink=sink)

    def _run_one_by_one(self, text: str) -> str:
        """Run a script that takes its time for each of many jobs: the timeout is that of each output."""
        output = io.BytesIO()
        self._run(text, sink=output)
        return output.getvalue().decode(errors="replace")

    def _check_read(self, result: CommandResult) -> None:
        if result.exit_code != 0:
            reason = result.stderr.strip()[-300:] or f"exit code {result.exit_code}"
            raise TransientError(f"cannot read from {self.paths.work_dir} on {self.host.name}: {reason}")


class Accesses:
    """The access to each worker of a configuration by its name; made on first use, then always the same."""

    def __init__(
        self, workers: Mapping[str, WorkerSpec], repository: Repository, hosts: Hosts, caches: RemoteCaches
    ) -> None:
        self._workers, self._repository, self._hosts = workers, repository, hosts
        self._caches = caches
        self._known: dict[str, WorkerAccess] = {}

    def __call__(self, name: str) -> WorkerAccess:
        """Return the access to a worker."""
        if name not in self._known:
            spec = self._workers[name]
            host = self._hosts.of(spec.connection)
            own, *others = (
                run_files.worker_paths(other, expand).work_dir
                for other in (spec, *self._workers.values())
                if self._hosts.of(other.connection) is host
            )
            self._known[name] = WorkerAccess(
                name,
                spec,
                self._repository,
                host,
                self._hosts.of(spec.transfer_connection),
                cache=self._caches.of(host),
                neighbours=sorted(set(others) - {own}),
            )
        return self._known[name]
