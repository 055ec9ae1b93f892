"""Lattice constants and bulk moduli that EMT is known to give, and where the numbers come from.

EMT describes a perfect fcc crystal by three published numbers for each metal: the cohesive energy E0, the
Wigner-Seitz radius s0 and lambda, which is fitted to the bulk modulus. The parameter table is that of

    K. W. Jacobsen, P. Stoltze, J. K. Norskov,
    "A semi-empirical effective medium theory for metals and alloys", Surf. Sci. 366 (1996) 394-402,

as printed in the ASE documentation (ase.calculators.emt). The energy per atom is E0 (1 + x) exp(-x) with
x = lambda (s - s0), up to a pair correction that vanishes for a perfect fcc crystal. From it follow

    a0 = (16 pi / 3)^(1/3) s0         B0 = -E0 lambda^2 / (12 pi s0).

The values below are these two formulas, so they do not depend on the code that this campaign runs. They are
not numbers read from the paper. A calculation does not meet them exactly, since ASE sums several shells of
neighbours under a smooth cutoff, where the pair correction does not vanish completely. It comes out lower by
1.7 % in a0 and 8 % in B0 for Al, and by 1 % and 6 % for Ni (3 % in B0 with ``asap_cutoff=True``); the others
are within 1 % and 2 %.

A bulk modulus printed as such by an EMT code was found for Cu and Ag only (``PRINTED_BULK_MODULUS``). For Al,
Ni, Pd, Pt and Au no printed EMT value could be confirmed: there the formula is the only reference.
"""

from __future__ import annotations

from math import pi

BOHR = 0.529177210903  # in angstrom, CODATA 2018
GPA_PER_EV_PER_CUBIC_ANGSTROM = 160.21766208  # 1 eV / angstrom^3 in GPa

#: symbol -> (E0 in eV, s0 in bohr, lambda in 1/bohr), Surf. Sci. 366 (1996) 394.
PARAMETERS: dict[str, tuple[float, float, float]] = {
    "Al": (-3.28, 3.00, 1.169),
    "Cu": (-3.51, 2.67, 1.906),
    "Ni": (-4.44, 2.60, 1.948),
    "Pd": (-3.90, 2.87, 2.155),
    "Ag": (-2.96, 3.01, 1.892),
    "Pt": (-5.85, 2.90, 2.192),
    "Au": (-3.80, 3.00, 2.182),
}

METALS: tuple[str, ...] = tuple(PARAMETERS)

#: symbol -> [(B0 in GPa, source)]: values that an EMT code prints.
PRINTED_BULK_MODULUS: dict[str, list[tuple[float, str]]] = {
    "Cu": [(133.52, "test suite of ASAP, testStress.py")],
    "Ag": [
        (99.01, "test suite of ASAP, testStress.py"),
        (100.14, "ASE documentation, tutorial on the equation of state of silver"),
    ],
}


def lattice_constant(symbol: str) -> float:
    """Return the reference lattice constant of the cubic fcc cell in angstrom; KeyError if unknown."""
    _, s0, _ = PARAMETERS[symbol]
    return float((16 * pi / 3) ** (1 / 3) * s0 * BOHR)


def bulk_modulus(symbol: str) -> float:
    """Return the reference bulk modulus in GPa; KeyError if the metal is unknown."""
    e0, s0, decay = PARAMETERS[symbol]
    return -e0 * decay**2 / (12 * pi * s0) / BOHR**3 * GPA_PER_EV_PER_CUBIC_ANGSTROM
