"""Messages to systemd from a service of ``Type=notify``, see sd_notify(3). Without it they go nowhere."""

from __future__ import annotations

import contextlib
import os
import socket


class ServiceManager:
    """The service manager that started this process, if it wants messages."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._status = ""

    @classmethod
    def of_this_process(cls) -> ServiceManager:
        """Return the manager of this process, and hide its address from child processes."""
        return cls(os.environ.pop("NOTIFY_SOCKET", None))

    @property
    def listens(self) -> bool:
        """Return whether messages go anywhere."""
        return bool(self._address)

    def send(self, *facts: str) -> None:
        """Send facts such as ``READY=1``. Errors are ignored: the daemon works without a listener."""
        if not self._address:
            return
        # An address that begins with @ is in the abstract name space.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as talk:
            talk.sendto("\n".join(facts).encode(), address)

    def status(self, text: str) -> None:
        """Send a line of status, if it has changed."""
        if text != self._status:
            self._status = text
            self.send(f"STATUS={text}")
