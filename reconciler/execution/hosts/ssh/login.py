"""Who we are: the keys, the agent and the password that are offered to a host, one after the other."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reconciler.execution.hosts.secrets import AccessError

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")

Way = tuple[str, Callable[[Any], Any]]
"""A way to log in: its name for people, and what to call with the transport."""


class Login:
    """Logs in to one host. paramiko calls it as an authentication strategy.

    ``named`` are key files that must be there, ``found`` those that may (of the ssh_config and ``~/.ssh``).
    With ``only_named``, the agent is asked for the keys of these files only.
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
        self._locked: list[str] = []

    def authenticate(self, transport: Any) -> None:
        """Try all ways until the host is content.

        Raises
        ------
        AccessError
            It refuses all of them, wants one more factor, or a key cannot be used.
        """
        from paramiko import SSHException

        tried, further = [], ""
        for label, log_in in self._ways():
            tried.append(label)
            try:
                missing = log_in(transport)
            except (SSHException, EOFError):
                if not transport.is_active():
                    break  # it has hung up: too many tries
                continue
            if not missing:
                return
            further = ", ".join(missing)
        raise self._refused(tried, further, hung_up=not transport.is_active())

    def _refused(self, tried: Sequence[str], further: str, *, hung_up: bool) -> AccessError:
        said = f"{self._name} refuses {self._user}"
        if further:
            return AccessError(
                f"{said}: after a key it wants another factor ({further})",
                hint="set 'password', or open an SSH master connection yourself and set 'control_path'",
            )
        offered = f"offered were {', '.join(tried)}" if tried else "there was no key or password to offer"
        if self._locked:
            hint = "set 'passphrase', or run `ssh-add` for the key"
            offered += f"; encrypted, and no passphrase is given: {', '.join(self._locked)}"
        elif hung_up and len(tried) > 1:
            hint = "it hung up after too many tries: name the right key in 'key_filename'"
        else:
            hint = f"check with `ssh {self._user}@HOST`; name the key in 'key_filename', or run `ssh-add`"
        return AccessError(f"{said}: {offered}", hint=hint)

    def _ways(self) -> Iterator[Way]:
        keys = [(path, self._read(path, needed=True)) for path in self._named]
        keys += [(path, self._read(path, needed=False)) for path in self._found]
        yield from ((path, self._with_key(key)) for path, key in keys if key is not None)
        yield from self._agent_ways()
        if self._password is not None:
            password = self._password
            yield "the password", lambda transport: transport.auth_password(self._user, password)

    def _with_key(self, key: Any) -> Callable[[Any], Any]:
        return lambda transport: transport.auth_publickey(self._user, key)

    def _agent_ways(self) -> Iterator[Way]:
        from paramiko import Agent, SSHException

        try:
            agent = Agent()
        except (SSHException, OSError):
            return  # what SSH_AUTH_SOCK names is gone
        try:
            wanted = self._public_keys() if self._only_named else None
            for number, key in enumerate(agent.get_keys(), start=1):
                if wanted is None or key.asbytes() in wanted:
                    yield f"key {number} of the agent", self._with_key(key)
        finally:
            agent.close()

    def _public_keys(self) -> set[bytes]:
        found = set()
        for path in (*self._named, *self._found):
            with contextlib.suppress(OSError, ValueError, IndexError):
                text = Path(f"{path}.pub").expanduser().read_text()
                found.add(base64.b64decode(text.split()[1]))
        return found

    def _read(self, path: str, *, needed: bool) -> Any:
        """Return a private key; None if it is not there, or encrypted without a passphrase given."""
        file = Path(path).expanduser()
        try:
            data = file.read_bytes()
        except OSError as error:
            if needed:
                message = f"the key {path} for {self._name} cannot be read: {error.strerror}"
                raise AccessError(message, hint="correct 'key_filename'") from None
            return None
        key = load_key(file, data, self._passphrase)
        if isinstance(key, str):
            if key == "locked":
                self._locked.append(path)
            elif needed:
                raise AccessError(f"the key {path} for {self._name}: {key}", hint=_BAD_KEY_HINT) from None
            return None
        return key


_BAD_KEY_HINT = "try `ssh-keygen -y -f KEY`; correct 'passphrase' or 'key_filename'"


def load_key(file: Path, data: bytes, passphrase: str | None) -> Any:
    """Return a private key; else ``locked`` if it needs a passphrase that is not given, or what is wrong."""
    from paramiko import PKey, SSHException, UnknownKeyType

    if data.startswith(b"ssh-"):
        return "this is a public key; name the private one"
    try:
        return PKey.from_path(file)
    except TypeError:  # that is how it tells that the key is encrypted
        if passphrase is None:
            return "locked"
    except (ValueError, SSHException, OSError, UnknownKeyType):
        return "this is no private key that can be read"
    try:
        return PKey.from_path(file, passphrase.encode())  # type: ignore[arg-type,unused-ignore]
    except (ValueError, TypeError, SSHException, OSError, UnknownKeyType):
        return "the passphrase does not fit"
