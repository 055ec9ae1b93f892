"""The same flow as in flows/eos-al.yaml, made in Python: for the factory form (flows/eos-pt.yaml)."""

from __future__ import annotations

from collections.abc import Sequence

from jobflow import Flow, Job

from eos.fit import fit_equation_of_state
from eos.jobs import relax, strain_point


def eos_flow(symbol: str, strains: Sequence[float]) -> Flow:
    """Return the flow ``relax`` -> ``strain-1``, ``strain-2``, ... -> ``fit`` of one fcc metal.

    ``strains`` are relative changes of the volume. The names are those of the flows written out in YAML, so
    that other flows refer to ``eos-pt/fit`` as they do to ``eos-al/fit``.
    """
    start = relax(symbol)
    points = [strain_point(symbol, start.output["lattice_constant"], strain) for strain in strains]
    for number, point in enumerate(points, start=1):
        point.name = f"strain-{number}"
    fit = Job(
        function=fit_equation_of_state,
        function_args=(symbol, [point.output for point in points]),
        name="fit",
    )
    return Flow([start, *points, fit], output=fit.output, name=f"eos-{symbol.lower()}")
