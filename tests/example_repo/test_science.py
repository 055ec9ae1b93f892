"""The example campaign gives right numbers: its functions are run directly, without the reconciler."""

from __future__ import annotations

import csv
import importlib
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from ruamel.yaml import YAML

CAMPAIGN = Path(__file__).parents[2] / "example-repo"
sys.path.insert(0, str(CAMPAIGN / "lib"))

reference = importlib.import_module("eos.reference")
jobs = importlib.import_module("eos.jobs")
fit = importlib.import_module("eos.fit")
report = importlib.import_module("eos.report")
flows = importlib.import_module("eos.flows")

STRAINS = [-0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06]
NAMES = ["relax", *(f"strain-{number}" for number in range(1, 8)), "fit"]


def equation_of_state(symbol: str) -> dict[str, Any]:
    """Do what one flow of the campaign does."""
    relaxed = jobs.relax.original(symbol)
    points = [jobs.strain_point.original(symbol, relaxed["lattice_constant"], strain) for strain in STRAINS]
    found: dict[str, Any] = fit.fit_equation_of_state(symbol, points)
    return found


@pytest.fixture(scope="module")
def fits() -> dict[str, dict[str, Any]]:
    """The fits of all metals."""
    return {symbol: equation_of_state(symbol) for symbol in reference.METALS}


def test_the_campaign_has_seven_metals() -> None:
    assert reference.METALS == ("Al", "Cu", "Ni", "Pd", "Ag", "Pt", "Au")


@pytest.mark.parametrize("symbol", reference.METALS)
def test_lattice_constant_and_bulk_modulus(symbol: str, fits: dict[str, dict[str, Any]]) -> None:
    found = fits[symbol]
    assert found["lattice_constant"] == pytest.approx(reference.lattice_constant(symbol), rel=0.02)
    assert found["b0"] == pytest.approx(reference.bulk_modulus(symbol), rel=0.15)
    assert found["residual"] < 1e-4


@pytest.mark.parametrize("symbol", reference.METALS)
def test_the_fit_and_the_relaxation_agree(symbol: str, fits: dict[str, dict[str, Any]]) -> None:
    """Two ways to the equilibrium: a search for the lowest energy, and the minimum of the fitted curve."""
    relaxed = jobs.relax.original(symbol)
    assert fits[symbol]["lattice_constant"] == pytest.approx(relaxed["lattice_constant"], rel=1e-4)
    assert fits[symbol]["e0"] == pytest.approx(relaxed["energy"], abs=1e-4)


@pytest.mark.parametrize(
    ("symbol", "printed"),
    [
        (symbol, value)
        for symbol, values in reference.PRINTED_BULK_MODULUS.items()
        for value, _source in values
    ],
)
def test_bulk_moduli_that_other_codes_print(
    symbol: str, printed: float, fits: dict[str, dict[str, Any]]
) -> None:
    assert fits[symbol]["b0"] == pytest.approx(printed, rel=0.02)


def test_strain_is_a_change_of_volume() -> None:
    point = jobs.strain_point.original("Cu", 3.6, 0.05)
    assert point["volume"] == pytest.approx(1.05 * 3.6**3 / 4)


def test_a_strain_that_leaves_no_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no volume"):
        jobs.strain_point.original("Cu", 3.6, -1.0)


@settings(max_examples=200, deadline=None)
@example(v0=8.0, e0=0.0, b0=20.0, b0_prime=4.0, strains=[-0.1, 0.1, *(n / 1000 for n in range(6))])
@example(v0=11.2, e0=-4.3, b0=440.5, b0_prime=4.0, strains=[-0.1, 0.1, 0.051, 0.074, -0.04, 0.0, 0.08])
@given(
    v0=st.floats(8, 30),
    e0=st.floats(-10, 1),
    b0=st.floats(20, 500),
    b0_prime=st.floats(2, 8),
    strains=st.lists(st.integers(-90, 90), min_size=6, max_size=15, unique=True).map(
        lambda numbers: [-0.1, 0.1, *(number / 1000 for number in numbers)]
    ),
)
def test_the_fit_recovers_a_birch_murnaghan_curve(
    v0: float, e0: float, b0: float, b0_prime: float, strains: list[float]
) -> None:
    true = {"v0": v0, "e0": e0, "b0": b0, "b0_prime": b0_prime}
    volumes = [v0 * (1 + strain) for strain in strains]
    found = fit.birch_murnaghan(volumes, [fit.energy_at(true, volume) for volume in volumes])
    assert found["v0"] == pytest.approx(v0, rel=1e-7)
    assert found["e0"] == pytest.approx(e0, rel=1e-7, abs=1e-9)
    assert found["b0"] == pytest.approx(b0, rel=1e-5)
    assert found["b0_prime"] == pytest.approx(b0_prime, rel=1e-3)
    assert found["residual"] < 1e-9


