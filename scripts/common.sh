# Helpers for the scripts of this directory and for .ci/run; to be sourced by bash.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $1"
    [ $# -lt 2 ] || say "  help: $2"
    exit 1
}

# Run a command as root: directly, or through sudo where that asks no password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 77
    fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >/dev/null
}

# Refresh the lists of packages, at most once for each script.
apt_update() {
    [ -z "${apt_is_fresh:-}" ] || return 0
    apt_is_fresh=1
    apt_get update || say "warning: apt-get update failed; trying with the lists at hand"
}

can_apt() {
    command -v apt-get >/dev/null && as_root true
}

apt_knows() {
    apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [0-9]'
}

# apt_install PACKAGE...: status 0 when all of them are installed afterwards.
apt_install() {
    can_apt || return 1
    say "installing with apt-get: $*"
    apt_update
    apt_get install -y --no-install-recommends "$@"
}

# need COMMAND PACKAGE: make sure that a command is there.
need() {
    command -v "$1" >/dev/null && return 0
    apt_install "$2" || die "'$1' is not installed, and it could not be installed from here" \
        "install the package '$2' (as root: apt-get install $2), then run this again"
    hash -r
}
