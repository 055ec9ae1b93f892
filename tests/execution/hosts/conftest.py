"""Hosts that are closed at the end of their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from reconciler.execution.hosts.base import Host
from reconciler.execution.hosts.choice import host_of
from reconciler.model.connections import Connection
from tests.execution.hosts.reaching import reach
from tests.services.sshd import Sshd

MakeHost = Callable[[Connection | None], Host]


@pytest.fixture
def make_host() -> Iterator[MakeHost]:
    """Make a host from its connection."""
    with ExitStack() as stack:

        def make(connection: Connection | None) -> Host:
            host = host_of(connection)
            stack.callback(host.close)
            return host

        yield make


@pytest.fixture
def host(sshd: Sshd, make_host: MakeHost) -> Host:
    """The shared server, over a connection of this test."""
    return make_host(reach(sshd))
