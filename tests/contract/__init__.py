"""One suite for every kind of worker: what a job may rely on, wherever it runs.

:mod:`tests.contract.campaign` plays some thirty jobs at the same time on one place,
:mod:`tests.contract.suite` says what must have come of them, and each ``test_*`` module names one place.
:mod:`tests.contract.schedulers` has the words of each scheduler.
"""

import pytest

pytest.register_assert_rewrite("tests.contract.suite")
