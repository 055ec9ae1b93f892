"""The unit that ``reconcile systemd`` prints, as systemd itself reads it where there is one."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.systemd import quoted, unit
from reconciler.errors import InputError
from tests.support import Reconcile, Repository

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def odd(tmp_path: Path) -> Repository:
    """A repository in a directory whose name has all that a unit takes for something else."""
    repository = Repository(tmp_path / 'my 100% "good" $HOME')
    repository.write_yaml(
        "sub/reconciler.yaml",
        """
        apiVersion: reconciler/v1
        kind: Project
        metadata: {name: odd}
        spec: {}
        """,
    )
    repository.commit()
    return repository


def service(text: str) -> dict[str, str]:
    """Return the section Service of a unit, each setting as it is written."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    assert parser.sections() == ["Unit", "Service", "Install"]
    return dict(parser["Service"])


def read_back(command: str) -> list[str]:
    """Return a command line as systemd takes it apart, with nothing substituted."""
    assert not re.search(r"(?<!%)%(%%)*(?!%)", command), "a specifier"
    assert not re.search(r"(?<!\$)\$(\$\$)*(?!\$)", command), "a variable"
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(command)]


def test_the_command_is_as_it_was_given(odd: Repository) -> None:
    done = Reconcile(odd.path)("systemd", "--path", "sub", "--branch", "main", "--state-dir", "my state")
    assert done.returncode == 0
    assert read_back(service(done.stdout)["ExecStart"]) == [
        sys.executable, "-P", "-m", "reconciler", "--repo", str(odd.path), "--branch", "main",
        "--path", "sub", "--state-dir", str(odd.path / "my state"), "watch", "--standby",
    ]  # fmt: skip
    assert "systemctl --user enable --now reconcile" in done.stderr
    assert "loginctl enable-linger" in done.stderr
    assert "reconcile systemd --path sub --branch main --state-dir 'my state' > ~/.config" in done.stderr


def test_how_the_service_lives(odd: Repository) -> None:
    found = service(Reconcile(odd.path)("systemd", "--path", "sub", "--interval", "30").stdout)
    expected = {
        "Type": "notify",
        "NotifyAccess": "main",
        "ExecReload": "/bin/kill -HUP $MAINPID",
        "KillMode": "process",
        "TimeoutStopSec": "20",
        "WatchdogSec": "120",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "2 4",
    }
    assert expected.items() <= found.items()
    assert found["ExecStart"].endswith("watch --standby --interval 30")
    assert "--state-dir" not in found["ExecStart"]


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("RECONCILER_STATE_DIR", "./st:1", "{cwd}/st:1"),
        ("RECONCILER_STATE_DIR", "~/st", "{home}/st"),
        ("RECONCILER_STATE_DIR", "/st", "/st"),
        ("XDG_STATE_HOME", "states", "{cwd}/states"),
        ("XDG_CACHE_HOME", "../caches", "{cwd}/../caches"),
        ("PATH", ".venv/bin::/usr/bin:~/bin", "{cwd}/.venv/bin::/usr/bin:{home}/bin"),
    ],
)
def test_directories_are_those_that_are_meant_here(
    tmp_path: Path, name: str, value: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service starts in the home directory."""
    cwd, home = tmp_path / "here", tmp_path / "home"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    monkeypatch.setenv("HOME", str(home))
    found = service(unit(["reconcile"], "/repository", home, {name: value, "OTHER": "./x"}))
    assert found["Environment"] == f"{name}={written.format(cwd=cwd, home=home)}"


def test_service_uses_the_state_of_the_caller(
    odd: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit is made in one directory, and what it runs is run in the one that it names."""
    monkeypatch.setenv("RECONCILER_STATE_DIR", "./st")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = Reconcile(elsewhere)
    call = ("--repo", str(odd.path), "--path", "sub")
    found = service(program(*call, "systemd").stdout)
    settings = [word.replace("%%", "%") for word in shlex.split(found["Environment"])]
    environment = dict(setting.split("=", 1) for setting in settings)
    home = Path(found["WorkingDirectory"])
    assert program(*call, "--once", cwd=home, env=environment).returncode == 0
    assert (elsewhere / "st" / "lmdb").is_dir()
    assert not (home / "st").exists()


def test_a_url_stays_a_url(odd: Repository, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bare.git"
    odd.run("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    done = Reconcile(tmp_path)("--repo", url, "systemd", "--path", "sub", "--state-dir", "state")
    assert done.returncode == 0, done.stderr
    assert read_back(service(done.stdout)["ExecStart"])[5] == url


def test_systemd_finds_nothing_wrong(odd: Repository, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here; the other tests read the unit by themselves")
    unit = tmp_path / "reconcile.service"
    unit.write_text(Reconcile(odd.path)("systemd", "--path", "sub", "--state-dir", "s").stdout)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    done = subprocess.run(
        [program, "verify", "--user", str(unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--name", "a/b"], "error: 'a/b' is not a valid unit name"),
        (["--path", "nowhere"], "error: HEAD does not have a directory 'nowhere'"),
        (["--repo", "/nowhere"], "error: "),
    ],
)
def test_mistakes_are_found_before_there_is_a_unit(odd: Repository, arguments: list[str], error: str) -> None:
    done = Reconcile(odd.path)("systemd", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(error)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("/usr/bin/python3", "/usr/bin/python3"),
        ("a b", '"a b"'),
        ("50%", "50%%"),
        ("$HOME", '"$$HOME"'),
        ('say "so"', '"say \\"so\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("", '""'),
        ("it's", '"it\'s"'),
        (";", '";"'),
    ],
)
def test_quoting(text: str, written: str) -> None:
    assert quoted(text) == written


def test_no_unit_can_hold_a_line_break() -> None:
    with pytest.raises(InputError, match="line break"):
        quoted("a\nExecStart=evil")
