"""Logging in: the keys, agent and password that are offered to a host one after the other."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reconciler.execution.hosts.base import AccessError

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")

Method = tuple[str, Callable[[Any], Any]]
"""A way to log in: its name for people, and a function that tries it on a transport."""


class Login:
    """Logs in to one host, as an authentication strategy of paramiko.

    ``named`` are key files that must exist, ``found`` those that can (of the ssh_config and ``~/.ssh``).
    With ``only_named``, the agent is asked only for the keys of these files.
    """

    def __init__(
        self,
        name: str,
        user: str,
        *,
        named: Sequence[str],
        found: Sequence[str],
        only_named: bool,
        passphrase: str | None,
        password: str | None,
    ) -> None:
        self._name = name
        self._user = user
        self._named = named
        self._found = found
        self._only_named = only_named
        self._passphrase = passphrase
        self._password = password
        self._encrypted: list[str] = []

    def authenticate(self, transport: Any) -> None:
        """Try all methods until the host accepts one.

        Raises
        ------
        AccessError
            The host refuses all of them or wants a further factor, or a named key cannot be used.
        """
        from paramiko import SSHException

        tried, further = [], ""
        for label, log_in in self._methods():
            tried.append(label)
            try:
                missing = log_in(transport)
            except (SSHException, EOFError):
                if not transport.is_active():
                    break  # the host has hung up: too many tries
                continue
            if not missing:
                return
            further = ", ".join(missing)
        raise self._refused(tried, further, hung_up=not transport.is_active())

    def _refused(self, tried: Sequence[str], further: str, *, hung_up: bool) -> AccessError:
        refusal = f"{self._name} refuses {self._user}"
        if further:
            return AccessError(
                f"{refusal}: after a key it wants another factor ({further})",
                hint="set 'password', or open an SSH master connection yourself and set 'control_path'",
            )
        offered = f"offered were {', '.join(tried)}" if tried else "there was no key or password to offer"
        if self._encrypted:
            hint = "set 'passphrase', or run `ssh-add` for the key"
            offered += f"; encrypted, without a passphrase: {', '.join(self._encrypted)}"
        elif hung_up and len(tried) > 1:
            hint = "it hung up after too many tries: name the right key in 'key_filename'"
        else:
            hint = f"check with `ssh {self._user}@HOST`; name the key in 'key_filename', or run `ssh-add`"
        return AccessError(f"{refusal}: {offered}", hint=hint)

    def _methods(self) -> Iterator[Method]:
        keys = [(path, self._private_key(path, required=True)) for path in self._named]
        keys += [(path, self._private_key(path, required=False)) for path in self._found]
        yield from ((path, self._with_key(key)) for path, key in keys if key is not None)
        yield from self._agent_methods()
        if self._password is not None:
            password = self._password
            yield "the password", lambda transport: transport.auth_password(self._user, password)

    def _with_key(self, key: Any) -> Callable[[Any], Any]:
        return lambda transport: transport.auth_publickey(self._user, key)

    def _agent_methods(self) -> Iterator[Method]:
        from paramiko import Agent, SSHException

        try:
            agent = Agent()
        except (SSHException, OSError):
            return  # the agent behind SSH_AUTH_SOCK has ended
        try:
            wanted: set[bytes] | None = None
            if self._only_named:
                wanted = set()
                for path in (*self._named, *self._found):
                    with contextlib.suppress(OSError, ValueError, IndexError):
                        text = Path(f"{path}.pub").expanduser().read_text()
                        wanted.add(base64.b64decode(text.split()[1]))
            for number, key in enumerate(agent.get_keys(), start=1):
                if wanted is None or key.asbytes() in wanted:
                    yield f"key {number} of the agent", self._with_key(key)
        finally:
            agent.close()

    def _private_key(self, path: str, *, required: bool) -> Any:
        """Return a private key, or None if the file does not exist or needs a passphrase that is not set."""
        file = Path(path).expanduser()
        try:
            data = file.read_bytes()
        except OSError as error:
            if required:
                message = f"the key {path} for {self._name} cannot be read: {error.strerror}"
                raise AccessError(message, hint="correct 'key_filename'") from None
            return None
        key = load_key(file, data, self._passphrase)
        if not isinstance(key, str):
            return key
        if key == "encrypted":
            self._encrypted.append(path)
        elif required:
            raise AccessError(
                f"the key {path} for {self._name}: {key}",
                hint="try `ssh-keygen -y -f KEY`; correct 'passphrase' or 'key_filename'",
            ) from None
        return None


def load_key(file: Path, data: bytes, passphrase: str | None) -> Any:
    """Return a private key, or a text: ``encrypted`` without a passphrase, else why it cannot be used."""
    from paramiko import PKey, SSHException, UnknownKeyType

    if data.startswith(b"ssh-"):
        return "this is a public key; name the private one"
    try:
        return PKey.from_path(file)
    except TypeError:  # paramiko's error for an encrypted key
        if passphrase is None:
            return "encrypted"
    except (ValueError, SSHException, OSError, UnknownKeyType):
        return "this is not a private key that can be read"
    try:
        return PKey.from_path(file, passphrase.encode())  # type: ignore[arg-type,unused-ignore]
    except (ValueError, TypeError, SSHException, OSError, UnknownKeyType):
        return "the passphrase is wrong"
