"""The contract of workers: jobs in an allocation on this machine."""

from __future__ import annotations

import pytest

from tests.contract.suite import ContractOfBatches

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too


class TestBatchShell(ContractOfBatches):
    place = "local-shell"
    megabytes = 20
