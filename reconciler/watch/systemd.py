"""What systemd wants to hear of a service of ``Type=notify``; see sd_notify(3). Without systemd, nothing."""

from __future__ import annotations

import contextlib
import os
import socket


class ServiceManager:
    """The one that started this process, if it wants to be told."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._status = ""

    @classmethod
    def of_this_process(cls) -> ServiceManager:
        """Return the one of this process. Its children must not speak to it: the variable is taken away."""
        return cls(os.environ.pop("NOTIFY_SOCKET", None))

    @property
    def listens(self) -> bool:
        """Whether anybody wants to be told."""
        return bool(self._address)

    def tell(self, *facts: str) -> None:
        """Send facts like ``READY=1``. One that does not listen is no reason to stop."""
        if not self._address:
            return
        # An address that begins with @ is in the abstract name space.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as talk:
            talk.sendto("\n".join(facts).encode(), address)

    def status(self, text: str) -> None:
        """Say in a line how it goes, if that is news."""
        if text != self._status:
            self._status = text
            self.tell(f"STATUS={text}")
