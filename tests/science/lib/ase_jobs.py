"""Small calculations with ASE's EMT potential, in jobflow's own style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from jobflow import Flow, Job, Maker, Response, job


def crystal(symbol: str, a: float) -> dict[str, Any]:
    """Return a cubic cell of a metal, rattled, as plain data."""
    atoms = bulk(symbol, "fcc", a=a, cubic=True)
    atoms.rattle(0.05, seed=3)
    return _plain(atoms)


@job
def relax(structure: dict[str, Any], fmax: float = 0.02) -> dict[str, Any]:
    """Relax positions; return structure, energy and forces."""
    atoms = _atoms(structure)
    BFGS(atoms, logfile=None).run(fmax=fmax, steps=60)
    return {
        "structure": _plain(atoms),
        "energy": float(atoms.get_potential_energy()),
        "forces": atoms.get_forces(),
    }


@job
def static(structure: dict[str, Any]) -> float:
    """Return the energy."""
    return float(_atoms(structure).get_potential_energy())


@dataclass
class DynamicsMaker(Maker):
    """Molecular dynamics at constant energy; the trajectory is kept in an additional store."""

    name: str = "dynamics"
    steps: int = 20

    @job(data="trajectory")
    def make(self, structure: dict[str, Any]) -> dict[str, Any]:
        """Return energies and positions of all steps."""
        atoms = _atoms(structure)
        atoms.set_velocities(np.random.default_rng(7).normal(scale=0.02, size=(len(atoms), 3)))
        frames: list[Any] = []
        integrator = VelocityVerlet(atoms, 2 * units.fs)
        integrator.attach(lambda: frames.append(atoms.get_positions().tolist()))
        integrator.run(self.steps)
        return {"trajectory": frames, "energy": float(atoms.get_total_energy())}


@job
def spread(positions: list[list[float]]) -> float:
    """Return the standard deviation of positions."""
    return float(np.std(positions))


@job
def scan(structure: dict[str, Any], strains: list[float]) -> Response[Any]:
    """Be replaced by a static calculation for each strain, and a fit."""
    jobs: list[Job] = []
    for strain in strains:
        cell = np.array(structure["cell"]) * (1 + strain)
        scaled = structure | {"cell": cell.tolist(), "positions": _scaled(structure, cell)}
        jobs.append(static(scaled))
        jobs[-1].name = f"static {strain:+.2f}"
    fitted = fit(strains, [each.output for each in jobs])
    return Response(replace=Flow([*jobs, fitted], output=fitted.output))


@job
def fit(strains: list[float], energies: list[float]) -> dict[str, Any]:
    """Fit a parabola."""
    return {"coefficients": np.polyfit(strains, energies, 2).tolist(), "lowest": min(energies)}


def equation_of_state(structure: dict[str, Any], strains: list[float]) -> Flow:
    """Relax, and scan strains of the result."""
    relaxed = relax(structure)
    return Flow([relaxed, scan(relaxed.output["structure"], strains)])


def _scaled(structure: dict[str, Any], cell: Any) -> Any:
    return (
        np.linalg.solve(np.array(structure["cell"]).T, np.array(structure["positions"]).T).T @ cell
    ).tolist()


def _plain(atoms: Atoms) -> dict[str, Any]:
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
    }


def _atoms(structure: dict[str, Any]) -> Atoms:
    return Atoms(pbc=True, calculator=EMT(), **structure)
