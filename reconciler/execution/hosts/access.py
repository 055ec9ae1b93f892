"""What a person has to put right before a host lets us in."""

from __future__ import annotations

from reconciler.errors import TransientError


class AccessError(TransientError):
    """The host refuses us, or we refuse the host: an unknown host key, no fitting key, a missing secret.

    An outage for the jobs, which wait; but one that does not heal by itself. The hint tells what to do.
    """
