"""The policy file: which one counts, whether it can be trusted, and which entry is that of a source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.desired.policy_file import LocalPolicy, default_policy_file, is_foreign, local_policy
from reconciler.errors import InputError, RefusedError
from reconciler.model.manifests import Prune

URL = "https://git.example.org/group/campaign"
HEAD = "apiVersion: reconciler/v1\nkind: Policy\nmetadata: {name: mine}\nspec:\n"
TEXT = f"""{HEAD}  sources:
  - {{source: '{URL}', callables: [a]}}
  - {{source: /home/ada/*, hosts: [local]}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    made = folder / "policy.yaml"
    made.write_text(TEXT)
    made.chmod(0o600)
    return made


def test_the_default_file_is_among_the_settings_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_policy_file() == tmp_path / "reconciler" / "policy.yaml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_policy_file() == Path("/home/ada/.config/reconciler/policy.yaml")


@pytest.mark.parametrize(
    ("location", "foreign"),
    [
        (URL, True), ("git@git.example.org:group/campaign", True), ("ssh://x/y", True), ("git://x/y", True),
        ("http://localhost/x", True), ("file:///srv/campaign.git", False), ("/srv/campaign", False),
        (".", False),
    ],
)  # fmt: skip
def test_without_a_file_only_repositories_of_this_machine_may_do_everything(
    location: str, foreign: bool
) -> None:
    assert is_foreign(location) is foreign
    rules = LocalPolicy(location).rules
    assert (rules is None) is not foreign
    if rules is not None:
        assert (rules.callables, rules.hosts, rules.prune, rules.max_prune) == ([], [], [], 0.0)


@pytest.mark.parametrize("location", [URL, f"{URL}/", URL.replace("://", "://ada:secret@")])
def test_an_entry_matches_the_url_without_its_credentials(file: Path, location: str) -> None:
    rules = local_policy(location, str(file)).rules
    assert rules is not None and rules.callables == ["a"]
    assert rules.prune == [Prune.CANCEL, Prune.ORPHAN] and rules.file == str(file)


def test_a_source_that_no_entry_matches(file: Path, tmp_path: Path) -> None:
    assert local_policy(str(tmp_path), str(file)).rules is None
    other = local_policy(f"{URL}-2", str(file)).rules
    assert other is not None and other.callables == []
    listed = local_policy("/home/ada/campaign", str(file)).rules
    assert listed is not None and listed.hosts == ["local"]


def test_the_digest_changes_with_the_file_and_the_source(file: Path) -> None:
    digests = {local_policy(location, str(file)).digest for location in (URL, f"{URL}-2", "/home/ada/x")}
    file.write_text(TEXT.replace("[a]", "[b]"))
    digests.add(local_policy(URL, str(file)).digest)
    assert len(digests) == 4 and all(digests)
    assert LocalPolicy("/home/ada/x").digest == ""


@pytest.mark.parametrize("which", ["file", "folder", "folder of the link"])
@pytest.mark.parametrize("bits", [0o020, 0o002, 0o022])
def test_a_policy_that_others_can_change_is_refused(
    file: Path, tmp_path: Path, which: str, bits: int
) -> None:
    place = {"file": file}.get(which, file.parent)
    given = file
    if which == "folder of the link":
        given = tmp_path / "links" / "policy.yaml"
        given.parent.mkdir(mode=0o700)
        given.symlink_to(file)
        assert local_policy(URL, str(given)).rules is not None
        place = given.parent
    place.chmod(place.stat().st_mode | bits)
    with pytest.raises(RefusedError, match="others can write") as refused:
        local_policy(URL, str(given))
    assert refused.value.hint is not None and f"{place}" in refused.value.hint


def test_a_policy_of_another_user_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.geteuid()
    os.chown(file, mine or 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: mine and mine + 1)
    with pytest.raises(RefusedError, match="belongs to another user"):
        local_policy(URL, str(file))


def test_a_policy_that_is_named_and_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as missing:
        local_policy(URL, str(tmp_path / "none.yaml"))
    assert "policy init" in (missing.value.hint or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "exactly one document"),
        ("a: [", "not valid"),
        (TEXT + "---\n" + TEXT, "exactly one document"),
        (TEXT.replace("callables", "callable"), "callable"),
        (TEXT.replace("kind: Policy", "kind: Project"), "not valid"),
        (f"{HEAD}  sources:\n  - callables: [a]\n", "source"),
        (f"{HEAD}  sources:\n  - source: x\n    features: [everything]\n", "features"),
        (f"{HEAD}  sources:\n  - source: x\n    max_prune: 2\n", "max_prune"),
    ],
)
def test_a_policy_that_is_not_valid_is_an_error_with_its_place(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        _ = local_policy(URL, str(file)).rules
    assert str(file) in error.value.message
