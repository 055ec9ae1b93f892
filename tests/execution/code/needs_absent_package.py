"""User code whose own dependency is missing on the worker."""

import a_package_that_is_nowhere  # noqa: F401
from jobflow import job


@job
def work() -> int:
    return 1
