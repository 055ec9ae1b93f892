"""Whose turn it is to write: the daemon takes the lease before it opens the state.

Whoever holds it before may put another store there (``restore``, a migration): one that was opened earlier
would be that of yesterday.
"""

from __future__ import annotations

import time

from reconciler.actual.state_dir import Lease
from reconciler.errors import RefusedError
from reconciler.watch.journal import tell
from reconciler.watch.signals import Signals
from reconciler.watch.systemd import ServiceManager

_AGAIN = 0.5
"""Seconds between two looks whether the lease is free."""


def take_turn(lease: Lease, signals: Signals, manager: ServiceManager, *, standby: bool) -> bool:
    """Take the lease; return False if a signal came while it was waited for.

    Raises
    ------
    RefusedError
        Another process holds it, and this one is not to wait.
    """
    told = ""
    while not signals.number:
        try:
            lease.acquire(time.time(), role="watch")
        except RefusedError as error:
            if not standby:
                raise
            if error.message != told:
                told = error.message
                tell("standby", f"waiting: {told}")
                manager.status(f"waiting: {told}")
            manager.tell("WATCHDOG=1")
            signals.wake.wait(_AGAIN)
        else:
            return True
    return False
