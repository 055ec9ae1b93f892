"""A worker under examination."""

from __future__ import annotations

import msgspec

from reconciler.execution.hosts.base import Host
from reconciler.execution.queues.base import Queue
from reconciler.execution.run_files import WorkerPaths
from reconciler.model.connections import Connection
from reconciler.model.manifests import WorkerSpec
from reconciler.model.settings import Resources


class WorkerUnderTest(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. ``transfer``: the host for files if that is another; ``token`` names the probe file."""

    name: str
    spec: WorkerSpec
    host: Host
    transfer: Host | None
    queue: Queue
    place: WorkerPaths
    token: str

    @property
    def subject(self) -> str:
        """What checks of this worker are about."""
        return f"worker/{self.name}"

    @property
    def is_remote(self) -> bool:
        """Whether it is another machine."""
        return self.spec.type == "remote"

    @property
    def logs_in(self) -> bool:
        """Whether its commands run in a login shell."""
        return self.is_remote and self.spec.login_shell

    @property
    def has_scheduler(self) -> bool:
        """Whether a scheduler starts its jobs."""
        return self.spec.scheduler_type != "shell"

    @property
    def default_resources(self) -> Resources | None:
        """What jobs get that ask for nothing; None if the worker gives nothing."""
        if isinstance(self.spec.qresources, dict):
            return Resources(self.spec.qresources, generic=True)
        return Resources(self.spec.resources) if isinstance(self.spec.resources, dict) else None

    @property
    def links(self) -> list[Connection]:
        """Every connection that leads to it and whose host key we check: jump hosts and ``transfer`` too.

        An OpenSSH master connection has checked the key by itself.
        """
        found: dict[bytes, Connection] = {}
        pending = [self.spec.connection, self.spec.transfer]
        while pending:
            link = pending.pop(0)
            if link is not None and not link.control_path and link.key not in found:
                found[link.key] = link
                pending.append(link.gateway)
        return list(found.values())
