"""Uploads: one tar stream with all files of many jobs, and the script that moves them into place.

The stream has the submission scripts and inputs of the jobs, and what they share: the launcher, code trees,
and documents of earlier outputs.
It is made while it is sent, so that only one job is in memory at a time. The script unpacks it into a staging
directory and moves each job into its run directory only when the stream has arrived completely.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from reconciler.errors import InputError, LostError, ReconcilerError, TransientError, UnfitError
from reconciler.execution import run_files
from reconciler.execution.batch import tickets
from reconciler.execution.claims import CLAIM, LEAVE, RUNS, TOO_EARLY, WITHDRAW
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.problems import answer_of, describe_error
from reconciler.execution.run_files import CODE, DOCUMENTS, LAUNCHERS, WorkerPaths, shell_path
from reconciler.execution.worker.prepare import STAGING
from reconciler.jobs.needed_outputs import needed_outputs
from reconciler.jobs.outputs import Outputs
from reconciler.model.applied import AppliedConfig
from reconciler.model.flows import run_dir
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import JobRecord


class UploadResult(msgspec.Struct, frozen=True):
    """The result of uploads, by job id.

    ``ready`` are in place. The directories of ``used`` hold an attempt that the store does not remember, and
    the scripts of ``ran``, which are among them, have started. ``impossible`` says why files cannot be made.
    """

    ready: set[str]
    used: set[str]
    ran: set[str]
    impossible: dict[str, str]


# The contents of the stream -------------------------------------------------------------------------------


class ArchiveMember(msgspec.Struct, frozen=True):
    """One file to send; ``name`` is a relative path."""

    name: str
    data: bytes
    executable: bool = False


class Repository(msgspec.Struct, frozen=True):
    """Access to the user's repository: the files of code trees, and single files.

    ``code`` yields (path, is executable, content).
    """

    code: Callable[[str], Iterable[tuple[str, bool, bytes]]]
    blobs: Callable[[Iterable[str]], Iterator[tuple[str, bytes]]]


class BundleContents(msgspec.Struct, frozen=True):
    """The sources of run directories: payloads from the store, the applied configuration, and outputs."""

    payload: Callable[[JobRecord], bytes]
    config: AppliedConfig
    outputs: Outputs


class UploadBundle:
    """The files for some jobs of one worker. ``there`` are the shared files that it has already.

    After all members were made, ``impossible`` has the jobs whose files cannot be made, and why, and
    ``documents`` the names of the documents that the jobs share.

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
        paths: WorkerPaths,
        there: Container[str],
    ) -> None:
        self.impossible: dict[str, str] = {}
        self.documents: set[str] = set()
        self._jobs = jobs
        self._contents = contents
        self._repository = repository
        self._worker = worker
        self._paths = paths
        self._there = there
        self._broken_trees: dict[str, ReconcilerError] = {}
        self._code = list(self._missing_code())

    @property
    def shared(self) -> dict[str, str]:
        """The files that the jobs share, by name: their paths below the work_dir."""
        trees = {tree for job in self._jobs for tree in job.code} - self._broken_trees.keys()
        return {name: f"{LAUNCHERS}/{name}" for name in self._programs()} | {
            tree: f"{CODE}/{tree}" for tree in sorted(trees)
        }

    def members(self) -> Iterator[ArchiveMember]:
        """Yield every file.

        Raises
        ------
        TransientError
            The repository or the store of outputs cannot be read now.
        """
        yield from self._code
        for name, source in self._programs().items():
            if name not in self._there:
                yield ArchiveMember(f"shared/{LAUNCHERS}/{name}", source)
        for number, job in enumerate(self._jobs):
            try:
                for tree in job.code:
                    if tree in self._broken_trees:
                        raise self._broken_trees[tree]
                files, documents = self._files_of(job)
            except (InputError, LostError) as error:
                self.impossible[job.id] = " - ".join(filter(None, (error.message, error.hint)))
            except ReconcilerError:  # the store, the job store or the repository cannot be read now
                raise
            except Exception as error:
                self.impossible[job.id] = f"its files cannot be made: {describe_error(error)}"
            else:
                for name, data in documents.items():
                    if name not in self._there and name not in self.documents:
                        yield ArchiveMember(f"shared/{DOCUMENTS}/{name}", data)
                self.documents |= documents.keys()
                for file in files:
                    yield msgspec.structs.replace(file, name=f"jobs/{number}/{file.name}")

    def _programs(self) -> dict[str, bytes]:
        """Return what runs jobs on the worker, by file name."""
        launcher = {run_files.launcher_name(): run_files.launcher_source()}
        return launcher | (tickets.programs() if self._worker.batch is not None else {})

    def _missing_code(self) -> Iterator[ArchiveMember]:
        """Yield the code trees that the worker lacks; note those that cannot be sent."""
        for tree in sorted({tree for job in self._jobs for tree in job.code if tree not in self._there}):
            try:
                with _reading_repository():
                    files = list(self._repository.code(tree))
            except (LostError, UnfitError) as error:
                self._broken_trees[tree] = error
            else:
                for path, executable, data in files:
                    yield ArchiveMember(f"shared/{CODE}/{tree}/{path}", data, executable)

    def _files_of(self, job: JobRecord) -> tuple[list[ArchiveMember], dict[str, bytes]]:
        """Return the files of a job, and the documents that it shares with others by their names."""
        payload = self._contents.payload(job)
        needed = needed_outputs(json.loads(payload), self._contents.outputs)
        request, documents = run_files.job_input(job, self._worker, payload, needed)
        exec_config = run_files.exec_config_of(job, self._contents.config)
        script = run_files.submission_script(job, self._worker, self._paths, exec_config)
        files = [
            ArchiveMember(run_files.SCRIPT, script.encode()),
            ArchiveMember(run_files.INPUT, request),
        ]
        if self._worker.batch is not None:
            tickets.check_fits(job, self._worker)
            warm = tickets.warm_script(job, self._worker, self._paths, exec_config)
            if warm is not None:
                files.append(ArchiveMember(tickets.WARM_SCRIPT, warm.encode()))
        for blob, name, *executable in job.files:
            with _reading_repository():
                ((_, data),) = self._repository.blobs([blob])
            files.append(ArchiveMember(f"files/{blob}/{name}", data, bool(executable)))
        if documents:
            names = "".join(f"{name}\n" for name in documents)
            files.append(ArchiveMember(DOCUMENTS, names.encode()))
        return files, documents


