"""Signatures of commits and tags, with real keys of ssh-keygen and gpg."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.actual.store import Store
from reconciler.desired.policy_file import local_policy
from reconciler.desired.source.git import Source
from reconciler.desired.state import load_desired
from reconciler.errors import RefusedError, UnverifiedError
from reconciler.loop import Session
from tests.desired.test_flows import NoCache
from tests.hostile.test_policy import Quiet
from tests.support import Reconcile, Repository, minimal_project

FILES = "apiVersion: reconciler/v1\nkind: Policy\nmetadata: {name: mine}\nspec:\n  sources:\n"


class Signed:
    """A repository, keys, and a policy that asks for signatures."""

    def __init__(self, repository: Repository, root: Path) -> None:
        self.repository = repository
        self.root = root
        self.config = root / "config"
        self.config.mkdir(mode=0o700)
        self.verify("head")
        minimal_project(repository, root / "work")

    def verify(self, mode: str, more: str = "") -> None:
        """Write the policy: all is allowed, if it is signed."""
        every = "".join(f"    {key}: ['*']\n" for key in ("callables", "workers", "hosts"))
        entry = f"  - source: '{self.repository.path}'\n{every}    verify: {mode}\n{more}"
        policy = self.config / "policy.yaml"
        policy.write_text(FILES + entry)
        policy.chmod(0o600)

    def key(self, name: str) -> str:
        """Make an SSH key; return its public half."""
        file = self.root / name
        if not file.exists():
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(file)]
            subprocess.run(make, check=True, timeout=60)
        return " ".join(file.with_suffix(".pub").read_text().split()[:2])

    def allow(self, *lines: str) -> None:
        """Write the allowed signers."""
        (self.config / "allowed_signers").write_text("".join(f"{line}\n" for line in lines))
        (self.config / "allowed_signers").chmod(0o600)

    def commit(self, key: str | None, message: str = "change", date: str = "2026-03-01T12:00:00Z") -> str:
        """Commit something, signed with an SSH key or not at all."""
        self.repository.write("n", message + str(len(list(self.root.iterdir()))))
        self.repository.run("add", "--all")
        sign = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={self.root / key}.pub"] if key else []
        how = ["-S"] if key else ["--no-gpg-sign"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GIT_COMMITTER_DATE", date)
            self.repository.run(*sign, "commit", "--quiet", "--allow-empty", *how, f"--message={message}")
        return self.repository.head

    def tag(self, name: str, key: str | None) -> None:
        """Tag the last commit."""
        sign = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={self.root / key}.pub"] if key else []
        self.repository.run(*sign, "tag", "-s" if key else "-a", "-m", name, name)

    def source(self, path: Path | None = None) -> Source:
        """Open the repository as commands do."""
        path = path or self.repository.path
        source = Source(path / ".git", path, None, "")
        source.policy = local_policy(str(self.repository.path), str(self.config / "policy.yaml"))
        source.verified_dir = self.root / "verified"
        return source

    def signer(self, commit: str | None = None) -> str:
        source = self.source()
        return source.signer(commit or source.revision().commit)


@pytest.fixture
def signed(repository: Repository, tmp_path: Path) -> Signed:
    made = Signed(repository, tmp_path)
    for name in ("ada", "bob"):
        made.key(name)
    made.allow(f"ada@example.org {made.key('ada')}")
    return made


def test_a_good_signature_names_its_signer(signed: Signed) -> None:
    signed.commit("ada")
    assert signed.signer().startswith("ada@example.org (ED25519 SHA256:")


REFUSED = {
    "unsigned": (None, "ada@example.org {ada}", "is not signed"),
    "unknown": ("bob", "ada@example.org {ada}", "not among the allowed signers"),
    "expired": ("ada", 'ada@example.org valid-before="20260101" {ada}', "not valid then"),
    "not valid yet": ("ada", 'ada@example.org valid-after="20270101" {ada}', "not valid then"),
    "for other things": ("ada", 'ada@example.org namespaces="file" {ada}', "does not count"),
    "no signers": ("ada", "", "not among the allowed signers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_count_is_refused_before_anything_is_read(signed: Signed, name: str) -> None:
    key, line, why = REFUSED[name]
    signed.allow(line.replace("{ada}", signed.key("ada")))
    signed.repository.write("reconciler.yaml", "[" * 1000)
    signed.commit(key)
    source = signed.source()
    with pytest.raises(UnverifiedError, match=why) as refused:
        load_desired(source, source.revision(), NoCache(), {})
    assert str(signed.config / "allowed_signers") in (refused.value.hint or "")


def test_keys_are_valid_for_a_time(signed: Signed) -> None:
    signed.allow(f'ada@example.org valid-after="20260101",valid-before="20270101" {signed.key("ada")}')
    signed.commit("ada")
    assert signed.signer().startswith("ada@")


def test_a_revoked_key(signed: Signed) -> None:
    signed.commit("ada")
    assert signed.signer()
    (signed.config / "revoked_keys").write_text(signed.key("ada") + "\n")
    (signed.config / "revoked_keys").chmod(0o600)
    with pytest.raises(UnverifiedError, match="refused: commit"):
        signed.signer()


def test_a_changed_commit(signed: Signed) -> None:
    commit = signed.commit("ada")
    raw = signed.repository.run("cat-file", "commit", commit)
    forged = signed.root / "forged"
    forged.write_text(raw.replace("change", "evil") + "\n")
    made = signed.repository.run("hash-object", "-t", "commit", "-w", str(forged))
    with pytest.raises(UnverifiedError, match="that does not count"):
        signed.signer(made)


@pytest.mark.parametrize("place", ["allowed_signers", "revoked_keys"])
def test_files_of_keys_that_others_can_change_are_refused(signed: Signed, place: str) -> None:
    signed.commit("ada")
    file = signed.config / place
    file.touch()
    file.chmod(0o622)
    with pytest.raises(RefusedError, match="others can write"):
        signed.source()


def test_settings_of_the_repository_choose_neither_programs_nor_keys(signed: Signed) -> None:
    trace = signed.root / "ran"
    program = signed.root / "program"
    program.write_text(f"#!/bin/sh\ntouch {trace}\necho 'Good \"git\" signature for eve with X key Y'\n")
    program.chmod(0o755)
    signers = signed.root / "theirs"
    signers.write_text(f"bob@example.org {signed.key('bob')}\n")
    for setting in ("gpg.program", "gpg.ssh.program", "gpg.x509.program"):
        signed.repository.run("config", setting, str(program))
    signed.repository.run("config", "gpg.ssh.allowedSignersFile", str(signers))
    # The commit is signed as the user's own program does it, so only for verifying the settings are set.
    signed.repository.run("config", "--unset", "gpg.ssh.program")
    signed.commit("bob")
    signed.repository.run("config", "gpg.ssh.program", str(program))
    with pytest.raises(UnverifiedError):
        signed.signer()
    assert not trace.exists()


# history ----------------------------------------------------------------------------------------------------


def test_the_head_vouches_for_its_history(signed: Signed) -> None:
    old = signed.commit(None)
    with pytest.raises(UnverifiedError):
        signed.signer(old)
    signed.commit("ada")
    assert signed.signer()
    assert signed.signer(old).startswith("ada@")


def test_strict_looks_at_each_commit_since_the_seal(signed: Signed) -> None:
    signed.verify("strict")
    old = signed.commit(None, "old history")
    signed.commit("ada")
    with pytest.raises(UnverifiedError, match=f"commit {old[:7]}, which is part of the history"):
        signed.signer()
    signed.commit("ada", "seal\n\nReconciler-seal: all before was reviewed")
    assert signed.signer().startswith("ada@")
    between = signed.commit("bob")
    signed.commit("ada")
    with pytest.raises(UnverifiedError, match=between[:7]):
        signed.signer()
    signed.allow(*(f"{name}@example.org {signed.key(name)}" for name in ("ada", "bob")))
    assert signed.signer().startswith("ada@")


def test_a_seal_without_a_signature_seals_nothing(signed: Signed) -> None:
    signed.verify("strict")
    signed.commit(None, "seal\n\nReconciler-seal: me")
    signed.commit("ada")
    with pytest.raises(UnverifiedError, match="is not signed"):
        signed.signer()


def test_strict_looks_at_merged_branches(signed: Signed) -> None:
    signed.verify("strict")
    base = signed.commit("ada", "start\n\nReconciler-seal: start")
    signed.repository.run("switch", "--quiet", "-c", "side")
    hidden = signed.commit(None, "hidden")
    signed.repository.run("switch", "--quiet", "main")
    how = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={signed.root / 'ada'}.pub"]
    signed.repository.run("reset", "--quiet", "--hard", base)
    signed.repository.run(*how, "merge", "--quiet", "--no-ff", "-S", "-m", "merge", "side")
    with pytest.raises(UnverifiedError, match=hidden[:7]):
        signed.signer()


def test_a_shallow_clone_is_not_strict_history(signed: Signed) -> None:
    for number in range(3):
        signed.commit("ada", f"{number}\n\nReconciler-seal: x" if number == 1 else str(number))
    found = {}
    for depth in (1, 2):
        clone = signed.root / f"clone{depth}"
        signed.repository.run(
            "clone", "--quiet", f"--depth={depth}", f"file://{signed.repository.path}", str(clone)
        )
        signed.verify("strict", f"    limits: {{cores: {depth}}}\n")  # another digest: nothing is remembered
        source = signed.source(clone)
        try:
            found[depth] = source.signer(source.revision().commit)
        except UnverifiedError as error:
            found[depth] = error.message
    assert "shallow" in found[1] and found[2].startswith("ada@")


def test_a_tag_must_be_signed_and_point_at_the_commit(signed: Signed) -> None:
    signed.verify("tag")
    signed.commit("ada")
    for name, key in (("light", None), ("foreign", "bob")):
        signed.tag(name, key)
        with pytest.raises(UnverifiedError):
            signed.signer()
    first = signed.repository.head
    signed.tag("v1", "ada")
    assert signed.signer().startswith("ada@")
    signed.commit("ada")
    with pytest.raises(UnverifiedError, match="no signed tag"):
        signed.signer()
    assert signed.signer(first).startswith("ada@")


# passes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "state").mkdir(mode=0o700)
    made = Store(tmp_path / "state")
    yield made
    made.close()


def test_the_last_verified_revision_stays_in_force(signed: Signed, store: Store) -> None:
    good = signed.commit("ada")
    Session(signed.source(), store).reconcile(Quiet())
    signed.commit(None)
    with pytest.raises(UnverifiedError):
        Session(signed.source(), store).reconcile(Quiet())
    with store.read() as view:
        config = view.config()
    assert config is not None and config.commit == good and config.signer.startswith("ada@")
    signed.commit("ada")
    Session(signed.source(), store).reconcile(Quiet())
    with store.read() as view:
        config = view.config()
    assert config is not None and config.commit == signed.repository.head


@pytest.mark.parametrize("way", ["set back", "rewritten", "set back in a shallow clone"])
def test_a_branch_does_not_go_back_unless_that_is_meant(signed: Signed, store: Store, way: str) -> None:
    """Every commit here is signed: old ones stay signed for ever."""
    old = signed.commit("ada", "old", date="2026-03-01T12:00:00Z")
    signed.commit("ada", "new", date="2026-03-02T12:00:00Z")
    Session(signed.source(), store).reconcile(Quiet())
    signed.repository.run("reset", "--quiet", "--hard", old)
    path = None
    if way == "rewritten":
        signed.commit("ada", "other", date="2026-03-03T12:00:00Z")
    elif way == "set back in a shallow clone":
        path = signed.root / "clone"
        signed.repository.run("clone", "--quiet", "--depth=1", f"file://{signed.repository.path}", str(path))
    source = signed.source(path)
    with pytest.raises(RefusedError, match="set back or rewritten"):
        Session(source, store).reconcile(Quiet())
    Session(signed.source(path), store).reconcile(Quiet(), allow_prune=True)
    with store.read() as view:
        config = view.config()
    assert config is not None and config.commit == source.revision().commit


def test_commands_refuse_an_unsigned_revision_and_show_who_signed_the_last_one(
    signed: Signed, reconcile: Reconcile
) -> None:
    flow = "apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: f}\nspec:\n  suspend: true\n  jobs:\n"
    signed.repository.write("flows/f.yaml", f"{flow}  - {{id: a, function: math.sqrt, args: [4]}}\n")
    signed.commit("ada")
    options = ["--policy", str(signed.config / "policy.yaml")]
    applied = reconcile(*options, "--once")
    assert applied.returncode == 0, applied.stderr
    signed.repository.write("flows/g.yaml", "[" * 1000)
    signed.commit(None)
    for command in ("--once", "plan", "validate"):
        refused = reconcile(*options, *command.split())
        assert refused.returncode == 4 and "is not signed" in refused.stderr, command
    shown = reconcile(*options, "describe", "flow", "f")
    assert shown.returncode == 0, shown.stderr
    assert "SourceVerified True" in shown.stdout and "ada@example.org" in shown.stdout


# GPG --------------------------------------------------------------------------------------------------------


class Gpg:
    """A keyring of its own."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.home = home

    def run(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", *arguments],
            env={**os.environ, "GNUPGHOME": str(self.home)}, input=stdin, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def key(self, name: str, expires: str = "never", *more: str) -> str:
        """Make a key; return its fingerprint."""
        self.run(*more, "--quick-generate-key", f"{name} <{name}@example.org>", "ed25519", "sign", expires)
        listed = self.run("--with-colons", "--list-keys", f"{name}@example.org")
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))


