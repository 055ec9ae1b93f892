"""What a policy allows, and the line that would allow what it refuses."""

from __future__ import annotations

import pytest

from reconciler.model.manifests import Prune
from reconciler.model.policy import (
    Limits,
    SourceRules,
    Use,
    callable_use,
    decoded_names,
    is_below_name,
    merged_lines,
)


@pytest.mark.parametrize(
    ("name", "prefix", "below"),
    [
        ("a.b", "a", True), ("a.b", "a.b", True), ("a.b.c", "a.b", True), ("a.b", "a.*", True),
        ("a.b", "*", True), ("a.b", "a.", True), ("ab.c", "a", False), ("a.bc", "a.b", False),
        ("a", "a.b", False), ("a.b", "", False), ("a.b", "b", False), ("os.system", "o*", False),
    ],
)  # fmt: skip
def test_a_prefix_ends_at_a_dot(name: str, prefix: str, below: bool) -> None:
    assert is_below_name(name, prefix) is below


RULES = SourceRules(
    source="x",
    callables=["a"],
    workers=["gpu-*"],
    hosts=["*.example.org"],
    secrets={"l.example.org": ["env:P*"]},
    features=["modules"],
    prune=[Prune.CANCEL],
    max_prune=0.1,
    limits=Limits(cores=4, hours=2.0),
)


@pytest.mark.parametrize(
    ("use", "line"),
    [
        (callable_use("a.b"), None),
        (callable_use("b"), "callables: [b]"),
        (Use("workers", "gpu-1", ""), None),
        (Use("workers", "cpu: 1", ""), 'workers: ["cpu: 1"]'),
        (Use("hosts", "l.example.org", ""), None),
        (Use("hosts", "l.example.org.evil", ""), "hosts: [l.example.org.evil]"),
        (Use("secrets", "env:PW", "", "", "l.example.org"), None),
        (Use("secrets", "env:PW", "", "", "evil"), "secrets: {evil: [env:PW]}"),
        (Use("secrets", "agent", "", "", "l.example.org"), "secrets: {l.example.org: [agent]}"),
        (Use("features", "modules", ""), None),
        (Use("features", "pre_run", ""), "features: [pre_run]"),
        (Use("prune", "delete", ""), "prune: [delete]"),
        (Use("max_prune", 0.1, ""), None),
        (Use("max_prune", 0.5, ""), "max_prune: 0.5"),
        (Use("limits.cores", 4, ""), None),
        (Use("limits.cores", 5, ""), "limits: {cores: 5}"),
        (Use("limits.hours", None, ""), "limits: {hours: ...}"),
        (Use("limits.gpus", None, ""), None),
        (Use("limits.core_hours", 1e9, ""), None),
    ],
)
def test_what_is_allowed_and_the_line_that_would_allow_the_rest(use: Use, line: str | None) -> None:
    assert RULES.allows(use) is (line is None)
    if line is not None:
        assert use.line == line


def test_several_callables_share_a_line() -> None:
    uses = [callable_use("a"), callable_use("b"), Use("hosts", "local", ""), callable_use("a")]
    assert list(merged_lines(uses)) == ["callables: [a, b]", "hosts: [local]"]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"@module": "os", "@callable": "system"}, {"os.system"}),
        (
            [{"x": [{"@module": "m", "@class": "C", "inner": {"@module": "n", "@callable": "f"}}]}],
            {"m.C", "n.f"},
        ),
        ({"@module": "m", "@class": "C", "@callable": "f"}, {"m.C", "m.f"}),
        ({"@module": "m"}, {"m"}),
        ({"@module": "numpy", "@class": "array", "data": [1]}, set()),
        ({"@module": "numpy", "@class": "array", "data": [{"@module": "os", "@callable": "x"}]}, {"os.x"}),
        ({"@module": "pathlib", "@callable": "Path"}, {"pathlib.Path"}),
        ({"@module": "jobflow.core.job", "@class": "Job"}, set()),
        ({"@module": 5, "@class": None}, {"5.None"}),
        ({"@class": "C"}, set()),
    ],
)
def test_every_name_that_decoding_imports(data: object, names: set[str]) -> None:
    assert {name for _, name in decoded_names(data)} == names
