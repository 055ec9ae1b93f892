"""Checks that what a job is given arrives on its worker: whatever does not is refused when building.

jobflow and monty write functions and objects by name. So a ``functools.partial`` dressed as another function
arrives as that function, and a nested dataclass as a mapping: the job would compute something else than with
``run_locally``. Here each argument and the job's own function are read back as the launcher reads them, and
compared with what was given.

What jobflow itself does to values is accepted: a subclass of ``dict``, ``str``, ``float`` and so on arrives
as an equal value of the plain type, and within objects a tuple arrives as a list. An object with an
``as_dict`` of its own is what it writes, even if it writes itself as a subclass: with quacc, ASE's ``Atoms``
arrive as ``MSONAtoms``.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import pickle
import types
from collections.abc import Iterator
from enum import Enum
from typing import Any, NoReturn

import numpy as np
from jobflow import Job
from jobflow.core.reference import OutputReference
from monty.json import MontyEncoder, MSONable
from pydantic import BaseModel

from reconciler.build.user_code import headline
from reconciler.execution.launcher import FILE_MARKER, bytes_as_json, decoded, encoded, json_with_bytes, plain
from reconciler.jobs.job_checks import clean_name

_RELATIVE, _ABSOLUTE = 1e-8, 1e-12
"""How much numbers may differ in the form of an object that computes parts of it, as structures do."""

_FUNCTION_HINT = (
    "define it with `def` at the top level of a module that the worker can import, and pass values that it "
    "is bound to as arguments of the job"
)
_OBJECT_HINT = (
    "define its class at the top level of a module, with `as_dict` and `from_dict` (MSONable) that keep all "
    "of it, or pass plain values"
)
_VALUE_HINT = "pass numbers, text, lists, mappings, arrays, or objects that are MSONable"


class PayloadError(Exception):
    """A job cannot be sent to a worker as it was made; ``place`` is ``function``, ``args/0`` or the like."""

    def __init__(self, place: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.place = place
        self.message = message
        self.hint = hint


class _DiffersError(Exception):
    """Something differs after the trip; ``at`` is where, below the argument: ``.inner[0]``."""

    def __init__(self, at: str, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.at = at
        self.problem = problem
        self.hint = hint


def check_payload(job: Job) -> None:
    """Check that the function, the arguments and the schema of a job arrive as they are.

    Raises
    ------
    PayloadError
        One of them does not.
    """
    parts = [("function", "its function", job.function)]
    parts += [(f"args/{number}", f"args[{number}]", one) for number, one in enumerate(job.function_args)]
    parts += [(f"kwargs/{name}", f"kwargs.{name}", one) for name, one in job.function_kwargs.items()]
    parts += [("", "its output schema", job.output_schema)]
    for place, what, value in parts:
        try:
            _check(value, is_function=place == "function")
        except _DiffersError as error:
            name, subject = clean_name(str(job.name)), clean_name(f"{what}{error.at}")
            message = f"the job '{name}' cannot be sent to a worker: {subject} {error.problem}"
            raise PayloadError(place, message, error.hint) from error


def _check(given: Any, *, is_function: bool) -> None:
    back = _after_the_trip(given, "")
    at = ""
    try:
        if is_function and hasattr(back, "original"):  # a job runs the function below jobflow's decorator
            at = ".__self__"
            _compare(getattr(given, "__self__", None), getattr(back, "__self__", None), at)
            at, given, back = "", getattr(given, "original", given), back.original
        _compare(given, back, at)
    except _DiffersError:
        raise
    except Exception as error:  # whatever the user's classes raise
        problem = f"is {_named(given)}, which cannot be compared with what arrives: {headline(error)}"
        raise _DiffersError(at, problem, _OBJECT_HINT) from error


def _after_the_trip(given: Any, at: str) -> Any:
    """Return a value as the launcher reads it.

    Raises
    ------
    _DiffersError
        It, or the innermost part that the error names, cannot be written or read.
    """
    step = "written as JSON"
    try:
        form = json_with_bytes(json.dumps(encoded(given), default=bytes_as_json))
        step = "read back from JSON"
        return decoded(form)
    except Exception as error:  # whatever the user's classes raise
        if isinstance(given, dict):
            for key, inner in given.items():
                _after_the_trip(inner, f"{at}.{key}")
        elif isinstance(given, list | tuple):
            for number, inner in enumerate(given):
                _after_the_trip(inner, f"{at}[{number}]")
        problem = f"is {_named(given)}, which cannot be {step}: {headline(error)}"
        raise _DiffersError(at, problem, _FUNCTION_HINT if callable(given) else _VALUE_HINT) from error


# Comparing --------------------------------------------------------------------------------------------------


def _compare(given: Any, back: Any, at: str, *, in_object: bool = False) -> None:
    """Compare a value with what was read back.

    Raises
    ------
    _DiffersError
        They are not the same.
    """
    kind = type(given)
    if given is back or (kind is type(back) and kind in _PLAIN and given == back):
        if kind is str and given.startswith(FILE_MARKER):
            text = f"begins with '{FILE_MARKER}', so it arrives as a path"
            raise _DiffersError(at, text, "begin it with something else")
    elif isinstance(given, float) and isinstance(back, float):
        if not (given == back or (math.isnan(given) and math.isnan(back))):
            _differ(given, back, at, _VALUE_HINT)
    elif isinstance(given, Enum):
        if not _equal(given, back):
            _differ(given, back, at, _OBJECT_HINT)
    elif isinstance(given, dict) and isinstance(back, dict):
        if len(given) != len(back) or given.keys() != back.keys():
            _differ(given, back, at, "use keys that are text, or pass a list of pairs")
        for key, inner in given.items():
            _compare(inner, back[key], f"{at}.{key}", in_object=in_object)
    elif isinstance(given, list | tuple) and isinstance(back, list | tuple):
        becomes_list = isinstance(given, tuple) and isinstance(back, list)
        if len(given) != len(back) or (becomes_list and not in_object):
            _differ(given, back, at, _VALUE_HINT)
        for number, (one, other) in enumerate(zip(given, back, strict=True)):
            _compare(one, other, f"{at}[{number}]", in_object=in_object)
    elif callable(given) and not isinstance(given, MSONable | BaseModel):
        _compare_callables(given, back, at)
    elif kind is type(back) or (isinstance(back, kind) and hasattr(given, "as_dict")):
        _compare_objects(given, back, at)
    elif not _is_plain_form(given, back):
        _differ(given, back, at, _OBJECT_HINT)


_PLAIN = (str, int, bool, bytes)


def _compare_callables(given: Any, back: Any, at: str) -> None:
    """Compare functions by identity, and methods by what they are bound to as well."""
    if given is back:
        return
    methods = isinstance(given, types.MethodType) and isinstance(back, types.MethodType)
    if methods and given.__func__ is back.__func__ and type(given.__self__) is type(back.__self__):
        _compare(given.__self__, back.__self__, f"{at}.__self__")
        return
    # jobflow copies the function of a job, so one that is an object of its own is equal, not identical.
    own = not isinstance(given, types.FunctionType | types.MethodType | type) and type(given) is type(back)
    if not own or pickle.dumps(given) != pickle.dumps(back):
        _differ(given, back, at, _OBJECT_HINT if isinstance(given, type) else _FUNCTION_HINT)


def _compare_objects(given: Any, back: Any, at: str) -> None:
    """Compare two objects of one class: part by part where their parts are known, else by their forms."""
    parts = _parts(given)
    if isinstance(given, OutputReference):
        _compare([*map(list, given.attributes)], [*map(list, back.attributes)], at)
        if given.output_schema is not back.output_schema:
            _differ(given.output_schema, back.output_schema, at, _OBJECT_HINT)
    elif isinstance(given, np.ndarray):
        if given.dtype != back.dtype or given.shape != back.shape:
            what = [f"an array of {one.dtype} with the shape {one.shape}" for one in (given, back)]
            raise _DiffersError(at, f"is {what[0]}, but arrives as {what[1]}", _VALUE_HINT)
        if given.dtype.kind == "O":
            _compare(given.tolist(), back.tolist(), at)
        elif not np.array_equal(given, back, equal_nan=given.dtype.kind in "fc"):
            _differ(given, back, at, _VALUE_HINT)
    elif parts is not None:
        for name in parts:
            _compare(_part(given, name), _part(back, name), f"{at}.{name}", in_object=True)
    else:
        for name, key in _left_out(given, back):
            raise _DiffersError(at, f"is {_named(given)}, but arrives without {name}[{key!r}]", _OBJECT_HINT)
        if not _alike(_written(given), plain(back, keep_bytes=True)):
            _differ(given, back, at, _OBJECT_HINT)


def _left_out(given: Any, back: Any) -> Iterator[tuple[str, Any]]:
    """Yield (attribute, key) of entries that do not arrive with an object, such as new arrays of ``Atoms``.

    Only public attributes count: others may be caches.
    """
    for name, value in getattr(given, "__dict__", {}).items():
        other = getattr(back, name, None)
        if isinstance(value, dict) and isinstance(other, dict) and not name.startswith("_"):
            yield from ((name, key) for key in value if key not in other)


def _parts(value: Any) -> list[str] | None:
    """Return the names of the attributes that an object is written by; None if it writes itself."""
    if isinstance(value, BaseModel):
        return [*type(value).model_fields, *(value.model_extra or {})]
    if isinstance(value, MSONable):
        if type(value).as_dict is not MSONable.as_dict:
            return None
        spec = inspect.getfullargspec(type(value).__init__)
        return None if spec.varargs or spec.varkw else [*spec.args[1:], *spec.kwonlyargs]
    if dataclasses.is_dataclass(value) and not hasattr(value, "as_dict"):
        return [field.name for field in dataclasses.fields(value)]
    return None


def _part(value: Any, name: str) -> Any:
    """Return an attribute that an argument of ``__init__`` is kept in."""
    return getattr(value, name) if hasattr(value, name) else getattr(value, f"_{name}", None)


def _written(given: Any) -> Any:
    """Return the form of an object as JSON, and check the functions in it, which are written by name."""

    class Encoder(MontyEncoder):  # type: ignore[misc]
        def default(self, o: Any) -> Any:
            if isinstance(o, bytes | bytearray):
                return bytes_as_json(o)
            form = super().default(o)
            if callable(o) and not isinstance(o, MSONable | BaseModel):
                _compare_callables(o, decoded(form), "")
            return form

    return json.loads(json.dumps(given, cls=Encoder))


def _is_plain_form(given: Any, back: Any) -> bool:
    """Return whether a value arrives as an equal one of the plain type that it extends, as jobflow does it.

    Also a mapping with ``@module`` and ``@class`` or ``@callable``, which arrives as what it describes.
    """
    if isinstance(given, dict):
        try:
            return "@module" in given and _alike(plain(given), plain(back))
        except Exception:  # whatever the encoder of the object raises
            return False
    if isinstance(given, np.generic):  # in objects, also integers of other sizes
        return (isinstance(given, np.float64) or given.dtype.kind not in "fc") and _equal(given.item(), back)
    extended = isinstance(back, str | int | float | bytes) and isinstance(given, type(back))
    return extended and _equal(given, back)


def _alike(given: Any, back: Any) -> bool:
    """Compare two forms of an object as JSON: numbers nearly equal, without versions and empty ``@bound``."""
    if isinstance(given, dict) and isinstance(back, dict):
        one, other = (dict(_counting(form)) for form in (given, back))
        return one.keys() == other.keys() and all(_alike(inner, other[key]) for key, inner in one.items())
    if isinstance(given, list) and isinstance(back, list):
        return len(given) == len(back) and all(map(_alike, given, back))
    if isinstance(given, float) or isinstance(back, float):
        numbers = isinstance(given, int | float) and isinstance(back, int | float)
        return numbers and (
            math.isclose(given, back, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
            or (math.isnan(given) and math.isnan(back))
        )
    return type(given) is type(back) and bool(given == back)


def _counting(form: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, inner in form.items():
        if key != "@version" and not (key == "@bound" and inner is None):
            yield key, inner


def _equal(given: Any, back: Any) -> bool:
    try:
        return bool(given == back)
    except Exception:  # comparing arrays and the like
        return False


def _differ(given: Any, back: Any, at: str, hint: str) -> NoReturn:
    name, arrived = _named(given), _named(back)
    text = f"is {name}, but arrives as {'another one of that name' if name == arrived else arrived}"
    if callable(given) and isinstance(back, dict):
        text = f"is {name}, which cannot be imported by that name"
    raise _DiffersError(at, text, hint)


def _named(value: Any) -> str:
    """Return what a value is, for messages: ``the function 'trip.add'``, ``a Cell``."""
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"the function '{value.__module__}.{value.__qualname__}'"
    if isinstance(value, type):
        return f"the class '{value.__module__}.{value.__qualname__}'"
    if value is None or isinstance(value, str | int | float):
        return f"{clean_name(repr(value)[:60])}"
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
