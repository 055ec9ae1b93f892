"""Who logs in and runs jobs: a throw-away unix user where that is possible, else the present user."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.services.processes import end, of_user
from tests.services.programs import ServiceError, attempt, program, run

PREFIX = "rcuser-"

# What the shell of a new home reads. In a login shell /etc/profile has reset the PATH: ours comes after it.
# ``cd``: of the present user sshd enters the real home before the environment counts.
_PROFILE = '[ -z "$RC_TEST_PATH" ] || export PATH="$RC_TEST_PATH"\ncd\n'
_CSHRC = "if ( $?RC_TEST_PATH ) setenv PATH $RC_TEST_PATH\ncd\n"

# What a job needs of the checkout and its environment, imported by somebody who owns nothing of it.
_TRIAL = "import reconciler, importlib.util as u; assert u.find_spec('jobflow')"


@dataclass(frozen=True)
class Login:
    """An account of this machine, and a clean home for it.

    ``own``: made for the tests and removed with them. Otherwise the present user, to whom sshd and Slurm give
    ``home`` as HOME; the real home and its login files stay out of it.
    """

    name: str
    uid: int
    gid: int
    home: Path
    own: bool

    @property
    def env(self) -> dict[str, str]:
        """What has to be set in a session of this user."""
        return {} if self.own else {"HOME": str(self.home)}

    def save(self, file: Path) -> None:
        """Write down who this is, for other processes."""
        file.write_text(json.dumps(asdict(self), default=str), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Login:
        """Read what :meth:`save` wrote."""
        facts = json.loads(file.read_text(encoding="utf-8"))
        return cls(**{**facts, "home": Path(facts["home"])})


def default_login(directory: Path) -> Login:
    """Return who should log in; its home is made below ``directory``.

    The decision, in one place. A plain user is the realistic one: it owns nothing of the checkout, and no
    login file of the person who runs the tests slows it down or changes its answers. This takes root, to make
    the user, and a Python with its packages that others may read. A checkout below /root, or an interpreter
    there, is closed to them, and to change that is not the business of the tests: then, and without root, it
    is the present user, with a clean home all the same.
    """
    if os.geteuid() == 0 and others_can_run_jobs():
        return new_login(directory)
    return present_login(directory)


def others_can_run_jobs() -> bool:
    """Try it: import what a job needs with the Python of the tests as a user without any rights."""
    nobody = pwd.getpwnam("nobody")
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-c", _TRIAL],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def present_login(directory: Path, *, home: str = "") -> Login:
    """Return the user who runs the tests, with a clean home of that name."""
    user = pwd.getpwuid(os.geteuid())
    place = directory / "home" / (home or user.pw_name)
    login = Login(user.pw_name, user.pw_uid, user.pw_gid, place, own=False)
    _fill_home(login)
    return login


def new_login(directory: Path, *, shell: str = "/bin/bash", home: str = "") -> Login:
    """Make a unix user with an open account but no password; ``home`` is the name of its home.

    :func:`remove_logins` for the same directory takes it away again.

    Raises
    ------
    ServiceError
        The tests are not run by root.
    """
    if os.geteuid() != 0:
        raise ServiceError("only root can make a user: run these tests as root")
    name = PREFIX + secrets.token_hex(4)
    place = directory / "home" / (home or name)
    place.parent.mkdir(parents=True, exist_ok=True)
    # '*' is no password, but not a locked account either, as '!' would be: sshd refuses that with a key too.
    options = ["--no-log-init", "--no-create-home", "--user-group", "--password", "*"]
    run([program("useradd"), *options, "--home-dir", place, "--shell", shell, name])
    user = pwd.getpwnam(name)
    login = Login(name, user.pw_uid, user.pw_gid, place, own=True)
    _fill_home(login)
    return login


def remove_logins(directory: Path) -> None:
    """Remove all users whose home is below ``directory``, and end what they run."""
    homes = str(directory / "home") + "/"
    for user in pwd.getpwall():
        if user.pw_name.startswith(PREFIX) and user.pw_dir.startswith(homes):
            end(of_user(user.pw_uid), grace=0)
            attempt([program("userdel"), "--force", user.pw_name])


def _fill_home(login: Login) -> None:
    login.home.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, text in ((".bashrc", _PROFILE), (".bash_profile", _PROFILE), (".cshrc", _CSHRC)):
        (login.home / name).write_text(text, encoding="utf-8")
    for place in (login.home, *login.home.iterdir()):
        with contextlib.suppress(PermissionError):
            os.chown(place, login.uid, login.gid)