@pytest.fixture
def gpg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpg]:
    made = Gpg(tmp_path / "g")
    monkeypatch.setenv("GNUPGHOME", str(made.home))
    yield made
    subprocess.run(["gpgconf", "--kill", "all"], timeout=60, check=False, capture_output=True)


def gpg_commit(signed: Signed, key: str) -> None:
    signed.repository.run(
        "-c", "gpg.format=openpgp", "commit", "--quiet", "--allow-empty", f"-S{key}", "-m", "x"
    )


def test_gpg_signatures(signed: Signed, gpg: Gpg) -> None:
    """Good, then of a key that the policy does not list, that has expired, that was revoked, that is gone."""
    ada, bob = gpg.key("ada"), gpg.key("bob")
    past = ("--faked-system-time", "20260101T000000!")
    old = gpg.key("old", "2026-01-05", *past)
    signed.repository.run("add", "--all")
    signed.verify("head", f"    gpg_keys: ['{ada}', '{old}']\n")
    gpg_commit(signed, ada)
    assert signed.signer() == f"ada <ada@example.org> (GPG {ada})"
    gpg_commit(signed, bob)
    with pytest.raises(UnverifiedError, match="does not list") as unlisted:
        signed.signer()
    assert f"gpg_keys: [{bob}]" in (unlisted.value.hint or "")
    faked = signed.root / "gpg-then"
    faked.write_text(f'#!/bin/sh\nexec gpg {" ".join(past)} "$@"\n')
    faked.chmod(0o755)
    signed.repository.run("config", "gpg.program", str(faked))
    gpg_commit(signed, old)
    signed.repository.run("config", "--unset", "gpg.program")
    with pytest.raises(UnverifiedError, match="expired"):
        signed.signer()
    gpg_commit(signed, ada)
    certificate = (
        (gpg.home / "openpgp-revocs.d" / f"{ada}.rev").read_text().replace(":-----BEGIN", "-----BEGIN")
    )
    gpg.run("--import", stdin=certificate)
    with pytest.raises(UnverifiedError, match="revoked"):
        signed.signer()
    gpg.run("--yes", "--delete-secret-and-public-key", ada)
    with pytest.raises(UnverifiedError, match="not in your keyring"):
        signed.signer()
