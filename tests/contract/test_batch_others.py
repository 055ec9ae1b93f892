"""The contract of workers: jobs in allocations of Grid Engine, and of Slurm on another machine."""

from __future__ import annotations

import pytest

from tests.contract.suite import ContractOfBatches

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too


class TestBatchGridEngine(ContractOfBatches):
    place = "local-sge"
    megabytes = 5


class TestBatchSshSlurm(ContractOfBatches):
    place = "ssh-slurm"
    megabytes = 5
