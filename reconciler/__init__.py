"""GitOps for jobflow: desired state in git, actual state in LMDB, a plan between them.

``__init__.pyi`` tells type checkers what is imported when it is first used.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import :class:`~reconciler.campaign.Campaign` and ``export`` when they are first used."""
    module = {"Campaign": "reconciler.campaign", "export": "reconciler.build.export"}.get(name)
    if module is not None:
        import importlib

        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
