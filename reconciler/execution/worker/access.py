"""One worker from the executor's side: the operations on many jobs, each of one command on its host."""

from __future__ import annotations

import io
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

import msgspec

from reconciler.errors import TransientError
from reconciler.execution import run_files
from reconciler.execution.hosts.base import CommandResult, Host, new_sentinel, read_sections
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.hosts.local import expand
from reconciler.execution.queues.base import Queue
from reconciler.execution.queues.registry import queue_of
from reconciler.execution.worker import fetch, poll, prepare, submit
from reconciler.execution.worker import unpack as uploads
from reconciler.execution.worker.fetch import AttemptFacts, CollectRequest
from reconciler.execution.worker.poll import PollResult
from reconciler.execution.worker.remote_cache import RemoteCache, RemoteCaches
from reconciler.execution.worker.submit import SubmitResult, WithdrawResult
from reconciler.execution.worker.termination import (
    AttemptEnd,
    ended_without_result,
    may_still_start,
    read_ending,
)
from reconciler.execution.worker.upload import BundleContents, Repository, UploadBundle, tar_stream
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import JobRecord

_SPOOLED = 1 << 20
"""Bytes of an answer that stay in memory; what is bigger goes to a temporary file."""


class Uploaded(msgspec.Struct, frozen=True):
    """What became of uploads, by job id: ready to start, used by an earlier life, impossible (and why).

    Of those used, ``ran`` are those whose script has begun.
    """

    ready: set[str]
    used: set[str]
    ran: set[str]
    impossible: dict[str, str]


