"""The descriptors speak as qtoolkit does: same keywords, same directives, same meaning of generic fields."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qtoolkit.core.data_objects import ProcessPlacement, QResources
from qtoolkit.io import PBSIO, SGEIO, ShellIO, SlurmIO
from qtoolkit.io.base import QTemplate

from reconciler.model.schedulers import SCHEDULERS
from reconciler.model.schedulers.base import RESERVED, VERBATIM, unsafe_values
from reconciler.model.schedulers.generic import COUNTS, PLACEMENTS, QRESOURCES_FIELDS

IOS: dict[str, Any] = {"shell": ShellIO, "slurm": SlurmIO, "pbs": PBSIO, "sge": SGEIO}
BATCH = ["slurm", "pbs", "sge"]
OURS = {"pbs": {"project"}, "slurm": {"clusters", "reservation"}}
"""Keywords that qtoolkit does not have."""


@pytest.mark.parametrize("name", sorted(IOS))
def test_keywords_are_the_identifiers_of_the_template(name: str) -> None:
    theirs = QTemplate(IOS[name].header_template).get_identifiers()
    assert SCHEDULERS[name].keywords == {*theirs, *OURS.get(name, set())}


@pytest.mark.parametrize("name", BATCH)
def test_each_keyword_becomes_the_same_directive(name: str) -> None:
    scheduler = SCHEDULERS[name]
    fixed = scheduler.header_lines({})
    for key in sorted(scheduler.keywords - OURS.get(name, set()) - {VERBATIM, "cwd"}):
        value = "select=7" if key == "select" else "7"  # what is no list of resources, we make one
        theirs = IOS[name]().generate_header({key: value}).split()
        lines = [line for line in scheduler.header_lines({key: value}) if line not in fixed]
        assert " ".join(lines).split() == theirs, key


@pytest.mark.parametrize("name", sorted(IOS))
def test_generic_fields_are_those_that_the_converter_supports(name: str) -> None:
    assert SCHEDULERS[name].generic_fields == set(IOS[name]().supported_qresources_keys)


def test_generic_fields_are_those_of_qresources() -> None:
    assert {field.name for field in fields(QResources)} == QRESOURCES_FIELDS
    assert tuple(member.value for member in ProcessPlacement) == PLACEMENTS
    assert {field.name for field in fields(QResources) if field.type == "int | None"} - {"njobs"} == COUNTS


NUMBERS = st.integers(1, 100_000)
TEXTS = st.sampled_from(["a", "debug", "x1"])
COMMON = {
    "queue_name": TEXTS,
    "memory_per_thread": NUMBERS,
    "threads_per_process": NUMBERS,
    "time_limit": NUMBERS,
    "priority": st.integers(-5, 5),
    "email_address": TEXTS,
}
SPREAD = st.one_of(
    st.fixed_dictionaries({"processes": NUMBERS}),
    st.fixed_dictionaries({"nodes": NUMBERS, "processes_per_node": NUMBERS}),
    st.fixed_dictionaries({"processes": NUMBERS, "process_placement": st.sampled_from(PLACEMENTS[:3])}),
    st.fixed_dictionaries(
        {"nodes": NUMBERS, "processes_per_node": NUMBERS, "process_placement": st.just(PLACEMENTS[3])}
    ),
)


def theirs(name: str, values: dict[str, Any]) -> dict[str, str]:
    """Return what qtoolkit converts generic resources to."""
    placement = values.get("process_placement")
    given = values | ({"process_placement": ProcessPlacement(placement)} if placement else {})
    return {
        key: str(value) for key, value in IOS[name]().check_convert_qresources(QResources(**given)).items()
    }


@given(
    spread=SPREAD,
    more=st.fixed_dictionaries(
        {}, optional=COMMON | {"account": TEXTS, "qos": TEXTS, "gpus_per_job": st.integers(0, 8)}
    ),
)
def test_generic_resources_on_slurm(spread: dict[str, Any], more: dict[str, Any]) -> None:
    ours = SCHEDULERS["slurm"].from_generic(spread | more, {})
    assert {key: str(value) for key, value in ours.items()} == theirs("slurm", spread | more)


@given(
    spread=SPREAD,
    more=st.fixed_dictionaries({}, optional=COMMON | {"account": TEXTS, "rerunnable": st.booleans()}),
)
def test_generic_resources_on_pbs(spread: dict[str, Any], more: dict[str, Any]) -> None:
    ours = SCHEDULERS["pbs"].from_generic(spread | more, {})
    if "rerunnable" in ours:
        ours["rerunnable"] = "y" if ours["rerunnable"] else "n"
    assert {key: str(value) for key, value in ours.items()} == theirs("pbs", spread | more)


@given(spread=SPREAD, more=st.fixed_dictionaries({}, optional=COMMON))
def test_generic_resources_on_grid_engine(spread: dict[str, Any], more: dict[str, Any]) -> None:
    """Apart from processes and memory, which qtoolkit asks for as of a PBS."""
    ours = SCHEDULERS["sge"].from_generic(spread | more, {"model": "smp"})
    expected = theirs("sge", spread | more)
    expected.pop("place", None)
    del expected["select"], ours["model"]
    ours.pop("select", None)
    assert {key: str(value) for key, value in ours.items()} == expected


def test_every_scheduler_has_its_descriptor() -> None:
    assert set(SCHEDULERS) == set(IOS)


def test_reserved_words_exist() -> None:
    keywords = (scheduler.keywords for scheduler in SCHEDULERS.values())
    assert frozenset().union(*keywords, QRESOURCES_FIELDS) >= RESERVED


@pytest.mark.parametrize(
    ("values", "pointers"),
    [
        ({"account": "plain", "nodes": 1, "requeue": True, "time": "1:00:00"}, []),
        ({"qverbatim": "echo 1\necho 2"}, []),
        ({"account": "mine\n#SBATCH --qos=theirs"}, ["/account"]),
        ({"account": "a$$b"}, ["/account"]),
        ({"a": "x\r"}, ["/a"]),
        ({"a": "x\x7f"}, ["/a"]),
        ({"a": ["x"]}, ["/a"]),
        ({"scheduler_kwargs": {"account": "x\ny"}}, ["/scheduler_kwargs/account"]),
    ],
)
def test_unsafe_values(values: dict[str, Any], pointers: list[str]) -> None:
    assert [pointer for pointer, _ in unsafe_values(values)] == pointers