def test_energy_at_is_the_textbook_curve() -> None:
    """Checked against numbers that follow from definitions: E(v0) = e0, P(v0) = 0 and B(v0) = b0."""
    true = {"v0": 15.0, "e0": -3.0, "b0": 100.0, "b0_prime": 5.0}
    step = 0.01
    low, middle, high = (fit.energy_at(true, 15.0 + shift) for shift in (-step, 0.0, step))
    assert middle == -3.0
    assert (high - low) / (2 * step) == pytest.approx(0, abs=1e-5)
    curvature = (high - 2 * middle + low) / step**2
    assert 15.0 * curvature * reference.GPA_PER_EV_PER_CUBIC_ANGSTROM == pytest.approx(100.0, rel=1e-3)


def test_three_volumes_are_not_enough() -> None:
    with pytest.raises(ValueError, match="four different volumes are needed, got 3"):
        fit.birch_murnaghan([10, 11, 12, 12], [1, 0, 1, 1])


def test_a_curve_without_minimum_is_refused() -> None:
    with pytest.raises(ValueError, match="no minimum"):
        fit.birch_murnaghan([10, 11, 12, 13], [4, 3, 2, 1])


def test_the_order_of_the_points_does_not_matter() -> None:
    points = [jobs.strain_point.original("Ag", 4.06, strain) for strain in STRAINS]
    assert fit.fit_equation_of_state("Ag", points) == fit.fit_equation_of_state("Ag", points[::-1])


def test_summary_writes_table_csv_and_plot(
    fits: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = report.summary(*fits.values())
    assert [row["metal"] for row in result["rows"]] == list(reference.METALS)
    assert all(abs(row["b0_deviation_percent"]) < 15 for row in result["rows"])
    table = Path(result["table"]).read_text(encoding="utf-8").splitlines()
    assert table[0].split() == list(report.COLUMNS)
    assert [line.split()[0] for line in table[1:]] == list(reference.METALS)
    with Path(result["csv"]).open(encoding="utf-8", newline="") as file:
        assert [float(row["b0"]) for row in csv.DictReader(file)] == [row["b0"] for row in result["rows"]]
    assert drawn_pixels(tmp_path / "summary.png") > 1000
    assert result["plot"] == str(tmp_path / "summary.png")


def drawn_pixels(path: Path) -> int:
    """Return how many bytes of the decompressed pixels of a PNG file are neither 0 nor 255."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, pixels = 8, b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            pixels += data[at + 8 : at + 8 + length]
        at += 12 + length
    return sum(byte not in (0, 255) for byte in zlib.decompress(pixels))


def test_summary_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to summarise"):
        report.summary()


def test_the_factory_gives_the_same_result(fits: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    flow = flows.eos_flow("Au", STRAINS)
    assert [job.name for job in flow.jobs] == NAMES
    store = JobStore(MemoryStore())
    run_locally(flow, store=store, root_dir=tmp_path, ensure_success=True, log=False)
    found = store.get_output(flow.jobs[-1].uuid)
    assert found["b0"] == pytest.approx(fits["Au"]["b0"], rel=1e-9)


def specs() -> dict[str, dict[str, Any]]:
    """The flows of the campaign by name."""
    parser = YAML(typ="safe")
    documents = [parser.load(path) for path in sorted((CAMPAIGN / "flows").glob("*.yaml"))]
    return {document["metadata"]["name"]: document for document in documents}


@pytest.mark.parametrize("symbol", reference.METALS)
def test_the_manifests_say_what_the_functions_expect(symbol: str) -> None:
    document = specs()[f"eos-{symbol.lower()}"]
    assert document["metadata"]["labels"] == {"campaign": "eos", "metal": symbol}
    if "factory" in document["spec"]:
        assert document["spec"]["factory"]["kwargs"] == {"symbol": symbol, "strains": STRAINS}
        return
    entries = document["spec"]["jobs"]
    assert [entry["id"] for entry in entries] == NAMES
    assert {entry["args"][0] for entry in entries} == {symbol}
    assert [entry["args"][2] for entry in entries[1:-1]] == STRAINS
    assert entries[-1]["args"][1] == [{"$output": name} for name in NAMES[1:-1]]


def test_the_summary_refers_to_every_metal() -> None:
    arguments = specs()["eos-summary"]["spec"]["jobs"][0]["args"]
    assert arguments == [{"$output": f"eos-{symbol.lower()}/fit"} for symbol in reference.METALS]
