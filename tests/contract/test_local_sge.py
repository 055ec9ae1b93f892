"""The contract of workers: Grid Engine."""

from __future__ import annotations

import pytest

from tests.contract.suite import TimeLimits

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too


class TestLocalSge(TimeLimits):
    place = "local-sge"
