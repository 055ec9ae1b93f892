"""The contract of workers: Slurm on another machine."""

from __future__ import annotations

import pytest

from tests.contract.suite import ContractOfSchedulers

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too


class TestSshSlurm(ContractOfSchedulers):
    place = "ssh-slurm"
