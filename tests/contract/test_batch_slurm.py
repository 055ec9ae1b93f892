"""The contract of workers: jobs in allocations of Slurm on this machine."""

from __future__ import annotations

import pytest

from tests.contract.suite import ContractOfBatches

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too


class TestBatchSlurm(ContractOfBatches):
    place = "local-slurm"
    megabytes = 5
