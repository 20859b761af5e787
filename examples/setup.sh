#!/usr/bin/env bash
# Installs what the other scripts need: Debian packages, a virtual environment in .venv with
# fleetscan in it, and the appliance. It leaves alone what already exists, so running it again
# takes seconds.
#
# Usage: setup.sh [--no-appliance] [DEBIAN_PACKAGE...]
#   --no-appliance   the caller builds it, as examples/build_fleet.py does beside other work
#   DEBIAN_PACKAGE   another package that the caller needs
#
# Environment:
#   FLEETSCAN_PYTHON          Python to use (3.11 or newer, with venv)
#   FLEETSCAN_DEBIAN_MIRROR   mirror for the appliance and the example images
#   FLEETSCAN_CACHE           where the appliance is kept
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"

# What is needed, as "Debian package: command it brings".
needed=(
    qemu-system-x86:qemu-system-x86_64
    qemu-utils:qemu-img
    mmdebstrap:mmdebstrap
    erofs-utils:mkfs.erofs
    uidmap:newuidmap
    xz-utils:xz
    rpm:rpmbuild
    db5.3-util:db5.3_load
    e2fsprogs:mke2fs
    util-linux:unshare
    bubblewrap:bwrap
    openssl:openssl
    python3-venv:
    debian-archive-keyring:
)

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "set-up stopped: $*"
    exit 1
}

is_installed() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Administrators' commands are not on every user's PATH.
has_command() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

install_packages() {
    if ! command -v apt-get >/dev/null; then
        check_commands
        return
    fi
    local missing=() entry
    for entry in "${needed[@]}" "$@"; do
        is_installed "${entry%%:*}" || missing+=("${entry%%:*}")
    done
    ((${#missing[@]})) || return 0
    local become=()
    if ((EUID != 0)); then
        become=(sudo -n)
        sudo -n true 2>/dev/null ||
            fail "these Debian packages are missing; install them with
    sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
    apt+=(-o Acquire::Retries=5)
    # An old package list names versions that mirrors no longer have.
    "${become[@]}" "${apt[@]}" update >&2 || say "the package lists could not be updated"
    "${become[@]}" "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get could not install ${missing[*]}"
}

check_commands() {
    local missing=() entry command
    for entry in "${needed[@]}"; do
        command=${entry#*:}
        [[ -z $command ]] || has_command "$command" || missing+=("$command")
    done
    ((${#missing[@]} == 0)) ||
        fail "this is not Debian, and these commands are missing: ${missing[*]}
    They belong to QEMU, the tools that build an appliance (or import one that was built elsewhere),
    rpm and filesystem tools; install them with your system's package manager."
}

find_python() {
    local candidate
    for candidate in ${FLEETSCAN_PYTHON:-python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer with its venv module was found (set FLEETSCAN_PYTHON to use another)"
}

install_project() {
    local stamp=.venv/fleetscan-setup wanted
    wanted=$(sha256sum pyproject.toml)
    if [[ -x .venv/bin/fleetscan && $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then
        return
    fi
    if ! .venv/bin/python -c '' 2>/dev/null; then
        local python
        python=$(find_python) || exit 1
        say "making .venv with $python"
        "$python" -m venv --clear .venv
    fi
    say "installing fleetscan and what it needs into .venv"
    .venv/bin/python -m pip install -qq --disable-pip-version-check --editable '.[dev]' ||
        fail "pip could not install the project"
    mkdir -p .venv/namespace/fleetscan # the package as it is installed, for what reads its sources
    ln -sfn ../../../{scanner,rules,reports,appliance,scanner/facts} .venv/namespace/fleetscan
    printf '%s\n' "$wanted" >"$stamp"
}

with_appliance=yes
if [[ ${1:-} == --no-appliance ]]; then
    with_appliance=no
    shift
fi

mkdir -p .fleetscan
exec 9>.fleetscan/setup.lock
flock 9 # two scripts started at once must not install into the same place

install_packages "$@"
install_project 9>&-
[[ $with_appliance == no ]] || .venv/bin/fleetscan appliance build >&2 9>&-
