"""Files as a tar stream: made while it is sent, so that nothing but one file is ever in memory.

Made while it is sent: of the jobs only one is in memory at a time.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from reconciler.errors import LostError, ReconcilerError, TransientError, UnfitError
from reconciler.execution import run_files
from reconciler.execution.worker import unpack as uploads
from reconciler.jobs.outputs import Outputs, needed_outputs
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import AppliedConfig, JobRecord

_BLOCK = 512


class ArchiveMember(msgspec.Struct, frozen=True):
    """One file to send; ``name`` is relative."""

    name: str
    data: bytes
    executable: bool = False


def tar_stream(parcels: Iterable[ArchiveMember]) -> Iterator[bytes]:
    """Yield a tar archive piece by piece."""
    for parcel in parcels:
        info = tarfile.TarInfo(parcel.name)
        info.size = len(parcel.data)
        info.mode = 0o755 if parcel.executable else 0o644
        yield info.tobuf(tarfile.GNU_FORMAT)
        yield parcel.data
        yield bytes(-info.size % _BLOCK)
    yield bytes(2 * _BLOCK)


# What an upload brings: the scripts and inputs of jobs, and what they share: the launcher, code trees.


class Repository(msgspec.Struct, frozen=True):
    """What a worker needs of the user's repository: the files of code trees, and single files.

    ``code`` yields (path, is executable, content).
    """

    code: Callable[[str], Iterable[tuple[str, bool, bytes]]]
    blobs: Callable[[Iterable[str]], Iterator[tuple[str, bytes]]]


class BundleContents(msgspec.Struct, frozen=True):
    """Where the contents of run directories come from: the store, the applied configuration, the outputs."""

    payload: Callable[[JobRecord], bytes]
    config: AppliedConfig
    outputs: Outputs


class UploadBundle:
    """The files for some jobs of one worker. ``there`` are the launchers and code trees that it has already.

    After all parcels were made, ``impossible`` has the jobs whose files cannot be made, and why.

    Raises
    ------
    TransientError
        The repository cannot be read now.
    """

    def __init__(
        self,
        jobs: Sequence[JobRecord],
        contents: BundleContents,
        repository: Repository,
        worker: WorkerSpec,
        place: run_files.WorkerPaths,
        there: Container[str],
    ) -> None:
        self.impossible: dict[str, str] = {}
        self._jobs = jobs
        self._contents = contents
        self._repository = repository
        self._worker = worker
        self._place = place
        self._there = there
        self._broken: dict[str, ReconcilerError] = {}
        self._code = list(self._missing_code())

    @property
    def shared(self) -> dict[str, str]:
        """What the jobs share, by name: its path below the work_dir."""
        trees = {tree for job in self._jobs for tree in job.code} - self._broken.keys()
        name = run_files.launcher_name()
        return {name: f"{run_files.LAUNCHERS}/{name}"} | {
            tree: f"{run_files.CODE}/{tree}" for tree in sorted(trees)
        }

    def parcels(self) -> Iterator[ArchiveMember]:
        """Yield every file.

        Raises
        ------
        TransientError
            The repository or the store of outputs cannot be read now.
        """
        yield from self._code
        name = run_files.launcher_name()
        if name not in self._there:
            yield ArchiveMember(uploads.shared_name(name, run_files.LAUNCHERS), run_files.launcher_source())
        for number, job in enumerate(self._jobs):
            yield from self._of_job(number, job)

    def _missing_code(self) -> Iterator[ArchiveMember]:
        """Yield the code trees that are not there yet; note those that cannot be sent."""
        for tree in sorted({tree for job in self._jobs for tree in job.code if tree not in self._there}):
            target = uploads.shared_name(tree, run_files.CODE)
            try:
                with _reading():
                    files = list(self._repository.code(tree))
            except (LostError, UnfitError) as error:
                self._broken[tree] = error
            else:
                yield from (ArchiveMember(f"{target}/{path}", data, flag) for path, flag, data in files)

    def _of_job(self, number: int, job: JobRecord) -> list[ArchiveMember]:
        try:
            for tree in job.code:
                if tree in self._broken:
                    raise self._broken[tree]
            return list(self._files(number, job))
        except TransientError:
            raise
        except (ReconcilerError, ValueError, KeyError) as error:
            self.impossible[job.id] = _told(error)
            return []

    def _files(self, number: int, job: JobRecord) -> Iterator[ArchiveMember]:
        payload = self._contents.payload(job)
        documents, blobs = needed_outputs(json.loads(payload), self._contents.outputs)
        script = run_files.script_of(job, self._contents.config, self._worker, self._place)
        files = {
            run_files.SCRIPT: script.encode(),
            run_files.INPUT: run_files.job_input(job, payload, documents, blobs),
        }
        for blob, name in job.files:
            with _reading():
                ((_, files[f"files/{blob}/{name}"]),) = self._repository.blobs([blob])
        for path, data in files.items():
            yield ArchiveMember(uploads.job_name(number, path), data)


@contextmanager
def _reading() -> Iterator[None]:
    """What git has lost, or what cannot be sent, stays so; that the repository is away may pass."""
    try:
        yield
    except (LostError, UnfitError, TransientError):
        raise
    except ReconcilerError as error:
        raise TransientError(f"the repository cannot be read: {error.message}", hint=error.hint) from error


def _told(error: Exception) -> str:
    hint = error.hint if isinstance(error, ReconcilerError) else None
    return " - ".join(filter(None, (str(error) or type(error).__name__, hint)))
