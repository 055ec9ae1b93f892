"""Worlds for these tests, as for those of the executor."""

from tests.execution.conftest import make_world

__all__ = ["make_world"]