@contextmanager
def _reading_repository() -> Iterator[None]:
    """Treat a repository that cannot be read as an outage, unless git has lost data or it cannot be sent."""
    try:
        yield
    except (LostError, UnfitError, TransientError):
        raise
    except ReconcilerError as error:
        raise TransientError(f"the repository cannot be read: {error.message}", hint=error.hint) from error


def tar_stream(members: Iterable[ArchiveMember]) -> Iterator[bytes]:
    """Yield a tar archive piece by piece."""
    block = tarfile.BLOCKSIZE
    for member in members:
        info = tarfile.TarInfo(member.name)
        info.size = len(member.data)
        info.mode = 0o755 if member.executable else 0o644
        yield info.tobuf(tarfile.GNU_FORMAT)
        yield member.data
        yield bytes(-info.size % block)
    yield bytes(2 * block)


# On the worker --------------------------------------------------------------------------------------------


def script(
    paths: WorkerPaths,
    jobs: Sequence[JobRecord],
    shared: Iterable[str],
    nonce: str,
    borrowed: Mapping[str, str],
) -> str:
    """Return the script that unpacks the stream on its standard input.

    ``shared`` are launchers and code trees, as paths below the work_dir; the names of documents are in the
    stream. The script reports those that are
    neither in the stream nor there. ``borrowed`` are code trees to copy from another work_dir on the host.
    ``nonce`` names the staging directory.
    """
    stage = f"{STAGING}/{nonce}"
    lines = [
        f"cd -- {shell_path(paths.work_dir)} || exit 9",
        f"trap 'rm -rf -- {stage}' EXIT",
        f"mkdir -p -- {LAUNCHERS} {CODE} {DOCUMENTS} {stage} || exit 10",
        f"tar --no-same-owner -xf - -C {stage} || exit 10",
        *_DOCUMENTS.format(stage=stage, documents=DOCUMENTS).splitlines(),
        "reconciler_share() {",
        f'[ -e "$1" ] || mv -- "{stage}/shared/$1" "$1" 2>/dev/null || [ -e "$1" ] || echo "missing $1"',
        "}",
        WITHDRAW.rstrip(),
        # One process makes all directories: one for each job would cost more than all else.
        "reconciler_make() {",
        "local number directories=()",
        "while [ $# -gt 0 ]; do number=$1",
        f'[ -e "{stage}/jobs/$number" ] && [ ! -e "$2/{CLAIM}" ] && directories+=("$2")',
        "shift 2; done",
        '[ ${#directories[@]} -eq 0 ] || mkdir -p -- "${directories[@]}" || exit 11',
        "}",
        "reconciler_place() {",
        f'if [ -e "$2/{CLAIM}" ]; then',
        '( cd -- "$2" && reconciler_withdraw "" ) 2>/dev/null',
        f'case $? in {RUNS}) echo "ran $1" ;; {TOO_EARLY}) ;; *) echo "used $1" ;; esac',
        "return; fi",
        f'[ -e "{stage}/jobs/$1" ] || return',
        'reconciler_link_documents "$1" || return',
        'if [ -e "$2/files" ] || [ -e "$2/documents" ]; then',
        'rm -rf -- "$2/files" "$2/documents" || exit 11; fi',
        f'mv -f -- "{stage}/jobs/$1/"* "$2/" || exit 11',
        'echo "placed $1"',
        "}",
    ]
    for tree, other in borrowed.items():  # copied to where sent trees are; an incomplete copy is removed
        target = f"{stage}/shared/{CODE}/{tree}"
        theirs = f"{shell_path(other)}/{CODE}/{tree}"
        copy = f"[ -O {theirs} ] && cp -R -- {theirs} {target} 2>/dev/null || rm -rf -- {target}"
        lines.append(f"mkdir -p -- {stage}/shared/{CODE}/ && {{ {copy}; }}")
    lines.append(LEAVE.rstrip())
    for job in jobs:
        if job.attempt.number > 1:
            before = run_dir(paths.work_dir, job.uuid, job.index, job.attempt.number - 1)
            lines.append(f"reconciler_leave {shell_path(before)} >/dev/null")
    lines += [f"reconciler_share {name}" for name in shared]
    lines.append("reconciler_share_documents")
    places = [f"{number} {shell_path(job.attempt.run_dir or '')}" for number, job in enumerate(jobs)]
    lines.append(f"reconciler_make {' '.join(places)}")
    lines += [f"reconciler_place {place}" for place in places]
    return "\n".join([*lines, "exit 0"])


