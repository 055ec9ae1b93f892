"""The access to each worker of a configuration, and who of them live on one host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.execution import launch
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.hosts.command import Host
from reconciler.execution.hosts.local import expand
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.freight import Repository
from reconciler.execution.worker.shelf import Shelves
from reconciler.model.manifests import WorkerSpec


class Accesses:
    """Gives the access to a worker by its name: made when it is wanted first, then always the same."""

    def __init__(
        self, workers: Mapping[str, WorkerSpec], repository: Repository, hosts: Hosts, shelves: Shelves
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
    return launch.place_of(spec, expand).work_dir
