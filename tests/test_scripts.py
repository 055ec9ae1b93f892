"""The scripts that count and sample: ``scripts/figures.py`` and ``scripts/sample_prose.py``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"

MODULE = '''"""A module."""

import os  # not a line of prose


# A comment line.
def public(x: int) -> int:
    """Say what it is."""
    return _once(x) + _twice(x)


def _once(x: int) -> int:
    return x


def _twice(x: int) -> int:
    return _twice(x - 1) if x else len(os.sep)
'''


def script(name: str) -> ModuleType:
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class TestFigures:
    def test_a_module_is_counted(self) -> None:
        figures = script("figures").measure(MODULE)
        assert figures.lines == 17
        assert figures.prose == 3  # two docstrings and a comment; the comment behind code is code
        assert figures.code == 7
        assert figures.functions == [3, 2, 2]
        assert figures.named_once == [2]  # _twice is named in its own body too

    def test_a_directory_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "__init__.py").write_text("")
        (tmp_path / "one.py").write_text(MODULE)
        (tmp_path / "long.py").write_text(MODULE + "\n" * 60)
        report = dict(line.split("  ", 1) for line in script("figures").report(tmp_path).splitlines())
        table = {name.strip(): value.strip() for name, value in report.items()}
        assert table["lines"] == "94"
        assert table["modules; under 70 lines"] == "3; 1"
        assert table["private functions named once; of those <= 8 lines"] == "33.3 %; 33.3 %"


class TestSampleProse:
    SOURCE = '''"""The module's docstring."""

def f(name: str) -> None:
    """Raise."""
    raise InputError(f"there is no flow '{name}'", hint="run `reconcile get flows` first")
    print("not a message for users")
    LABELS = {"key": "this is data, not a message"}
'''

    def test_messages_and_docstrings_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "m.py").write_text(self.SOURCE)
        sample = script("sample_prose").sample(tmp_path, 10, seed=1)
        place = tmp_path / "m.py"
        assert sample.splitlines() == [
            "== 2 of 2 messages, seed 1",
            f"{place}:5: run `reconcile get flows` first",
            f"{place}:5: there is no flow '{{}}'",
            "== 2 of 2 docstrings, seed 1",
            f"{place}:1: The module's docstring.",
            f"{place}:4: Raise.",
        ]

    def test_the_seed_decides(self) -> None:
        sample = script("sample_prose").sample
        package = SCRIPTS.parent / "reconciler"
        assert sample(package, 3, seed=1) == sample(package, 3, seed=1) != sample(package, 3, seed=2)
