"""Arguments that a job's function does not take are found when its flow is built, not when the job runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from jobflow import Job, Maker, job

from reconciler.build.calls import check_call
from reconciler.build.user_code import BuildError


def plain(a, b, *, scale=1):
    return a, b, scale


@job
def decorated(a, b=2):
    return a, b


@job(data="x")
def with_store(a):
    return {"x": a}


def any_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def without_the_first(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(b):
        return function(1, b)

    return wrapper


@dataclass
class Adder(Maker):
    name: str = "adder"

    @job
    def make(self, a, b):
        return a + b

    @classmethod
    @job
    def of_class(cls, a):
        return a

    @staticmethod
    @job
    def alone(a):
        return a


def made(function: Any, *args: Any, **kwargs: Any) -> Job:
    return Job(function, function_args=args, function_kwargs=kwargs)


FITS = {
    "by position": lambda: made(plain, 1, 2),
    "by name": lambda: made(plain, a=1, b=2, scale=3),
    "with a default": lambda: decorated(1),
    "a reference": lambda: decorated(decorated(1).output, b=decorated(2).output),
    "a decorator's options": lambda: with_store(1),
    "a method": lambda: Adder().make(1, b=2),
    "a class method": lambda: Adder.of_class(1),
    "a static method": lambda: Adder.alone(1),
    "a wrapper that takes all": lambda: made(any_arguments(plain), 1, 2, 3, other=4),
    "a wrapper with less": lambda: made(without_the_first(plain), 2),
    "a class": lambda: made(Adder, name="x"),
    "compiled": lambda: made(max, 1, 2),
}

DIFFERS = {
    "too few": (lambda: made(plain, 1), "'a', 'b', 'scale'"),
    "too many": (lambda: made(plain, 1, 2, 3), "'a', 'b', 'scale'"),
    "a near name": (lambda: made(plain, 1, 2, scalee=3), "did you mean 'scale'?"),
    "twice": (lambda: decorated(1, a=1), "'a', 'b'"),
    "a decorator's options": (lambda: with_store(), "'a'"),
    "a method": (lambda: Adder().make(1), "'a', 'b'"),
    "a class method": (lambda: Adder.of_class(1, 2), "'a'"),
    "a static method": (lambda: Adder.alone(b=1), "known: a"),
    "a wrapper with less": (lambda: made(without_the_first(plain), 1, 2), "'b'"),
}


@pytest.mark.parametrize("make", FITS.values(), ids=FITS)
def test_what_can_be_called_is_accepted(make: Callable[[], Job]) -> None:
    assert check_call(make(), "/spec/jobs/0/function") is None


@pytest.mark.parametrize(("make", "hint"), DIFFERS.values(), ids=DIFFERS)
def test_what_cannot_be_called_is_refused(make: Callable[[], Job], hint: str) -> None:
    one = make()
    one.name = "one"
    with pytest.raises(BuildError, match="the job 'one' cannot call") as caught:
        check_call(one, "/spec/jobs/0/function")
    assert caught.value.pointer == "/spec/jobs/0/function"
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: made(plain, 1, bb=2), "it has no parameter 'bb'"),  # and so it lacks 'b', which says less
        (lambda: made(plain, 1, 2, **{"a\nb": 3}), "it has no parameter 'a\\nb'"),
        (lambda: made(plain, 1), "missing a required argument: 'b'"),
        (lambda: made(lambda a, **rest: a, rest=1), "missing a required argument: 'a'"),
    ],
)
def test_a_wrong_name_is_said_before_what_is_missing(make: Callable[[], Job], problem: str) -> None:
    with pytest.raises(BuildError) as caught:
        check_call(make(), "")
    assert str(caught.value).endswith(problem)
