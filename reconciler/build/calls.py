"""Checks that the arguments of a job fit the parameters of its function, without calling it."""

from __future__ import annotations

import inspect
import types

from jobflow import Job

from reconciler.build.user_code import BuildError
from reconciler.diagnostics import did_you_mean
from reconciler.jobs.job_checks import clean_name


def check_call(job: Job, pointer: str) -> None:
    """Check that the function of a job takes its arguments, however many and whatever they are named.

    The job calls what jobflow's decorator wraps (``Job.run``), so that is looked at. If the user's own
    decorator wraps it, the parameters of the wrapper count. What is not a function written in Python, such as
    a compiled function or a class, is not checked.

    Raises
    ------
    BuildError
        The function does not take the arguments; ``pointer`` is where the manifest names it.
    """
    function = getattr(job.function, "original", job.function)
    if not isinstance(function, types.FunctionType) or hasattr(function, "__signature__"):
        return
    called: types.FunctionType | types.MethodType = function
    bound = getattr(job.function, "__self__", None)
    if bound is not None and not isinstance(bound, types.ModuleType):
        called = types.MethodType(function, bound)
    signature = inspect.signature(called, follow_wrapped=False)
    try:
        signature.bind(*job.function_args, **job.function_kwargs)
    except TypeError as error:
        parameters = signature.parameters.values()
        takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
        given = () if takes_any else job.function_kwargs
        unknown = [name for name in given if name not in signature.parameters]
        problem = f"it has no parameter '{clean_name(unknown[0])}'" if unknown else str(error)
        path = f"{function.__module__}.{function.__qualname__}"
        names = [f"'{name}'" for name in signature.parameters]
        near = did_you_mean(unknown[0], signature.parameters) if unknown else None
        takes = f"its parameters are {', '.join(names)}" if names else "it takes no arguments"
        raise BuildError(
            f"the job '{clean_name(str(job.name))}' cannot call {path}: {problem}", pointer, near or takes
        ) from error
