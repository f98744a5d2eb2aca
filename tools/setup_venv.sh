#!/bin/sh
# Make .venv/ hold exactly what requirements/dev.txt names, and this checkout. May be called any number of times: it does
# something only if the lock, pyproject.toml, the interpreter or the place of the checkout has changed since. Where there
# are libvirt's headers and a compiler, the binding to libvirt is built too: what needs it is then tested. With a compiler
# the calendar is compiled.
#
#   tools/setup_venv.sh [PYTHON]    with PYTHON given, that interpreter or none
set -eu

cd "$(dirname "$0")/.."
root=$(pwd -P)
venv=$root/.venv
stamp=$venv/.nightshift-setup

# What belongs to another Python must not leak into this one.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP __PYVENV_LAUNCHER__ VIRTUAL_ENV

is_new_enough() {
    # A shim of a version manager may exist and yet run nothing, so ask the interpreter itself.
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

version_of() {
    "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "nothing that runs"
}

python=
if [ -n "${1:-}" ]; then
    if ! is_new_enough "$1"; then
        echo "PYTHON=$1 is $(version_of "$1"); Nightshift needs Python 3.11 or newer" >&2
        exit 2
    fi
    python=$1
else
    seen=
    for candidate in python3 python3.11 python3.12 python3.13 /usr/bin/python3; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if is_new_enough "$candidate"; then
            python=$candidate
            break
        fi
        seen="$seen $candidate ($(version_of "$candidate"))"
    done
    if [ -z "$python" ]; then
        echo "Nightshift needs Python 3.11 or newer; found:${seen:- no python3 at all}" >&2
        echo "install one (Debian 12: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11" >&2
        exit 2
    fi
fi

if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$python ($(version_of "$python")) cannot make virtual environments: its venv and ensurepip modules are missing" >&2
    echo "install them (as root): apt install python3-venv" >&2
    exit 2
fi

libvirt=none
if command -v cc >/dev/null 2>&1 && command -v pkg-config >/dev/null 2>&1 && pkg-config --exists libvirt; then
    libvirt=$(pkg-config --modversion libvirt)
fi

# The stamp names all that the set-up depends on. The path is in it because a copied checkout brings along scripts and an
# editable install that point at the original.
wanted=$(
    echo "checkout $root"
    "$python" -c 'import sys; print("python", sys.version.split()[0], getattr(sys, "_base_executable", sys.executable))'
    echo "libvirt $libvirt"
    cksum tools/setup_venv.sh pyproject.toml requirements/dev.txt requirements/host.txt
)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$venv/bin/python" -c '' >/dev/null 2>&1; then
    tools/compile_calendar.sh
    exit 0
fi

echo "setting up .venv/ with $python ($(version_of "$python"))"
"$python" -m venv --clear "$venv"
# Wheels only: no compiler is needed, and a package that would need one is noticed here. Pip's own settings stay in force.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
    --require-hashes -r requirements/dev.txt
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation \
    --editable .
if [ "$libvirt" != none ] && ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes -r requirements/host.txt; then
    echo "libvirt's binding could not be built against libvirt $libvirt; tests of real hosts are skipped" >&2
fi
printf '%s\n' "$wanted" >"$stamp"
tools/compile_calendar.sh
