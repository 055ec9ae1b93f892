"""The summary of the campaign: a table, a CSV file and a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eos import reference
from eos.fit import energy_at

COLUMNS = ("metal", "a0", "a0_reference", "b0", "b0_reference", "b0_deviation_percent", "b0_prime", "e0")


def summary(*fits: dict[str, Any]) -> dict[str, Any]:
    """Compare the fits with the reference and write summary.txt, summary.csv and summary.png here.

    Returns ``rows`` (one dict for each metal: lattice constants in angstrom, bulk moduli in GPa, e0 in eV
    per atom) and the absolute paths ``table``, ``csv`` and ``plot``. Raises ValueError without any fit and
    KeyError for a metal without a reference.
    """
    if not fits:
        raise ValueError("nothing to summarise")
    rows = [compare(fit) for fit in fits]
    here = Path.cwd()
    table, data, plot = here / "summary.txt", here / "summary.csv", here / "summary.png"
    table.write_text(as_text(rows), encoding="utf-8")
    write_csv(rows, data)
    draw(fits, rows, plot)
    return {"rows": rows, "table": str(table), "csv": str(data), "plot": str(plot)}


def compare(fit: dict[str, Any]) -> dict[str, Any]:
    """Return one row of the table: what the fit gave beside the reference."""
    expected = reference.bulk_modulus(fit["symbol"])
    return {
        "metal": fit["symbol"],
        "a0": round(fit["lattice_constant"], 4),
        "a0_reference": round(reference.lattice_constant(fit["symbol"]), 4),
        "b0": round(fit["b0"], 2),
        "b0_reference": round(expected, 2),
        "b0_deviation_percent": round(100 * (fit["b0"] / expected - 1), 2),
        "b0_prime": round(fit["b0_prime"], 3),
        "e0": round(fit["e0"], 6),
    }


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table for a terminal, numbers aligned to the right."""
    lines = [COLUMNS, *([str(row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "".join(_aligned(line, widths) + "\n" for line in lines)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return one line of the table."""
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the rows with a header line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(fits: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the E(V) curves, and the bulk moduli against the reference, into a PNG file."""
    # Not pyplot: a Figure of its own needs no display and keeps no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for fit in fits:
        _draw_curve(left, fit)
    left.set(xlabel="volume / equilibrium volume", ylabel="energy above the minimum (meV / atom)")
    left.legend()
    _draw_moduli(right, rows)
    FigureCanvasAgg(figure).print_png(str(path))


def _draw_curve(axes: Any, fit: dict[str, Any]) -> None:
    """Draw the points of one metal and the fitted curve through them."""
    low, high, v0 = fit["volumes"][0], fit["volumes"][-1], fit["v0"]
    grid = [low + (high - low) * step / 60 for step in range(61)]
    (line,) = axes.plot([v / v0 for v in grid], [1e3 * (energy_at(fit, v) - fit["e0"]) for v in grid])
    heights = [1e3 * (energy - fit["e0"]) for energy in fit["energies"]]
    axes.plot([v / v0 for v in fit["volumes"]], heights, "o", color=line.get_color(), label=fit["symbol"])


def _draw_moduli(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Draw one bar for each metal, and a line across it where the reference is."""
    metals = [row["metal"] for row in rows]
    axes.bar(metals, [row["b0"] for row in rows], width=0.6, color="lightsteelblue", label="this campaign")
    axes.plot(metals, [row["b0_reference"] for row in rows], "_k", markersize=28, label="reference")
    axes.set(ylabel="bulk modulus (GPa)")
    axes.legend()
