"""The keyword tables equal what the installed qtoolkit accepts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from qtoolkit.core.data_objects import ProcessPlacement, QResources
from qtoolkit.io import PBSIO, SGEIO, ShellIO, SlurmIO
from qtoolkit.io.base import QTemplate

from reconciler.model.generic import COUNTS, PLACEMENTS
from reconciler.model.schedulers import (
    KEYWORDS,
    QRESOURCES_FIELDS,
    QRESOURCES_SUPPORTED,
    RESERVED,
    unsafe_values,
)

SCHEDULERS: dict[str, Any] = {"shell": ShellIO, "slurm": SlurmIO, "pbs": PBSIO, "sge": SGEIO}


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_keywords_are_the_identifiers_of_the_template(name: str) -> None:
    template = QTemplate(SCHEDULERS[name].header_template)
    assert sorted(KEYWORDS[name]) == sorted(template.get_identifiers())


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_generic_fields_are_those_that_the_converter_supports(name: str) -> None:
    assert sorted(QRESOURCES_SUPPORTED[name]) == sorted(SCHEDULERS[name]().supported_qresources_keys)


def test_generic_fields_are_those_of_qresources() -> None:
    assert sorted(QRESOURCES_FIELDS) == sorted(field.name for field in fields(QResources))
    assert tuple(member.value for member in ProcessPlacement) == PLACEMENTS
    assert {field.name for field in fields(QResources) if field.type == "int | None"} - {"njobs"} == COUNTS


def test_every_scheduler_has_its_tables() -> None:
    assert set(KEYWORDS) == set(QRESOURCES_SUPPORTED) == set(SCHEDULERS)


def test_reserved_words_exist() -> None:
    assert frozenset().union(*KEYWORDS.values(), QRESOURCES_FIELDS) >= RESERVED


def test_an_unsafe_value_would_have_become_a_line_of_the_script() -> None:
    """Why line breaks are refused: qtoolkit substitutes as it finds it."""
    values = {"account": "mine\n#SBATCH --qos=theirs"}
    header = SlurmIO().generate_header(values)
    assert "#SBATCH --qos=theirs" in header.splitlines()
    assert [pointer for pointer, _ in unsafe_values(values)] == ["/account"]


def test_two_dollars_would_have_dropped_the_line() -> None:
    values = {"account": "a$$b"}
    assert "account" not in SlurmIO().generate_header(values)
    assert [pointer for pointer, _ in unsafe_values(values)] == ["/account"]


@pytest.mark.parametrize(
    ("values", "pointers"),
    [
        ({"account": "plain", "nodes": 1, "requeue": True, "time": "1:00:00"}, []),
        ({"qverbatim": "echo 1\necho 2"}, []),
        ({"a": "x\r"}, ["/a"]),
        ({"a": "x\x7f"}, ["/a"]),
        ({"a": ["x"]}, ["/a"]),
        ({"scheduler_kwargs": {"account": "x\ny"}}, ["/scheduler_kwargs/account"]),
    ],
)
def test_unsafe_values(values: dict[str, Any], pointers: list[str]) -> None:
    assert [pointer for pointer, _ in unsafe_values(values)] == pointers
