"""``reconcile results``: one row for each flow, the same in every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.cli.world import World

pytestmark = pytest.mark.usefixtures("warm")

COLUMNS = "flow,state,output.value,output.add,output.list[1],item.n,labels.campaign"


def test_a_row_for_each_flow_with_parts_of_its_outputs(world: World) -> None:
    rows = {row["flow"]: row for row in world.json("results", "--columns", COLUMNS)}
    assert rows["arithmetic"] == {
        "flow": "arithmetic", "state": "completed", "output.value": 5, "output.add": 7,
        "output.list[1]": None, "item.n": None, "labels.campaign": "tests",
    }  # fmt: skip
    assert rows["failing"]["state"] == "failed"
    assert rows["pair-1"]["state"] == "missing"
    assert rows["pair-1"]["item.n"] == 1
    assert rows["generating"]["output.list[1]"] is not None


def test_every_format_has_the_same_rows(world: World, tmp_path: Path) -> None:
    words = ("results", "arithmetic", "pair-*", "--columns", "flow,item.*,output.add,output.list")
    rows = world.json(*words)
    assert [row["flow"] for row in rows] == ["arithmetic", "pair-1"]
    text = world.run(*words, "-o", "csv").stdout
    assert list(csv.reader(io.StringIO(text))) == [
        ["flow", "item.n", "output.add", "output.list"],
        ["arithmetic", "", "7", ""],
        ["pair-1", "1", "", ""],
    ]
    table = world.run(*words).stdout.splitlines()
    assert len(table) == 3
    assert world.run(*words, "-o", "name").stdout.split() == ["arithmetic", "pair-1"]


def test_parquet_has_typed_columns(world: World, tmp_path: Path) -> None:
    columns = "flow,item.n,output.value,output.list,seconds"
    file = tmp_path / "results.parquet"
    world.run_to(file, "results", "--columns", columns, "-o", "parquet")
    table = pyarrow.parquet.read_table(file)
    assert [str(field.type) for field in table.schema][:4] == ["string", "int64", "int64", "string"]
    found = {row["flow"]: row for row in table.to_pylist()}
    assert found["arithmetic"]["output.value"] == 5
    assert found["pair-1"]["item.n"] == 1
    assert isinstance(json.loads(found["generating"]["output.list"]), list)


def test_selections(world: World) -> None:
    def names(*words: str) -> list[str]:
        return [row["flow"] for row in world.json("results", *words, "--columns", "flow")]

    assert names("--only", "failed") == ["failing"]
    assert set(names("--only", "failed,missing")) >= {"failing", "pair-1"}
    assert names("flowset:pair") == ["pair-1"]
    assert names("item.n=1") == ["pair-1"]
    assert names("flow:campaign=tests") == ["arithmetic"]
    assert names("label:campaign=tests") == ["arithmetic"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--columns", "flw"], "did you mean 'flow'?"),
        (["--columns", "item.m"], "item.n"),
        (["--columns", "output"], ""),
        (["--only", "fail"], "did you mean 'failed'?"),
        (["state:FAILED"], "--only"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest_name(
    world: World, words: list[str], hint: str
) -> None:
    done = world.run("results", *words)
    assert done.returncode == 2
    assert hint in done.stderr
