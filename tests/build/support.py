"""What tests of builds share."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.build.builder import BuildFailedError, FlowBuilder
from reconciler.model.desired import DesiredFlow
from reconciler.model.flows import BuiltFlow


def build(
    builder: FlowBuilder, flow: DesiredFlow, externals: Mapping[str, tuple[str, str]] | None = None
) -> BuiltFlow:
    """Build one flow with nothing else under way. Raises BuildFailedError if it cannot be built."""
    builder.start(flow, externals or {})
    done, found = builder.next()
    assert done is flow
    if isinstance(found, BuildFailedError):
        raise found
    return found
