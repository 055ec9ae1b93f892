"""The analysis: a Birch-Murnaghan equation of state through the strained points.

Of third order it is a cubic polynomial in x = V^(-2/3), so the fit is a linear least-squares problem: no
start values, no iterations, and exact for data that follow the equation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eos.reference import GPA_PER_EV_PER_CUBIC_ANGSTROM


def fit_equation_of_state(symbol: str, points: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Fit the points (``volume`` in angstrom^3 per atom, ``energy`` in eV per atom) of one fcc metal.

    A plain function, not decorated: a flow may name any function as a job. Returns ``symbol``, the numbers of
    :func:`birch_murnaghan`, ``lattice_constant`` (cubic cell, angstrom) and the ``volumes`` and ``energies``
    that were fitted. Raises ValueError as :func:`birch_murnaghan` does.
    """
    ordered = sorted(points, key=lambda point: point["volume"])
    volumes = [point["volume"] for point in ordered]
    energies = [point["energy"] for point in ordered]
    found = birch_murnaghan(volumes, energies)
    lattice_constant = (4 * found["v0"]) ** (1 / 3)
    return {
        "symbol": symbol,
        **found,
        "lattice_constant": lattice_constant,
        "volumes": volumes,
        "energies": energies,
    }


def birch_murnaghan(volumes: Sequence[float], energies: Sequence[float]) -> dict[str, float]:
    """Fit a third-order Birch-Murnaghan equation of state.

    Takes angstrom^3 and eV, of the same number of atoms. Returns ``v0`` (angstrom^3), ``e0`` (eV), ``b0``
    (GPa), ``b0_prime`` (no unit) and ``residual`` (root mean square, eV). Raises ValueError if there are
    fewer than four different volumes, or if the energy has no minimum between the smallest and the largest
    volume: an extrapolated bulk modulus is not a result.
    """
    import numpy as np

    if len(set(volumes)) < 4:
        raise ValueError(f"four different volumes are needed, got {len(set(volumes))}")
    middle = float(np.mean(volumes))
    x = (middle / np.asarray(volumes)) ** (2 / 3) - 1
    energy = np.polynomial.Polynomial.fit(x, energies, 3).convert()
    at = _minimum(energy, x.min(), x.max())
    v0 = middle * (1 + at) ** -1.5
    second = energy.deriv(2)(at) * (1 + at) ** 2
    third = energy.deriv(3)(at) * (1 + at) ** 3
    b0 = 4 / 9 * second / v0
    return {
        "v0": float(v0),
        "e0": float(energy(at)),
        "b0": float(b0 * GPA_PER_EV_PER_CUBIC_ANGSTROM),
        "b0_prime": float(4 + 8 / 27 * third / (v0 * b0)),
        "residual": float(np.sqrt(np.mean((energy(x) - np.asarray(energies)) ** 2))),
    }


def _minimum(energy: Any, low: float, high: float) -> float:
    """Return where the polynomial has its minimum between ``low`` and ``high``; ValueError if nowhere.

    The cubic term nearly vanishes for ``b0_prime`` near 4, where a general search for roots loses digits.
    """
    a, b, c = map(float, (*energy.deriv().coef, 0.0, 0.0)[:3])  # without powers that vanish
    discriminant = b * b - 4 * a * c
    if discriminant > 0 and (b > 0 or c > 0):  # of two roots, the one with an upward curvature
        root = discriminant**0.5
        at = -2 * a / (b + root) if b > 0 else (root - b) / (2 * c)
        if low <= at <= high:
            return float(at)
    raise ValueError("the energy has no minimum between the smallest and the largest volume")


def energy_at(fit: dict[str, Any], volume: float) -> float:
    """Return the energy (eV) of a fit at ``volume`` (angstrom^3)."""
    u = (fit["v0"] / volume) ** (2 / 3)
    shape = (u - 1) ** 3 * fit["b0_prime"] + (u - 1) ** 2 * (6 - 4 * u)
    stiffness = 9 / 16 * fit["v0"] * fit["b0"] / GPA_PER_EV_PER_CUBIC_ANGSTROM
    return float(fit["e0"] + stiffness * shape)
