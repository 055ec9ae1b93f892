"""GitOps for jobflow: desired state in git, actual state in LMDB, a plan between them.

``__init__.pyi`` tells type checkers what is imported when it is first used.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import :class:`~reconciler.campaign.Campaign` when it is first used: commands do not need it."""
    if name == "Campaign":
        import importlib

        return importlib.import_module("reconciler.campaign").Campaign
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
