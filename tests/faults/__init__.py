"""The daemon under faults: killed at every step, cut off from hosts and disks, with clocks that jump.

Everything is real, only the instants are chosen: processes die by SIGKILL, servers are stopped or frozen,
disks are small. :mod:`tests.faults.site` is what all tests stand on.
"""

import pytest

pytest.register_assert_rewrite("tests.faults.site", "tests.faults.campaign")
