"""The calculations: the equilibrium lattice constant, and the energy at one strained volume."""

from __future__ import annotations

from typing import Any

from jobflow import job

from eos import reference


@job
def relax(symbol: str) -> dict[str, Any]:
    """Find the fcc lattice constant with the lowest EMT energy, within 10 % of the reference.

    Returns ``symbol``, ``lattice_constant`` (cubic cell, angstrom), ``volume`` (angstrom^3 per atom) and
    ``energy`` (eV per atom). Raises KeyError for a metal without a reference.
    """
    from scipy.optimize import minimize_scalar

    guess = reference.lattice_constant(symbol)
    found = minimize_scalar(
        lambda a: fcc_energy(symbol, a),
        bounds=(0.9 * guess, 1.1 * guess),
        method="bounded",
        options={"xatol": 1e-7},
    )
    a = float(found.x)
    return {"symbol": symbol, "lattice_constant": a, "volume": a**3 / 4, "energy": float(found.fun)}


@job
def strain_point(symbol: str, lattice_constant: float, strain: float) -> dict[str, float]:
    """Calculate the EMT energy of the fcc cell at (1 + ``strain``) times the volume of the relaxed cell.

    Returns ``strain``, ``volume`` (angstrom^3 per atom) and ``energy`` (eV per atom). Raises ValueError if
    the strain leaves no volume.
    """
    if strain <= -1:
        raise ValueError(f"a volume strain of {strain} leaves no volume")
    a = lattice_constant * (1 + strain) ** (1 / 3)
    return {"strain": strain, "volume": a**3 / 4, "energy": fcc_energy(symbol, a)}


def fcc_energy(symbol: str, lattice_constant: float) -> float:
    """Return the EMT energy of the fcc crystal in eV per atom; ``lattice_constant`` in angstrom.

    ASE counts from the ideal crystal of the potential, so the energy at the minimum is close to zero.
    """
    from ase.build import bulk
    from ase.calculators.emt import EMT

    crystal = bulk(symbol, "fcc", a=lattice_constant)
    crystal.calc = EMT()
    return float(crystal.get_potential_energy())
