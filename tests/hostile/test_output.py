"""What others wrote is shown: it moves no cursor, hides no line, turns no text and commands no service."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.store import Store
from reconciler.cli import streams
from reconciler.cli.streams import Controlling, shown, tolerant_streams
from reconciler.model.applied import AppliedConfig, AppliedRevision
from reconciler.model.records import Event
from reconciler.model.states import JobState
from tests.cli.members import member, put
from tests.support import Repository, minimal_project

Program = Callable[..., Any]

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
ATTACKS = {
    "clear": "\x1b[2J\x1b[H",
    "line up": "\x1b[1A\x1b[2K",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;aWQ=\x07",
    "concealed": "\x1b[8mhidden\x1b[0m",
    "concealed with a color": "\x1b[31;8mhidden",
    "answer back": "\x05\x1b[c\x1b[6n",
    "C1": "\x9b2J\x9d0;x\x9c",
    "return": "fine\rbad",
    "backspace": "bad\b\b\bfine",
    "bidi": "\u202eevil\u202c",
    "isolate": "\u2066x\u2069",
    "marks": "\u200e\u200f\u061c",
    "line separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "NUL": "a\0b",
    "delete": "a\x7fb",
    "cursor hidden": "\x1b[?25l",
    "device": "\x1bP1$r0m\x1b\\",
    "reset": "\x1bc",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_no_control_character_is_left(text: str) -> None:
    found = shown(f"before {text} after\n\tnext")
    assert not UNSAFE.search(re.sub(r"\x1b\[[0-7;]*m", "", found))
    assert found.startswith("before ") and found.endswith(" after\n\tnext")
    assert "\x1b[8m" not in found and "\x1b[31;8m" not in found


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_json_has_the_same_values(text: str) -> None:
    value = {text: [text]}
    assert json.loads(shown(json.dumps(value, ensure_ascii=False))) == value


@pytest.mark.parametrize(
    "text", ["größe 世 \U0001f600", "\x1b[31mred\x1b[0m", "\x1b[1;38;5;200mx\x1b[m", "a\tb\nc", "", "👩‍🔬"]
)
def test_what_is_harmless_stays(text: str) -> None:
    assert shown(text) == text


COMMANDS = [
    "::error::x",
    "::add-mask::x",
    "  ::set-env name=A::b",
    "a\n::stop-commands::x",
    "##[error]x",
    "##vso[task.x]y",
]


@pytest.mark.parametrize("service", ["GITHUB_ACTIONS", "TF_BUILD", ""])
@pytest.mark.parametrize("text", COMMANDS)
def test_commands_to_a_service(monkeypatch: pytest.MonkeyPatch, text: str, service: str) -> None:
    for name in ("GITHUB_ACTIONS", "TF_BUILD"):
        monkeypatch.delenv(name, raising=False)
    if not service:
        assert shown(text) == text
        return
    monkeypatch.setenv(service, "true")
    for line in shown(text).splitlines():
        assert not line.lstrip().startswith(("::", "##"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state whose records have every attack in every text that others write."""
    path = tmp_path_factory.mktemp("shown")
    text = " ".join(ATTACKS.values()) + "\n::error::forged\n"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("HOME", str(path))
        repository = Repository(path / "repository")
        minimal_project(repository, path / "work")
        repository.write_yaml(
            "flows/f.yaml", f"apiVersion: {json.dumps(text)}\nkind: Flow\nx: {json.dumps(text)}\n"
        )
        head = repository.commit(
            f"subject {text}".replace("\0", ""), author="Ada \x1b[2J\u202e <a@example.invalid>"
        )
    store = Store(path / "state")
    failed = {"state": JobState.FAILED, "error": f"E: {text}", "cancellation": None}
    failed.pop("cancellation")
    put(store, member("a", name=text, **failed), member("b", "a", state=JobState.WAITING))
    revision = AppliedRevision(
        time=1.0, branch="main", commit=head, path="", summary=text, author=text, subject=text
    )
    config = AppliedConfig(revision="main@1234567", commit=head, out_of_sync={"f": text})
    store.write(lambda writer: writer.put_config(config))
    store.write(lambda writer: writer.add_revision(revision))
    store.write(lambda writer: writer.add_event(Event(time=1.0, type="Odd", about="job/f/a", message=text)))
    store.close()
    return path


@pytest.mark.parametrize("style", ["table", "wide", "json", "yaml", "name", "color"])
@pytest.mark.parametrize(
    "call",
    [
        *("get jobs", "get flows", "describe job f/a", "describe flow f", "events", "history", "graph f"),
        *("plan", "validate", "diff HEAD", "explain job f/a", "retry f --dry-run"),
    ],
)
def test_every_view(
    place: Path, program: Program, monkeypatch: pytest.MonkeyPatch, call: str, style: str
) -> None:
    monkeypatch.chdir(place / "repository")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    options = ["--color", "always"] if style == "color" else ["-o", style]
    done = program("--state-dir", str(place / "state"), *call.split(), *options)
    assert done.code in (0, 1, 2, 3, 4), done.stderr
    for text in (done.stdout, done.stderr):
        assert not UNSAFE.search(re.sub(r"\x1b\[[0-9;]*m", "", text)), repr(text)
        assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]
    if style == "json" and done.code == 0:
        json.loads(done.stdout)


def test_a_progress_bar_moves_the_cursor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with tolerant_streams():
            sys.stderr.write("\x1b[2K")
            Controlling(sys.stderr).write("\x1b[1A")
            sys.stderr.flush()
    assert (tmp_path / "out").read_text() == "\\u001b[2K\x1b[1A"
    other = io.StringIO()
    Controlling(other).write("x")
    assert other.getvalue() == "x"
    assert issubclass(streams._ShownText, io.TextIOWrapper)