# A document is linked into each run directory that needs it, so its number of links tells if it is in use.
# The time of its last use protects one that is about to be linked: see prepare.py. A file system without
# links gets copies. What is already there is read once for each upload, since a power failure can damage it.
_DOCUMENTS = """\
reconciler_share_documents() {{
local name staged
for name in $(sort -u {stage}/jobs/*/{documents} 2>/dev/null); do
staged={stage}/shared/{documents}/$name
if [ -e $staged ]; then
chmod 400 $staged && touch $staged && mv -f $staged {documents}/$name || exit 11
elif command -v sha256sum >/dev/null && ! echo "$name  {documents}/$name" | sha256sum -c --status 2>/dev/null
then rm -f {documents}/$name
fi
done
}}
reconciler_link_documents() {{
local name
[ -e {stage}/jobs/$1/{documents} ] || return 0
mkdir -p {stage}/jobs/$1/documents
while read -r name; do
touch -c {documents}/$name
ln {documents}/$name {stage}/jobs/$1/documents/$name 2>/dev/null ||
cp {documents}/$name {stage}/jobs/$1/documents/$name 2>/dev/null ||
{{ echo "missing {documents}/$name"; return 1; }}
done < {stage}/jobs/$1/{documents}
}}"""


class MissingDocumentsError(TransientError):
    """Documents that were on the worker are gone; ``names`` are theirs."""

    def __init__(self, work_dir: str, names: set[str]) -> None:
        super().__init__(f"{work_dir}/{DOCUMENTS}/{min(names)} was removed; it is sent again")
        self.names = names


def read_uploads(
    result: CommandResult, jobs: Sequence[JobRecord], impossible: dict[str, str], paths: WorkerPaths
) -> UploadResult:
    """Return the result of the uploads from the output of the script.

    Raises
    ------
    MissingDocumentsError
        Documents that jobs share were removed.
    TransientError
        The directory does not exist, the disk is full, or another shared file was removed.
    """
    if result.exit_code != 0:
        reason = result.stderr.strip()[-300:] or f"exit code {result.exit_code}"
        raise TransientError(f"cannot write to {paths.work_dir}: {reason}")
    found = UploadResult(ready=set(), used=set(), ran=set(), impossible=impossible)
    missing: set[str] = set()
    for line in result.stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word == "missing" and rest.startswith(f"{DOCUMENTS}/"):
            missing.add(rest.partition("/")[2])
            continue
        if word == "missing":
            raise TransientError(f"{paths.work_dir}/{rest} was removed; it is sent again")
        with answer_of(paths.work_dir, "an upload", line, result.stderr):
            job_id = jobs[int(rest)].id
            {"placed": found.ready, "used": found.used, "ran": found.used}[word].add(job_id)
            if word == "ran":
                found.ran.add(job_id)
    if missing:
        raise MissingDocumentsError(paths.work_dir, missing)
    return found
