"""The contract of workers: processes of this machine."""

from __future__ import annotations

import pytest

from tests.contract.suite import Contract

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too


class TestLocalShell(Contract):
    place = "local-shell"
