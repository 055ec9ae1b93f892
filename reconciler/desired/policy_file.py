"""The policy file of the user: where it is, whether it can be trusted, and what it says about a source.

A local repository that the file does not list may use everything that is installed. A remote one may use
nothing that the file does not list, and nothing at all without a file.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import stat
from pathlib import Path

import msgspec

from reconciler.desired.source.command import is_remote, without_secrets
from reconciler.errors import InputError, RefusedError
from reconciler.model.manifests import Kind
from reconciler.model.policy import PolicySpec, SourceRules

ALLOWED_SIGNERS, REVOKED_KEYS = "allowed_signers", "revoked_keys"
"""Files with SSH keys beside the policy, in the formats of ssh-keygen."""

_LARGEST = 1 << 20
"""Bytes that a policy may have."""


def default_policy_file() -> Path:
    """Return ``$XDG_CONFIG_HOME/reconciler/policy.yaml``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "reconciler" / "policy.yaml"


def is_foreign(location: str) -> bool:
    """Return whether a repository is on another machine, so that others than the user may write to it."""
    return is_remote(location) and not location.startswith("file://")


class LocalPolicy:
    """What the policy file says about one source; it is parsed only when its rules are asked for.

    ``file`` is None without a policy; ``source`` is the URL or the path of the repository, and ``keys`` the
    content of the files with SSH keys beside the policy.
    """

    def __init__(
        self, source: str = "", file: Path | None = None, data: bytes = b"", keys: bytes = b""
    ) -> None:
        self.source = source
        self.file = file
        self.data = data
        self.keys = keys

    @property
    def digest(self) -> str:
        """Short and stable for the same file and source; empty if a policy has no part in a plan."""
        if self.file is None:
            return "none" if is_foreign(self.source) else ""
        content = b"\0".join((self.data, self.keys, os.fsencode(self.source)))
        return hashlib.sha256(content).hexdigest()[:12]

    @functools.cached_property
    def rules(self) -> SourceRules | None:
        """The entry of the source; None if it may use everything.

        Raises
        ------
        InputError
            The file is not a valid Policy.
        """
        foreign = is_foreign(self.source)
        entry = _spec_of(self.file, self.data).rules_for(self.source) if self.file is not None else None
        if entry is not None:
            return msgspec.structs.replace(entry, file=str(self.file))
        return SourceRules(source=self.source, prune=[], max_prune=0.0) if foreign else None


def local_policy(location: str, given: str | None) -> LocalPolicy:
    """Return the policy for a repository: of the file that the user names, or the default one if it exists.

    Raises
    ------
    InputError
        The named file does not exist, or it cannot be read.
    RefusedError
        Others can change the file, so it protects from nothing.
    """
    source = without_secrets(location)[0].rstrip("/")
    if not is_remote(source):
        source = str(Path(source).expanduser().resolve())
    file = Path(given).expanduser().absolute() if given else default_policy_file()
    data = _read(file)
    if data is None and given:
        raise InputError(
            f"the policy {file} does not exist", hint="`reconcile policy init` writes a first one"
        )
    if data is None:
        return LocalPolicy(source)
    keys = (_read(file.parent / name) or b"" for name in (ALLOWED_SIGNERS, REVOKED_KEYS))
    return LocalPolicy(source, file, data, b"\0".join(keys))


def _read(file: Path) -> bytes | None:
    """Return a file of the policy that nobody else can change; None if it does not exist."""
    try:
        with file.open("rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise InputError(f"the policy {file} is not a file", hint="give a YAML file with --policy")
            _require_own(file, facts, "600")
            for directory in {file.parent, file.resolve().parent}:
                _require_own(directory, directory.stat(), "700")
            data = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"the policy {file} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise InputError(f"the policy {file} is larger than 1 MiB")
    return data


def _require_own(path: Path, facts: os.stat_result, mode: str) -> None:
    if facts.st_uid not in (0, os.geteuid()):
        raise RefusedError(
            f"refused: the policy {path} belongs to another user (uid {facts.st_uid})",
            hint="copy it to a place of your own, or name another one with --policy",
        )
    sticky = stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_ISVTX
    if facts.st_mode & 0o022 and not sticky:
        raise RefusedError(
            f"refused: others can write to {path} (mode {stat.S_IMODE(facts.st_mode):o}), "
            "so it protects nothing",
            hint=f"check what it says, then run `chmod {mode} {shlex.quote(str(path))}`",
        )


def _spec_of(file: Path, data: bytes) -> PolicySpec:
    from reconciler.desired.yaml.reader import parse_file
    from reconciler.desired.yaml.source_text import diagnostic_with_file

    parsed = parse_file(data)
    for problem in (diagnostic_with_file(one, str(file)) for one in parsed.diagnostics if one.is_error):
        hint = problem.hint or "see `reconcile explain Policy`"
        raise InputError(f"the policy is not valid: {problem.message} ({problem.location})", hint=hint)
    policies = [document for document in parsed.documents if document.kind == Kind.POLICY]
    if len(policies) != 1 or len(parsed.documents) != 1:
        raise InputError(
            f"the policy {file} must have exactly one document, of kind Policy",
            hint="`reconcile policy init` writes a first one",
        )
    return msgspec.convert(policies[0].content["spec"], PolicySpec)
