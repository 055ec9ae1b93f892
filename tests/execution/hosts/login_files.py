"""Login files as they are on clusters, each a nuisance for scripts in its own way."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "a cd that lists": 'cd() { builtin cd "$@" && ls; }; export -f cd',
    "a mkdir that talks": "shopt -s expand_aliases; alias mkdir='mkdir -v' mv='mv -v' rm='rm -v' ls='ls -l'",
    "functions for our commands": (
        "mkdir() { command mkdir -v $*; }; ls() { command ls -l $*; }; export -f mkdir ls"
    ),
    "errors end the shell": "set -e; true",
    "unset variables are errors": "set -u",
    "no file is overwritten": "set -o noclobber",
    "no wildcards": "set -f",
    "all options exported": "set -eufC; export SHELLOPTS",
    "a question": "read -p 'which project? ' PROJECT; read -n 1 KEY; read REST",
    "a farewell": "trap 'echo bye; echo bye >&2' EXIT DEBUG",
    "a greeting without end": "printf 'welcome %s' \"$USER\"; printf 'oops' >&2",
    "paths of cd": "export CDPATH=/:/usr",
    "options of programs": (
        "export TAR_OPTIONS=-v QUOTING_STYLE=shell-always POSIXLY_CORRECT=1 LS_BLOCK_SIZE=M"
    ),
    "a file for every shell": (
        "echo 'echo each time; cd() { builtin cd \"$@\"; pwd; }' > ~/each; export BASH_ENV=~/each"
    ),
    "files for nobody else": "umask 077",
}


def write_login_files(home: Path, text: str) -> None:
    """Make a home directory whose login files have this text."""
    home.mkdir()
    home.chmod(0o755)
    for name in (".bash_profile", ".bashrc"):
        (home / name).write_text(f"{text}\nexport FROM_PROFILE=1\n")
