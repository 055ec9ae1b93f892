"""The house stands as it was drawn: layers, doors, what is shipped, what is imported."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import reconciler
from tests.doors import ONE_DOOR, breaches, imports
from tests.support import HEAVY, ROOT, imported_packages

PACKAGE = ROOT / "reconciler"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package below ``root`` with the contracts of this project."""
    call = "import sys; from importlinter.cli import lint_imports; "
    call += "sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", call, str(ROOT / "pyproject.toml")],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )


class TestLayers:
    """The contracts in pyproject.toml, and that they bite."""

    def test_contracts_are_kept(self) -> None:
        done = lint_imports(ROOT)
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.fixture
    def made_up(self, tmp_path: Path) -> Path:
        """A package with a module for every layer and no import at all."""
        package = tmp_path / "made_up" / "reconciler"
        layers = "cli watch doctor build notify page execution jobs desired actual plan model"
        for name in layers.split():
            (package / name).mkdir(parents=True)
            (package / name / "__init__.py").touch()
        for name in (
            "__init__",
            "campaign",
            "loop",
            "comparison",
            "diagnostics",
            "errors",
            "files",
            "examples",
        ):
            (package / f"{name}.py").touch()
        (views,) = (one for one in PYPROJECT["tool"]["importlinter"]["contracts"] if one["id"] == "views")
        for name in re.findall(r"\w+", " ".join(views["layers"])):
            (package / "cli" / f"{name}.py").touch()
        return package

    def test_clean_tree_passes(self, made_up: Path) -> None:
        done = lint_imports(made_up.parent)
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize(
        ("file", "line"),
        [
            ("errors.py", "import reconciler.diagnostics"),
            ("plan/diff.py", "from reconciler.actual import x"),
            ("desired/state.py", "def late():\n    from reconciler import execution"),
            ("actual/db.py", "import reconciler.desired"),
            ("execution/run.py", "from reconciler import loop"),
            ("jobs/apply.py", "from reconciler.execution import run"),
            ("execution/run.py", "import reconciler.build"),
            ("doctor/worker.py", "import reconciler.build"),
            ("loop.py", "import reconciler.watch"),
            ("watch/daemon.py", "import reconciler.cli"),
            ("cli/views.py", "import reconciler.campaign"),
            ("cli/views.py", "from reconciler.cli.get import x"),
            ("cli/context.py", "from reconciler.cli import views"),
            ("cli/new_command.py", ""),
            ("surprise.py", "import reconciler.model"),
            ("model/states.py", "import os"),
            ("model/states.py", "from pathlib import Path"),
            ("plan/diff.py", "def now():\n    import time"),
            ("diagnostics.py", "import subprocess\n"),
        ],
    )
    def test_breach_fails(self, made_up: Path, file: str, line: str) -> None:
        (made_up / "model" / "flows.py").write_text("from reconciler import diagnostics\n")
        (made_up / file).write_text(f"{line}\n")
        done = lint_imports(made_up.parent)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "BROKEN" in done.stdout


class TestDoors:
    """Every dependency is imported by one module or one small package."""

    def test_each_dependency_has_one_door(self) -> None:
        assert breaches(PACKAGE, ONE_DOOR) == []

    def test_breaches_are_found(self, tmp_path: Path) -> None:
        package = tmp_path / "reconciler"
        (package / "actual").mkdir(parents=True)
        (package / "actual" / "db.py").write_text("import lmdb\n")
        (package / "actual" / "db_tools.py").write_text("import lmdb\n")
        (package / "late.py").write_text("def f():\n    from git.repo import Repo\n    return Repo\n")
        (package / "hidden.py").write_text("import importlib\n\nx = importlib.import_module('jobflow.x')\n")
        (package / "__init__.py").write_text("from .git import x\nimport gitlab\n")
        assert breaches(package, ONE_DOOR) == [
            "reconciler.actual.db_tools:1 imports lmdb",
            "reconciler.hidden:3 imports jobflow",
            "reconciler.late:2 imports git",
        ]

    @pytest.mark.parametrize("program", ["launcher.py", "batch/agent.py", "batch/warm.py"])
    def test_programs_of_workers_stand_alone(self, program: str) -> None:
        source = (PACKAGE / "execution" / program).read_text(encoding="utf-8")
        tree = ast.parse(source, feature_version=(3, 9))
        names = {name.partition(".")[0] for _, name in imports(tree)}
        assert names - sys.stdlib_module_names <= {"jobflow", "maggma", "monty", "msgpack"}


