"""Fixtures of this directory: worlds on clusters, and a Python for their jobs that is there at once."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.support import Cluster, MakeCluster
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd


@pytest.fixture
def make_cluster(tmp_path: Path, job_python: Path, warm: None) -> Iterator[MakeCluster]:
    """Make worlds whose builds and jobs run by a warm Python."""
    made: list[Cluster] = []

    def make(slurm: Slurm, sshd: Sshd, **spec: Any) -> Cluster:
        made.append(Cluster(tmp_path / f"world{len(made)}", slurm, sshd, job_python, **spec))
        return made[-1]

    yield make
    for world in made:
        world.close()
        with contextlib.suppress(OSError):
            shutil.rmtree(world.shared)
