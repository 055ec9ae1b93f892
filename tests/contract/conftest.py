"""The campaign of one place, played once for all tests of its class."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.campaign import SECRET, Campaign
from tests.services import processes
from tests.services.login import Login
from tests.services.places import Place, place_of
from tests.support import isolate


@pytest.fixture(scope="class")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, warm_python: Path
) -> Iterator[Campaign]:
    """What came of the jobs on the place of this class."""
    case, root = request.cls, tmp_path_factory.mktemp("contract")
    place = place_of(case.place, request, root)
    python = str(warm_python) if _is_ours(place, request) else sys.executable
    campaign = Campaign(place, root / "world", python, sys.executable, overdue=case.overdue, batch=case.batch)
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root / "home")
        for name, value in place.env.items():
            patch.setenv(name, value, prepend=os.pathsep if name == "PATH" else None)
        patch.setenv("A_TOKEN", SECRET)
        patch.setattr(sys, "executable", str(warm_python))  # flows are built by it
        try:
            campaign.play()
            campaign.bring_big(case.megabytes)
            yield campaign
        finally:
            campaign.world.close()
            processes.end(processes.of_directory(place.work_dir), grace=0)


def _is_ours(place: Place, request: pytest.FixtureRequest) -> bool:
    """Whether jobs run as the present user: another one cannot reach our warm Python."""
    if place.sshd is None:
        return True
    login: Login = request.getfixturevalue("login")
    return not login.own
