"""Signatures of commits and tags, checked by git with the keys that the user allows.

SSH keys are those of ``allowed_signers`` beside the policy (with ``valid-after`` and the like), without those
of ``revoked_keys``; GPG keys are in the user's keyring, and their fingerprints in the policy. Nothing of a
commit is parsed before it is verified.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

from reconciler.desired.policy_file import ALLOWED_SIGNERS, REVOKED_KEYS
from reconciler.desired.source.command import first_line, printable
from reconciler.errors import UnverifiedError
from reconciler.files import write_atomically
from reconciler.model.policy import SourceRules, Verify

SEAL = "Reconciler-seal"
"""The trailer of a signed commit that vouches for all history before it."""

_NEWEST = 20
"""How many verified commits are looked at to find one that has another in its history."""

RunGit = Callable[..., "CompletedProcess[bytes]"]


class Signatures:
    """Verifies commits of one repository; ``known`` is a directory that keeps what was verified before.

    Parameters
    ----------
    run
        Runs git on the repository.
    shallow
        The file with the commits at which a shallow clone ends.
    """

    def __init__(self, run: RunGit, shallow: Path, rules: SourceRules, known: Path | None) -> None:
        self._run = run
        self._shallow = shallow
        self._rules = rules
        self._known = known
        self._signers: dict[str, str] = {}

    def signer(self, commit: str) -> str:
        """Return who signed for a commit, or for a later one that has it in its history.

        Raises
        ------
        UnverifiedError
            Nobody did whose key is allowed.
        """
        if commit not in self._signers:
            self._signers[commit] = self._remembered(commit) or self._verified(commit)
        return self._signers[commit]

    def _verified(self, commit: str) -> str:
        match self._rules.verify:
            case Verify.TAG:
                found = self._by_tag(commit)
            case Verify.STRICT:
                found = self._with_history(commit)
            case _:
                found = self._check("commit", commit, f"commit {commit[:7]}")
        if self._known is not None:
            with suppress(OSError):  # without it, the commit is verified again
                self._known.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomically(self._known / commit, found.encode(), sync=False)
        return found

    def _remembered(self, commit: str) -> str | None:
        try:
            names = sorted(self._known.iterdir(), key=_age, reverse=True) if self._known is not None else []
        except OSError:
            return None
        for one in sorted(names[:_NEWEST], key=lambda one: one.name != commit):
            inside = one.name == commit or self._run(
                "merge-base", "--is-ancestor", commit, one.name, check=False
            ).returncode == 0  # fmt: skip
            if inside:
                return one.read_text()
        return None

    # the modes ----------------------------------------------------------------------------------------

    def _by_tag(self, commit: str) -> str:
        form = "--format=%(objecttype) %(refname)"
        listed = self._run("for-each-ref", form, f"--points-at={commit}", "refs/tags").stdout.decode()
        tags = [line.partition(" ")[2] for line in listed.splitlines() if line.startswith("tag ")]
        problem = None
        for tag in tags:
            try:
                return self._check("tag", tag, f"tag {printable(tag.removeprefix('refs/tags/'))}")
            except UnverifiedError as error:
                problem = error
        raise problem or self._refused(
            f"commit {commit[:7]} has no signed tag", "sign one: `git tag -s NAME`"
        )

    def _with_history(self, commit: str) -> str:
        """Verify a commit and all before it, back to a commit with a seal or one that was verified before."""
        found = self._check("commit", commit, f"commit {commit[:7]}")
        ends = set(self._shallow.read_text().split()) if self._shallow.exists() else set()
        todo, seen = [commit], {commit}
        while todo:
            one = todo.pop()
            self._check("commit", one, f"commit {one[:7]}, which is part of the history,")
            form = f"--format=%P%x00%(trailers:key={SEAL},valueonly)"
            parents, _, seal = (
                self._run("log", "-1", form, one).stdout.decode(errors="replace").partition("\0")
            )
            if seal.strip():
                continue
            if one in ends:
                raise self._refused(
                    f"the history of {commit[:7]} ends at {one[:7]}, because this clone is shallow",
                    f"run `git fetch --unshallow`, or sign a commit with the trailer '{SEAL}: ...'",
                )
            more = [parent for parent in parents.split() if parent not in seen]
            seen.update(more)
            todo += [parent for parent in more if self._remembered(parent) is None]
        return found

    # one signature ------------------------------------------------------------------------------------

    def _check(self, kind: str, name: str, shown: str) -> str:
        """Return who signed a commit or tag. Raises UnverifiedError."""
        folder = Path(self._rules.file).parent
        allowed, revoked = folder / ALLOWED_SIGNERS, folder / REVOKED_KEYS
        settings = [
            f"gpg.ssh.allowedSignersFile={allowed if allowed.exists() else '/dev/null'}",
            *([f"gpg.ssh.revocationFile={revoked}"] if revoked.exists() else []),
            *("gpg.program=gpg", "gpg.openpgp.program=gpg", "gpg.x509.program=false"),
            *("gpg.ssh.program=ssh-keygen", "gpg.minTrustLevel=undefined"),
        ]
        options = [part for setting in settings for part in ("-c", setting)]
        done = self._run(*options, f"verify-{kind}", "--raw", name, check=False)
        said = printable(done.stderr)
        if done.returncode == 0:
            ssh = re.search(r'^Good "git" signature for (.+) with (\S+) key (\S+)$', said, re.MULTILINE)
            if ssh is not None:
                return f"{ssh[1]} ({ssh[2]} {ssh[3]})"
            status = _gpg_status(said)
            keys = (
                {status["VALIDSIG"].split()[0], status["VALIDSIG"].split()[-1]}
                if "VALIDSIG" in status
                else ()
            )
            if any(key.upper() in self._gpg_keys() for key in keys):
                return f"{status.get('GOODSIG', '').partition(' ')[2]} (GPG {status['VALIDSIG'].split()[-1]})"
            if keys:
                fingerprint = status["VALIDSIG"].split()[-1]
                raise self._refused(
                    f"{shown} is signed with a GPG key that the policy does not list",
                    f"if you trust it, add `gpg_keys: [{fingerprint}]`",
                )
        raise self._refused(f"{shown} {_why(said, done.stderr)}", "sign it with a key that the policy allows")

    def _gpg_keys(self) -> set[str]:
        return {key.replace(" ", "").upper() for key in self._rules.gpg_keys}

    def _refused(self, problem: str, hint: str) -> UnverifiedError:
        return UnverifiedError(
            f"refused: {problem}; nothing of it was read",
            hint=f"{hint}; keys are in {Path(self._rules.file).parent / ALLOWED_SIGNERS}, or gpg_keys of "
            f"{self._rules.file}. What was applied before stays in force",
        )


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _gpg_status(said: str) -> dict[str, str]:
    lines = (line.removeprefix("[GNUPG:] ") for line in said.splitlines() if line.startswith("[GNUPG:] "))
    return {word: rest for word, _, rest in (line.partition(" ") for line in lines)}


_WHY = {
    "REVKEYSIG": "is signed with a GPG key that was revoked",
    "EXPKEYSIG": "is signed with a GPG key that has expired",
    "EXPSIG": "has a signature that has expired",
    "BADSIG": "has a GPG signature that is wrong",
    "NO_PUBKEY": "is signed with a GPG key that is not in your keyring",
}


def _why(said: str, raw: bytes) -> str:
    """Return why a signature does not count, for after the name of what is signed."""
    status = _gpg_status(said)
    for word, why in _WHY.items():
        if word in status:
            return why
    if not said.strip() or "no signature found" in said:
        return "is not signed"
    if "No principal matched" in said:
        return "is signed with an SSH key that is not among the allowed signers, or not valid then"
    if "revoked" in said.lower():
        return "is signed with an SSH key that was revoked"
    return f"has a signature that does not count: {first_line(raw)}"