class TestPackage:
    """What users install."""

    def test_every_package_says_what_it_is(self) -> None:
        files = sorted(PACKAGE.rglob("__init__.py"))
        assert files
        assert [str(file) for file in files if not ast.get_docstring(ast.parse(file.read_text()))] == []

    def test_every_directory_with_modules_is_a_package(self) -> None:
        homes = {file.parent for file in PACKAGE.rglob("*.py")}
        assert [str(home) for home in sorted(homes) if not (home / "__init__.py").is_file()] == []

    def test_one_version(self) -> None:
        changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        newest = re.search(r"^## \[(\d[^]]*)\]", changes, re.MULTILINE)
        assert newest is not None
        assert newest[1] == reconciler.__version__ == PYPROJECT["project"]["version"]

    def test_wheel_has_schemas_and_console_script(self, tmp_path: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=120,
        )
        (wheel,) = tmp_path.glob("jobflow_reconciler-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            shipped = set(archive.namelist())
            (entry_points,) = (name for name in shipped if name.endswith(".dist-info/entry_points.txt"))
            scripts = configparser.ConfigParser()
            scripts.read_string(archive.read(entry_points).decode())
        schemas = {str(file.relative_to(ROOT / "schemas")) for file in (ROOT / "schemas").rglob("*.json")}
        modules = {str(file.relative_to(ROOT)) for file in PACKAGE.rglob("*.py")}
        assert schemas
        assert {f"reconciler/_schemas/{name}" for name in schemas} | modules <= shipped
        module, _, _ = scripts["console_scripts"]["reconcile"].partition(":")
        assert f"{module.replace('.', '/')}.py" in shipped


class TestQuickStart:
    """Quick verbs import nothing heavy."""

    def test_help(self, tmp_path: Path) -> None:
        assert imported_packages(["--help"], tmp_path) & set(HEAVY) == set()

    def test_the_measurement_sees_imports(self, tmp_path: Path) -> None:
        assert {"reconciler", "click"} <= imported_packages(["--help"], tmp_path)


class TestTree:
    """What is written in the files of this tree."""

    # In parts, so that this file does not hold them itself.
    WORDS = re.compile(
        "|".join([r"(?<![\w~.\-}])/wo" + "rk/", "farm-" + "bench", "helper_" + "common", "/tmp/" + r"ref\b"])
    )

    def test_no_machine_or_tool_is_named(self) -> None:
        hits = ((file, self.WORDS.search(text)) for file, text in _texts())
        found = [f"{file.relative_to(ROOT)}: {hit[0]}" for file, hit in hits if hit]
        assert found == []

    def test_the_words_are_found_where_they_are(self) -> None:
        assert self.WORDS.search("cd /wo" + "rk/main")
        assert not self.WORDS.search("work_dir: ~/campaign/wo" + "rk/aa")

    def test_every_decision_is_listed(self) -> None:
        index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
        records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
        assert records
        assert [record.name for record in records if f"(decisions/{record.name})" not in index] == []

    def test_files_that_the_architecture_names_exist(self) -> None:
        files = {f"/{file.relative_to(ROOT)}" for file, _ in _texts()}
        for page in ("docs/architecture.md", "CONTRIBUTING.md"):
            named = re.findall(
                r"`([\w./-]+\.(?:py|json|md|toml))`", (ROOT / page).read_text(encoding="utf-8")
            )
            assert named
            real = [name for name in named if "NAME" not in name]
            assert [name for name in real if not any(file.endswith(f"/{name}") for file in files)] == []


_NOT_OURS = re.compile(
    r"\.git|\.venv(-science)?|\.demo|\..*_cache|\.hypothesis|__pycache__|dist|site|.*\.egg-info"
)


def _texts() -> Iterator[tuple[Path, str]]:
    """Yield every text file of the tree; no git, which refuses a tree that belongs to another user."""
    for home, directories, names in os.walk(ROOT):
        directories[:] = [name for name in directories if not _NOT_OURS.fullmatch(name)]
        for name in names:
            try:
                yield Path(home, name), Path(home, name).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