class WorkerAccess:
    """The directory and the queue of one worker.

    ``transfer`` is the host for files, often the same as ``host``; both see the same directory.
    ``neighbours`` are the directories of other workers of the same account there, and ``shelf`` is what all
    of them have. ``commands`` counts what was run for this worker: its host may serve others too.
    """

    def __init__(
        self,
        name: str,
        spec: WorkerSpec,
        repository: Repository,
        host: Host,
        transfer: Host | None = None,
        *,
        shelf: RemoteCache | None = None,
        neighbours: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.spec = spec
        self.repository = repository
        self.host = host
        self.transfer = transfer if transfer is not None else host
        self.queue: Queue = queue_of(spec.scheduler_type, spec.scheduler_username)
        self.place = run_files.worker_paths(spec, expand)
        self.commands = 0
        self._shelf = shelf if shelf is not None else RemoteCache()
        self._neighbours = neighbours
        self._forget: set[str] = set()
        self._discard: set[str] = set()

    @property
    def work_dir(self) -> str:
        """The worker's directory; may begin with ``~/``."""
        return self.place.work_dir

    def marker(self, job: JobRecord) -> str:
        """Return the name of the marker that the current attempt of a job will drop."""
        return run_files.marker_name(job)

    # the pass -----------------------------------------------------------------------------------------

    def prepare(self, *, may_create: bool) -> None:
        """Look at the worker's directory, once; make it if ``may_create``.

        Raises
        ------
        TransientError
            The worker does not answer, or its directory is not there.
        """
        if self._shelf.at(self.work_dir) is None:
            result = self._run(prepare.script(self.place, self._neighbours, may_create=may_create))
            found = prepare.present(result, self.place, self.host.name, may_create=may_create)
            self._shelf.put(self.work_dir, found.own)
            for number, names in found.of_neighbours.items():
                self._shelf.notice(self._neighbours[number], names)

    def forget(self, markers: Iterable[str]) -> None:
        """Remove markers with the next poll."""
        self._forget.update(markers)

    def discard(self, directories: Iterable[str]) -> None:
        """Remove run directories with the next poll."""
        self._discard.update(directories)

    def poll(self, ask: Mapping[str, float]) -> PollResult:
        """Tidy up, list the outbox and ask the queue for jobs: queue id -> when submitted.

        Raises
        ------
        TransientError
            There was no answer: nothing is known.
        """
        if self.host.is_local and not (ask or self._forget or self._discard):
            return PollResult(self._listed())
        sign, forget, discard = new_sentinel(), sorted(self._forget), sorted(self._discard)
        text = poll.script(self.place, self.queue, sign, forget=forget, discard=discard, ask=ask)
        answers = read_sections(self._run(text).stdout, sign)
        seen = poll.seen(answers, self.queue, ask, self.place)
        self._forget.difference_update(forget)
        self._discard.difference_update(discard)
        return seen

    def _listed(self) -> set[str]:
        """The outbox of this machine, without a command: it is looked at many times a second."""
        try:
            return set(os.listdir(self.place.outbox))  # noqa: PTH208 (names, not paths)
        except OSError as error:
            raise TransientError(f"cannot list {self.place.outbox}: {error.strerror}") from error

    def tidy_up(self) -> None:
        """Remove what is to be removed without waiting for the next poll, which may never come.

        Raises
        ------
        TransientError
            The worker does not answer.
        """
        if self._forget or self._discard:
            self.poll({})

    # uploading ----------------------------------------------------------------------------------------

    def upload(self, jobs: Sequence[JobRecord], contents: BundleContents) -> Uploaded:
        """Bring everything that jobs need into their run directories; may be repeated.

        Raises
        ------
        TransientError
            The worker does not answer, its disk is full, or the store of outputs cannot be read.
        """
        borrowed = self._shelf.elsewhere(self.work_dir, {tree for job in jobs for tree in job.code})
        there = (self._shelf.at(self.work_dir) or set()) | borrowed.keys()
        freight = UploadBundle(jobs, contents, self.repository, self.spec, self.place, there)
        shared = freight.shared
        text = uploads.script(self.place, jobs, list(shared.values()), secrets.token_hex(8), borrowed)
        try:
            result = self._run(text, self.transfer, data=tar_stream(freight.parcels()))
            outcome = uploads.uploaded(result, self.place)
        except TransientError:
            self._shelf.clear()  # whatever is missing is sent again
            raise
        self._shelf.put(self.work_dir, shared)
        return Uploaded(
            ready={jobs[number].id for number in outcome.placed},
            used={jobs[number].id for number in outcome.used},
            ran={jobs[number].id for number in outcome.ran},
            impossible=freight.impossible,
        )

    # around the start ---------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[JobRecord]) -> SubmitResult:
        """Submit what was uploaded; what was submitted before is recognised and not repeated.

        Raises
        ------
        TransientError
            The worker does not answer; what it may have submitted is found next time.
        """
        sign = new_sentinel()
        answers = read_sections(self._run_one_by_one(submit.script(jobs, self.queue, sign)), sign)
        return submit.submitted(jobs, self.queue, answers)

    def find(self, jobs: Sequence[JobRecord]) -> dict[str, str]:
        """Return the queue ids of those jobs that the queue knows by their name, by job id.

        Raises
        ------
        TransientError
            The worker or its queue gave no answer.
        """
        names = {run_files.name_in_queue(job): job.id for job in jobs}
        if not (command := self.queue.find_command(list(names))):
            return {}
        found = self.queue.found(list(names), self._run(command))
        return {names[name]: queue_id for name, queue_id in found.items()}

    def withdraw(self, jobs: Sequence[JobRecord]) -> WithdrawResult:
        """Take the claims of attempts before their scripts do.

        Raises
        ------
        TransientError
            The worker does not answer.
        """
        sign = new_sentinel()
        answers = read_sections(self._run_one_by_one(submit.withdraw_script(jobs, sign)), sign)
        return submit.withdrawn(jobs, self.queue, answers)

    def cancel(self, queue_ids: Sequence[str]) -> dict[str, str]:
        """Ask the queue to end jobs; return why some cannot be ended, by queue id.

        Raises
        ------
        TransientError
            The worker or its queue gave no answer.
        """
        return self.queue.cancelled(queue_ids, self._run(self.queue.cancel_command(queue_ids)))

    # the end ------------------------------------------------------------------------------------------

    def collect(self, wanted: Sequence[CollectRequest]) -> Iterator[tuple[JobRecord, AttemptEnd]]:
        """Yield how attempts ended. One of which it is too early to tell, or whose result did not fit into
        the stream, is missing and asked for again.

        Raises
        ------
        TransientError
            The worker does not answer, or the answer was cut off.
        """
        with tempfile.SpooledTemporaryFile(max_size=_SPOOLED) as spool:
            sign = new_sentinel()
            together = self.transfer is self.host
            text = fetch.script(wanted, self.place, self.queue, sign, with_results=together)
            self._checked(self._run(text, sink=spool))  # type: ignore[arg-type]
            spool.seek(0)
            facts = fetch.read_facts(spool, len(wanted), sign)  # type: ignore[arg-type]
            numbers = [number for number, fact in facts.items() if fact.size is not None and not fact.later]
            silent = {number: fact for number, fact in facts.items() if fact.size is None}
            for number, fact in self._given_up(wanted, silent).items():
                ending = ended_without_result(wanted[number], fact, self.queue)
                if ending is not None:
                    yield wanted[number].job, ending
            if not together:
                self._fetch(spool, [wanted[number].job.run_dir or "" for number in numbers])
            for number, raw in fetch.read_results(spool, numbers):  # type: ignore[arg-type]
                yield wanted[number].job, read_ending(raw)

    def _given_up(
        self, wanted: Sequence[CollectRequest], facts: Mapping[int, AttemptFacts]
    ) -> dict[int, AttemptFacts]:
        """Take the claims of attempts that nobody has, before their late scripts can; return what is known.

        One whose script was faster is left out: it is asked for again.
        """
        lost = {n: wanted[n].job for n, fact in facts.items() if may_still_start(wanted[n], fact, self.queue)}
        gone = self.withdraw(list(lost.values())).gone if lost else set()
        return {n: fact for n, fact in facts.items() if n not in lost or lost[n].id in gone}

    def _fetch(self, spool: tempfile.SpooledTemporaryFile[bytes], directories: Sequence[str]) -> None:
        """Let the host of the transfers write the results to the spool."""
        spool.seek(0)
        spool.truncate()
        if directories:
            text = fetch.results_script(directories)
            self._checked(self._run(text, self.transfer, sink=spool))  # type: ignore[arg-type]
        spool.seek(0)

    # running ------------------------------------------------------------------------------------------

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
        """Run a script that takes a while for each of many jobs: it must not be silent for too long."""
        said = io.BytesIO()
        self._run(text, sink=said)
        return said.getvalue().decode(errors="replace")

    def _checked(self, result: CommandResult) -> None:
        if result.exit_code != 0:
            said = result.stderr.strip()[-300:] or f"exit code {result.exit_code}"
            raise TransientError(f"cannot read from {self.place.work_dir} on {self.host.name}: {said}")


# The access to each worker of a configuration, and who of them live on one host.


class Accesses:
    """Gives the access to a worker by its name: made when it is wanted first, then always the same."""

    def __init__(
        self, workers: Mapping[str, WorkerSpec], repository: Repository, hosts: Hosts, shelves: RemoteCaches
    ) -> None:
        self._workers, self._repository, self._hosts = workers, repository, hosts
        self._shelves = shelves
        self._known: dict[str, WorkerAccess] = {}

    def __call__(self, name: str) -> WorkerAccess:
        """Return the access to a worker."""
        if name not in self._known:
            spec = self._workers[name]
            host, transfer = self._hosts.of(spec.connection), self._hosts.of(spec.transfer_connection)
            self._known[name] = WorkerAccess(
                name,
                spec,
                self._repository,
                host,
                transfer,
                shelf=self._shelves.of(host),
                neighbours=self._neighbours(name, host),
            )
        return self._known[name]

    def _neighbours(self, name: str, host: Host) -> Sequence[str]:
        """Return the directories of the other workers on a host."""
        alike = [spec for spec in self._workers.values() if self._hosts.of(spec.connection) is host]
        return sorted({_work_dir(spec) for spec in alike} - {_work_dir(self._workers[name])})


def _work_dir(spec: WorkerSpec) -> str:
    return run_files.worker_paths(spec, expand).work_dir
